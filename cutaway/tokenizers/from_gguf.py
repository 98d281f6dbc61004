"""The tokenizer that a GGUF file's metadata describes, as a tokenizer.json.

Two kinds are known. "gpt2" is byte-level BPE, as in GPT-2, Llama 3, Qwen and SmolLM: tokens, merges, and the name of
how a text is cut into words before merging; the patterns behind the names are those of the models' own tokenizer.json
files, which llama.cpp (src/llama-vocab.cpp) computes too. "llama" is SentencePiece's BPE (Kudo & Richardson 2018), as
in Llama 2, Mistral, Gemma and Phi-3: tokens with scores, of which neighbours that make the token of the best score are
merged first, and bytes for characters that have no token.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cutaway.errors import ConfigError, DamagedFile, unknown
from cutaway.tokenizers.sentencepiece import merges_of
from cutaway.tokenizers.spec import template
from cutaway.tokenizers.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # kinds of token
ADDED = ("single_word", "lstrip", "rstrip", "normalized")  # how a special token is found: plainly
ROLE_KEYS = {"begin_of_text": "bos", "end_of_text": "eos", "pad": "padding", "mask": "mask"}
SPACE = "▁"


def _byte_level(*, regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": regex}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_WORDS = QWEN2_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+#|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*#"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN_WORDS = _CASED.replace("#", "") + r"|\p{N}" + _SIGNS
GPT4O_WORDS = _CASED.replace("#", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?") + r"|\p{N}{1,3}" + _SIGNS
NFC = {"type": "NFC"}

Words = tuple[list[dict[str, Any]], bool, dict[str, Any] | None]
GPT2: Words = ([_byte_level(regex=True)], False, None)
DIGITS: Words = ([{"type": "Digits", "individual_digits": True}, _byte_level(regex=True)], False, None)
LLAMA3: Words = ([_split(LLAMA3_WORDS), _byte_level(regex=False)], False, None)
QWEN2: Words = ([_split(QWEN2_WORDS), _byte_level(regex=False)], False, NFC)
# what llama.cpp does where a file says nothing
DEFAULT: Words = (
    [
        *map(
            _split, (r"[\p{P}\$\+<=>\^~\|]+", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)")
        ),
        *map(_split, (r"\p{N}+", "[0-9][0-9][0-9]")),
        _byte_level(regex=False),
    ],
    False,
    None,
)
# name -> how a text is cut, whether a whole word that is a token stays one, and how it is normalised before
WORDS: dict[str, Words] = {
    "default": DEFAULT,
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "jais", "trillion", "roberta-bpe", "mellum", "exaone4"), GPT2),
    "olmo": ([_byte_level(regex=True)], False, NFC),  # of GPT-NeoX: Pythia, OLMo
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), DIGITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"), (LLAMA3[0], True, None)),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe", "glm4"), LLAMA3),  # OLMo 2 and Phi-4 are "dbrx"
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"), QWEN2),
    "tekken": ([_split(TEKKEN_WORDS), _byte_level(regex=False)], True, None),
    **dict.fromkeys(("gpt-4o", "llama4"), ([_split(GPT4O_WORDS), _byte_level(regex=False)], False, None)),
}


def tokenizer_from_gguf(metadata: Mapping[str, Any], where: str = "the GGUF file") -> Tokenizer:
    """Make the tokenizer.

    Its `chat_template` is the file's. Whether a model wants its beginning-of-text token before a text is kept as
    tokenizer.json keeps it; `encode` adds nothing.

    Args:
        metadata: of the file.
        where: what to call it in messages.

    Raises:
        ConfigError: a kind of tokenizer, or a way to cut words, that is not supported, named.
        DamagedFile: tokens and their kinds, scores or merges do not fit each other.
    """
    model = metadata.get("tokenizer.ggml.model")
    if not isinstance(model, str) or model not in KINDS:
        raise ConfigError(unknown(f"tokenizer.ggml.model in {where}", str(model), KINDS))
    tokens = _texts(metadata, "tokens", where)
    kinds = metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    if not isinstance(kinds, list):
        raise DamagedFile(f"{where} has no list of kinds tokenizer.ggml.token_type, but {type(kinds).__name__}")
    if len(kinds) != len(tokens) or len(set(tokens)) != len(tokens):
        raise DamagedFile(f"{where} lists {len(tokens)} tokens ({len(set(tokens))} different), and {len(kinds)} kinds")
    roles = {}
    for role, key in ROLE_KEYS.items():
        number = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(number, int) and 0 <= number < len(tokens):
            roles[role] = tokens[number]
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": token, "special": kind == CONTROL} | dict.fromkeys(ADDED, False)
            for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind in (CONTROL, USER_DEFINED)
        ],
        **KINDS[model](metadata, tokens, kinds, where),
    }
    first = metadata.get("tokenizer.ggml.add_bos_token", model == "llama" or _cut(metadata, where) in BEGINS)
    last = metadata.get("tokenizer.ggml.add_eos_token", False)
    asked = {"begin_of_text": first is True, "end_of_text": last is True}
    before, after = ([(roles[r], tokens.index(roles[r]))] if r in roles and asked[r] else [] for r in asked)
    around = template(before, after, [*after, *before]) if before or after else None
    chat = metadata.get("tokenizer.chat_template")
    return Tokenizer(
        spec | {"post_processor": around},
        roles=roles,
        where=where,
        chat_template=chat if isinstance(chat, str) else None,
    )


def _cut(metadata: Mapping[str, Any], where: str) -> str:
    """The name of how a text is cut."""
    cut = metadata.get("tokenizer.ggml.pre", "default")
    if not isinstance(cut, str) or cut not in WORDS:
        raise ConfigError(unknown(f"tokenizer.ggml.pre in {where}", str(cut), WORDS))
    return cut


BEGINS = {name for name, words in WORDS.items() if words == WORDS["llama-bpe"]} | {"tekken"}


def _bpe(vocab: list[str], merges: Sequence[Sequence[str]], **own: Any) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **own,
        "vocab": {token: i for i, token in enumerate(vocab)},
        "merges": merges,
    }


def _gpt2(metadata: Mapping[str, Any], tokens: list[str], kinds: list[Any], where: str) -> dict[str, Any]:
    """Byte-level BPE."""
    cutters, whole_words, normalizer = WORDS[_cut(metadata, where)]
    merges = [(*merge.split(" ", 1),) for merge in _texts(metadata, "merges", where)]
    if any(len(merge) != 2 for merge in merges):
        raise DamagedFile(f"{where} lists a merge that is not of two pieces")
    return {
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cutters},
        "decoder": _byte_level(regex=True),
        "model": _bpe(tokens, merges, ignore_merges=whole_words),
    }


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str], kinds: list[Any], where: str) -> dict[str, Any]:
    """SentencePiece's BPE. As in llama.cpp, what follows a user-defined token begins as a text does."""
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise DamagedFile(f"{where} has no tokenizer.ggml.scores, one for each of {len(tokens)} tokens")
    if metadata.get("tokenizer.ggml.remove_extra_whitespaces") or metadata.get("tokenizer.ggml.precompiled_charsmap"):
        raise ConfigError(f"{where} asks for texts to be normalised, which is not supported for tokens of kind llama")
    unknowns = [token for token, kind in zip(tokens, kinds, strict=True) if kind == UNKNOWN]
    normal = {token: score for token, kind, score in zip(tokens, kinds, scores, strict=True) if kind == NORMAL}
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True) is True
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    begin = {"type": "Prepend", "prepend": SPACE}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    decoders = [back, {"type": "ByteFallback"}, {"type": "Fuse"}] + [strip] * prefix
    return {
        "normalizer": {"type": "Sequence", "normalizers": [begin] * prefix + [spaces]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _bpe(
            tokens,
            merges_of(normal, where),
            unk_token=unknowns[0] if unknowns else None,
            fuse_unk=True,
            byte_fallback=True,
        ),
    }


KINDS = {"gpt2": _gpt2, "llama": _sentencepiece}


def _texts(metadata: Mapping[str, Any], name: str, where: str) -> list[str]:
    found = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise DamagedFile(f"{where} has no list of texts tokenizer.ggml.{name}")
    return found
