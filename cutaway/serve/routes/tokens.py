"""/tokenize, /detokenize and /tokenizer_info: how a model cuts texts, for clients that count or cut by tokens.

Special tokens are not read out of a text, as nowhere on this server; but a prompt that is nothing but the name of one
is that token, which is how clients ask for its number.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request as HttpRequest

from cutaway.generation.turn import turn_ids
from cutaway.models import Model, Recurrent, Seq2Seq
from cutaway.serve.body import JsonRoute
from cutaway.serve.errors import ApiError
from cutaway.serve.routes.chat import as_data, format_of
from cutaway.serve.schema.base import errors
from cutaway.serve.schema.generating import Name
from cutaway.serve.schema.tokens import (
    ChatToTokenize,
    Detokenized,
    DetokenizeRequest,
    Tokenized,
    TokenizeRequest,
    TokenizerInfo,
)
from cutaway.serve.server import caller_of, server_of
from cutaway.tokenizers.tokenizer import ROLES

router = APIRouter(route_class=JsonRoute)


@router.post("/tokenize", responses=errors(404, 413, 504))
async def tokenize(asked: TokenizeRequest, http: HttpRequest) -> Tokenized:
    """The tokens of a text or of a conversation."""
    server = server_of(http)
    most = server.settings.max_prompt
    if isinstance(asked, ChatToTokenize):
        size = sum(len(message.model_dump_json()) for message in (*asked.messages, *(asked.tools or ())))
        _bounded(size, most, "characters", "messages")
    else:
        _bounded(len(asked.prompt), most, "characters", "prompt")
    with await server.begin(http, _model_of(http, asked.model)) as work:
        model = work.loaded.model

        def count() -> Tokenized:
            if isinstance(asked, ChatToTokenize):
                tools = [tool.model_dump(exclude_none=True) for tool in asked.tools or ()] or None
                how = {"format": format_of(model, server.settings), "tools": tools}
                begins = asked.add_generation_prompt
                ids = turn_ids(model, as_data(asked.messages), add_generation_prompt=begins, **how)
            else:
                ids = ids_of(model, asked.prompt, asked.add_special_tokens)
            strings = [model.tokenizer.token(id) for id in ids] if asked.return_token_strs else None
            return Tokenized(count=len(ids), max_model_len=context_of(model), tokens=ids, token_strs=strings)

        return await work.attended(server.bridge.aside(count))


@router.post("/detokenize", responses=errors(404, 413, 504))
async def detokenize(asked: DetokenizeRequest, http: HttpRequest) -> Detokenized:
    """The text of tokens, special ones by their names."""
    server = server_of(http)
    most = server.settings.max_prompt
    _bounded(len(asked.tokens), most, "tokens", "tokens")
    with await server.begin(http, _model_of(http, asked.model)) as work:
        tokenizer = work.loaded.model.tokenizer

        def read() -> Detokenized:
            size = sum(len(tokenizer.token_bytes(id)) for id in asked.tokens)  # one token may be a hundred spaces
            _bounded(size, 4 * most, "bytes of text", "tokens")
            return Detokenized(prompt=tokenizer.decode(asked.tokens))

        return await work.attended(server.bridge.aside(read))


@router.get("/tokenizer_info", responses=errors(404, 504))
async def tokenizer_info(http: HttpRequest, model: Annotated[Name | None, Query()] = None) -> TokenizerInfo:
    """Its special tokens, its size, and how it writes conversations."""
    server = server_of(http)
    with await server.begin(http, _model_of(http, model)) as work:
        loaded = work.loaded.model
        tokenizer = loaded.tokenizer
        names = {id: name for name, id in tokenizer.special.items()}
        roles = {key: names.get(getattr(tokenizer, role)) for role, key in ROLES.items()}
        template = tokenizer.chat_template
        return TokenizerInfo(
            tokenizer_class="PreTrainedTokenizerFast",
            kind=tokenizer.kind,  # pyright: ignore[reportArgumentType]  # one of KINDS
            vocab_size=tokenizer.vocab_size,
            model_max_length=context_of(loaded),
            chat_template=template.get("default") if isinstance(template, dict) else template,
            **roles,
        )


def ids_of(model: Model, text: str, special: bool) -> list[int]:
    """The ids of a text.

    Args:
        model: what would read it.
        text: may be empty.
        special: with what the tokenizer's file puts around a text that this model reads.
    """
    tokenizer = model.tokenizer
    if text in tokenizer.special:
        return [tokenizer.special[text]]
    if not special or not text:
        return tokenizer.encode(text)
    source = isinstance(model.network, Seq2Seq) and model.mel is None
    return (model.source_ids(text) if source else model.ids(text))[0].tolist()


def context_of(model: Model) -> int | None:
    """Tokens that a model sees at once; of an encoder–decoder those of its source; None: any number."""
    if isinstance(model.network, Recurrent):
        return None
    if isinstance(model.network, Seq2Seq):
        return model.network.config.source_context
    return model.config.context


def _model_of(http: HttpRequest, name: str | None) -> str:
    """The model that is meant: one by name, or the only one that the caller may use."""
    if name is not None:
        return name
    known = [one for one in server_of(http).models.sources if caller_of(http).may_use(one)]
    if len(known) == 1:
        return known[0]
    said = f"there are {', '.join(known)}" if known else "your key may use none"
    raise ApiError(400, f"say which model is meant: {said}", code="missing_parameter", param="model")


def _bounded(size: int, most: int, what: str, param: str) -> None:
    """Refuse what is too long."""
    if size > most:
        message = f"{param} may have at most {most:,} {what}, but {size:,} were given; send less at once"
        raise ApiError(400, message, code="too_long", param=param)
