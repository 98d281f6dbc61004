"""/tokenize, /detokenize and /tokenizer_info: texts and tokens, in the shapes that vLLM uses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from cutaway.serve.schema.base import Asked, Off, Told
from cutaway.serve.schema.chat import Message, Tool
from cutaway.serve.schema.completions import Id
from cutaway.serve.schema.generating import Name, at_most


class TextToTokenize(Asked):
    """A text, as /v1/completions would read it."""

    model: Annotated[Name | None, Field(description="May be left out where the server has one model.")] = None
    prompt: Annotated[str, Field(description="A text. At most `max_prompt` (2,000,000) characters.")]
    add_special_tokens: Annotated[
        bool, Field(description="Put around it what the tokenizer's file says; with `messages` only false is taken.")
    ] = True
    return_token_strs: Annotated[bool | None, Field(description="Tell each token's text, too.")] = False


class ChatToTokenize(Asked):
    """A conversation, as /v1/chat/completions would read it."""

    model: Annotated[Name | None, Field(description="May be left out where the server has one model.")] = None
    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=4096), at_most(4096)] = Field(
        description="A conversation, instead of `prompt`; one of them must be given. At most `max_prompt` (2,000,000) "
        "characters together."
    )
    tools: Annotated[list[Tool], Field(fail_fast=True, max_length=128)] | None = Field(
        None, description="Functions that may be called, with `messages`."
    )
    add_generation_prompt: Annotated[bool, Field(description="End with what begins an answer.")] = True
    continue_final_message: Off = Field(False, description="A new turn begins.")
    add_special_tokens: Off = Field(False, description="The template writes them.")
    return_token_strs: Annotated[bool | None, Field(description="Tell each token's text, too.")] = False


def _kind(given: Any) -> str:
    chat = "messages" in given if isinstance(given, dict) else isinstance(given, ChatToTokenize)
    return "chat" if chat else "text"


TokenizeRequest = Annotated[
    Annotated[TextToTokenize, Tag("text")] | Annotated[ChatToTokenize, Tag("chat")], Discriminator(_kind)
]


class Tokenized(Told):
    """The tokens of a text."""

    count: int
    max_model_len: Annotated[int | None, Field(description="Tokens that the model sees at once; null: any number.")]
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Asked):
    """Tokens to be read."""

    model: Annotated[Name | None, Field(description="May be left out where the server has one model.")] = None
    tokens: Annotated[list[Id], Field(fail_fast=True, max_length=1_048_576), at_most(1_048_576)] = Field(
        description="At most `max_prompt` (2,000,000), of together four times as many bytes."
    )


class Detokenized(Told):
    """Their text."""

    prompt: str


class TokenizerInfo(Told):
    """What a client needs to know of a tokenizer: the keys of tokenizer_config.json, and its size."""

    tokenizer_class: str
    kind: Literal["bpe", "unigram", "wordpiece", "word", "char"]
    vocab_size: int
    model_max_length: Annotated[int | None, Field(description="Tokens that the model sees at once; null: any number.")]
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    mask_token: str | None
    chat_template: Annotated[str | None, Field(description="Of several, the default one.")]
