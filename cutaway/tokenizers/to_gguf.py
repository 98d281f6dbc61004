"""A tokenizer as GGUF metadata, the reverse of `from_gguf`.

What cuts a text into words is in a GGUF file only a name, so a tokenizer can be written if there is a name for its way.
Cutaway's own byte-level BPE has one: "llama-bpe", as its pattern is Llama 3's.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from cutaway.errors import ConfigError
from cutaway.tokenizers.frame import frame
from cutaway.tokenizers.from_gguf import (
    BYTE,
    CONTROL,
    NORMAL,
    ROLE_KEYS,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    WORDS,
)
from cutaway.tokenizers.sentencepiece import merges_of
from cutaway.tokenizers.spec import BYTE_TOKEN, build_tokenizer, is_byte_level, parts
from cutaway.tokenizers.tokenizer import Tokenizer

NAMELESS = "GGUF has no name for"


def tokenizer_to_gguf(
    tokenizer: Tokenizer, vocab_size: int, note: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The keys that describe a tokenizer.

    Args:
        tokenizer: what to write.
        vocab_size: rows of the model's embedding; those without a token are named as unused.
        note: told what will be cut otherwise by other programs, if anything is.

    Raises:
        ConfigError: GGUF cannot express the tokenizer; says what stands in the way.
    """
    model = tokenizer.spec["model"]
    if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise ConfigError(f"{NAMELESS} a tokenizer of the kind {tokenizer.kind}; train one of the kind bpe")
    if tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, but the model's embedding {vocab_size} rows"
        )
    added = _added(tokenizer)
    tokens, kinds = [f"[PAD{i}]" for i in range(vocab_size)], [UNUSED] * vocab_size
    for token, id in model["vocab"].items():
        tokens[id], kinds[id] = token, NORMAL
    for id, (token, special) in added.items():
        tokens[id], kinds[id] = token, CONTROL if special else USER_DEFINED
    written: dict[str, Any] = {"tokenizer.ggml.tokens": tokens}
    if is_byte_level(tokenizer.spec):
        written |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": _name(tokenizer, added.keys())}
        written["tokenizer.ggml.merges"] = [" ".join(_pair(merge)) for merge in model["merges"]]
    elif model.get("byte_fallback"):
        scores, prefix = _scores(tokenizer), _space_prefix(tokenizer, note)
        written |= {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default"}
        written["tokenizer.ggml.scores"] = [scores.get(token, 0.0) for token in tokens]
        written["tokenizer.ggml.add_space_prefix"] = prefix
        for id, token in enumerate(tokens):
            if kinds[id] == NORMAL and BYTE_TOKEN.match(token):
                kinds[id] = BYTE
            elif token == model.get("unk_token"):
                kinds[id] = UNKNOWN
                written["tokenizer.ggml.unknown_token_id"] = id
    else:
        raise ConfigError(f"{NAMELESS} a BPE that is neither byte-level nor falls back to bytes")
    written["tokenizer.ggml.token_type"] = kinds
    for role, key in ROLE_KEYS.items():
        if (id := getattr(tokenizer, role)) is not None:
            written[f"tokenizer.ggml.{key}_token_id"] = id
    framed = frame(tokenizer, [-1])[0]
    written["tokenizer.ggml.add_bos_token"] = framed[0] == tokenizer.begin_of_text
    written["tokenizer.ggml.add_eos_token"] = framed[-1] == tokenizer.end_of_text
    if tokenizer.chat_template is not None:
        written["tokenizer.chat_template"] = tokenizer.chat_template
    return written


def _added(tokenizer: Tokenizer) -> dict[int, tuple[str, bool]]:
    """id -> text, and whether it is special, of the tokens that are found before any merging."""
    listed = tokenizer.spec.get("added_tokens") or []
    return {token["id"]: (token["content"], bool(token.get("special"))) for token in listed}


def _pair(merge: Any) -> list[str]:
    """The two pieces of a merge, which older files write as one text."""
    return merge.split(" ", 1) if isinstance(merge, str) else merge


def _steps(spec: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What cuts a text into words, defaults filled in, so that two ways can be compared."""
    steps: list[tuple[Any, ...]] = []
    for part in parts(spec, "pre_tokenizer"):
        if part["type"] == "Split":
            steps.append(("Split", part["pattern"].get("Regex"), part.get("behavior"), part.get("invert", False)))
        elif part["type"] == "ByteLevel":
            steps.append(("ByteLevel", part.get("add_prefix_space", True), part.get("use_regex", True)))
        else:
            steps.append(tuple(sorted((key, value) for key, value in part.items() if value is not None)))
    return steps


def _name(tokenizer: Tokenizer, added: Any) -> str:
    """The name of how a text is cut.

    Raises:
        ConfigError: there is none.
    """
    spec = tokenizer.spec
    steps = _steps(spec)
    normal = [part["type"] for part in parts(spec, "normalizer")]
    whole = bool(spec["model"].get("ignore_merges"))
    # where every token is what merging makes of its own text, looking whole words up first changes nothing
    merging = build_tokenizer(tokenizer.text, "the tokenizer").model
    same = not whole and all(
        [piece.id for piece in merging.tokenize(token)] == [id]
        for token, id in spec["model"]["vocab"].items()
        if id not in added
    )
    for name in ("llama-bpe", *WORDS):
        cutters, looked_up, normalizer = WORDS[name]
        alike = _steps({"pre_tokenizer": {"type": "Sequence", "pretokenizers": cutters}}) == steps
        if alike and normal == ([normalizer["type"]] if normalizer else []) and (looked_up == whole or same):
            return name
    shown = ", ".join(str(step[1]) if step[0] == "Split" else str(step[0]) for step in steps) or "nothing"
    raise ConfigError(
        f"{NAMELESS} how this tokenizer cuts a text into words ({shown}; normalised by {normal or 'nothing'}), so "
        "other programs would make other tokens; a tokenizer that cutaway prepare learns as bpe can be written"
    )


def _scores(tokenizer: Tokenizer) -> dict[str, float]:
    """Scores by which merging neighbours takes the same course as the merges.

    Raises:
        ConfigError: no scores do that.
    """
    model = tokenizer.spec["model"]
    merges = [tuple(_pair(merge)) for merge in model["merges"]]
    made = dict.fromkeys(left + right for left, right in merges)
    scores = {token: -float(rank) for rank, token in enumerate(made)}
    singles = dict.fromkeys(model["vocab"].keys() - made.keys(), -float(len(made)))
    apart = {text for text, _ in _added(tokenizer).values()} | {model.get("unk_token")}
    plain = {
        token: score
        for token, score in (singles | scores).items()
        if token not in apart and not BYTE_TOKEN.match(token)
    }
    order = [left + right for left, right in merges]
    grouped = all(a == b or scores[a] > scores[b] for a, b in pairwise(order))
    if not grouped or {tuple(pair) for pair in merges_of(plain, str(tokenizer))} != set(merges):
        raise ConfigError(f"{NAMELESS} these merges: no scores of the tokens make SentencePiece merge as they do")
    return singles | scores


def _space_prefix(tokenizer: Tokenizer, note: Callable[[str], None]) -> bool:
    """Whether a space is put before a text.

    Raises:
        ConfigError: something else is done to a text.
    """
    steps = [*parts(tokenizer.spec, "normalizer"), *parts(tokenizer.spec, "pre_tokenizer")]
    kinds = [(step["type"], step.get("prepend") or step.get("content") or step.get("replacement")) for step in steps]
    if kinds in ([("Prepend", SPACE), ("Replace", SPACE)], [("Replace", SPACE)]):
        return len(kinds) == 2
    if kinds == [("Metaspace", SPACE)] and not steps[0].get("split", True):
        scheme = steps[0].get("prepend_scheme", "always")
        if scheme != "never":
            note("llama.cpp puts a space before every text, this tokenizer only before those that begin with none")
        return scheme != "never"
    raise ConfigError(f"{NAMELESS} what this tokenizer does to a text before merging: {', '.join(k for k, _ in kinds)}")
