"""Learn a tokenizer from texts. Every kind spells any text exactly: below the learned pieces lie the 256 bytes.

    bpe         byte-pair encoding on bytes (Sennrich et al. 2016; Radford et al. 2019): merge the commonest pair, again
    unigram     the pieces whose unigram model explains the texts best (Kudo 2018)
    wordpiece   pieces by merging, text by the longest match from the left (Schuster & Nakajima 2012, as in BERT)
    word        whole words; a word that is not in the vocabulary is spelled in bytes
    char        whole characters; likewise

Textbook word and WordPiece tokenizers map what they do not know to [UNK] and lose it; these do not. All of them see
spaces as part of the text (" the" and "the" are two words), so nothing about white space is lost either.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.progress import OnProgress, Progress
from cutaway.tokenizers.spec import CONTINUES, byte_letters, make
from cutaway.tokenizers.tokenizer import MOST_TOKENS, ONE_CHARACTER, Tokenizer, check_text

SPECIAL = 3  # <|endoftext|>, <|pad|>, <|mask|>

# The pattern of Llama 3 (and of OpenAI's cl100k_base): a word takes the space before it, numbers go in groups of up to
# three digits, line breaks stay with what they end. Kept to the letter, because fast encoders know it by its letters.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Whole words: one character of a script that has no spaces is a word, every digit and every mark of punctuation too.
# The bounds keep WordPiece, whose matching takes the square of a word's length, linear in the text's.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORDS = (
    rf" ?[{_UNSPACED}]| ?[\p{{L}}\p{{M}}&&[^{_UNSPACED}]]{{1,24}}|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]"
    r"|\s{1,16}(?!\S)|\s"
)


def train_tokenizer(
    texts: Iterable[str],
    kind: str = "bpe",
    vocab_size: int = 8192,
    *,
    min_frequency: int = 2,
    progress: OnProgress | None = None,
) -> Tokenizer:
    """Learn a tokenizer.

    Args:
        texts: the texts to learn from; read once, counted in words, not kept. Some tens of megabytes are plenty.
        kind: one of KINDS.
        vocab_size: the most tokens it may have, the 256 bytes and 3 special tokens included; poor texts yield fewer.
        min_frequency: how often a pair (bpe, wordpiece), word or character must occur; unigram has its own criterion.
        progress: told how many bytes have been read.

    Raises:
        ConfigError: an unknown kind, or a vocabulary that is too small or no number.
        InputError: no text, or one with a lone surrogate.
    """
    if kind not in KINDS:
        raise ConfigError(unknown("tokenizer kind", str(kind), KINDS))
    least = 2 * 256 + SPECIAL if kind == "wordpiece" else 256 + SPECIAL
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, int) or not least <= vocab_size <= MOST_TOKENS:
        what = "the 256 bytes, as beginning and as continuation," if kind == "wordpiece" else "the 256 bytes"
        raise ConfigError(
            f"vocab_size must lie in {least} … {MOST_TOKENS} ({what} and {SPECIAL} special tokens), not {vocab_size!r}"
        )
    if isinstance(min_frequency, bool) or not isinstance(min_frequency, int) or min_frequency < 1:
        raise ConfigError(f"min_frequency must be a whole number from 1 up, not {min_frequency!r}")
    return Tokenizer(KINDS[kind](_counted(texts, progress), vocab_size - SPECIAL, min_frequency))


def _counted(texts: Iterable[str], progress: OnProgress | None) -> Iterator[str]:
    """Hand the texts on; check them, and that there is any."""
    done = 0
    for number, text in enumerate(texts):
        check_text(text, f"text {number}")
        done += len(text.encode())
        if progress:
            progress(Progress("learning the tokenizer", done, unit="bytes"))
        yield text
    if not done:
        raise InputError("there is no text to learn a tokenizer from: give at least one that is not empty")


def _learn(model: Any, trainer: Any, pattern: str, texts: Iterator[str]) -> dict[str, Any]:
    """Train a model of the library on the texts, cut by `pattern` and spelled in byte letters; its JSON."""
    tokenizer = tokenizers.Tokenizer(model)
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [pre_tokenizers.Split(Regex(pattern), "isolated"), letters]
    )
    tokenizer.train_from_iterator(texts, trainer)
    return json.loads(tokenizer.to_str())["model"]


def _numbered(pieces: Iterable[str], size: int) -> dict[str, int]:
    """The first `size` different pieces with their ids."""
    return {piece: id for id, piece in zip(range(size), dict.fromkeys(pieces), strict=False)}


def _bpe(texts: Iterator[str], size: int, min_frequency: int) -> str:
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=min_frequency, initial_alphabet=sorted(byte_letters()), show_progress=False
    )
    return make(_learn(models.BPE(), trainer, PATTERN, texts), PATTERN)


def _unigram(texts: Iterator[str], size: int, min_frequency: int) -> str:
    trainer = trainers.UnigramTrainer(vocab_size=size, initial_alphabet=sorted(byte_letters()), show_progress=False)
    model = _learn(models.Unigram(), trainer, PATTERN, texts)
    scores = dict(model["vocab"])
    if None in scores.values():  # JSON's reading of NaN: with a handful of words the estimate has no solution
        raise InputError(
            "the unigram model finds no probabilities in so little text; give more of it, or choose kind 'bpe'"
        )
    # Two traces of chance are removed: sums in any order differ in the last bits, and the letters that were never seen
    # get the worst score and a bit more each, as they come.
    worst = min(scores.values())
    unseen = {piece for piece, score in scores.items() if len(piece) == 1 and score <= worst + 256e-4}
    scores = {piece: round(worst if piece in unseen else score, 6) for piece, score in scores.items()}
    ranked = sorted(scores.items(), key=lambda entry: (len(entry[0]) > 1, -entry[1], entry[0]))  # every letter stays
    model["vocab"] = sorted(ranked[:size], key=lambda entry: (-entry[1], entry[0]))
    return make(model, PATTERN)


def _wordpiece(texts: Iterator[str], size: int, min_frequency: int) -> str:
    letters = sorted(byte_letters())
    continuing = [CONTINUES + letter for letter in letters]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        initial_alphabet=letters,
        special_tokens=continuing,  # else their ids, and with them ties, are left to chance
        continuing_subword_prefix=CONTINUES,
        show_progress=False,
    )
    model = _learn(models.WordPiece(unk_token=letters[0]), trainer, WORDS, texts)
    learned = sorted(model["vocab"], key=model["vocab"].__getitem__)
    model["vocab"] = _numbered([*letters, *continuing, *learned], size)
    model |= {"unk_token": letters[0], "continuing_subword_prefix": CONTINUES, "max_input_chars_per_word": 1000}
    return make(model, WORDS)


def _whole(pattern: str) -> Callable[[Iterator[str], int, int], str]:
    """A kind whose tokens are the pieces that `pattern` cuts, and bytes for those that are not in the vocabulary.

    It is stored as a BPE without merges that looks a whole piece up first, so readers of tokenizer.json can use it.
    """

    def learn(texts: Iterator[str], size: int, min_frequency: int) -> str:
        trainer = trainers.WordLevelTrainer(vocab_size=size, min_frequency=min_frequency, show_progress=False)
        found = _learn(models.WordLevel(unk_token=""), trainer, pattern, texts)["vocab"]
        vocab = _numbered([*sorted(byte_letters()), *sorted(found, key=found.__getitem__)], size)
        model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
        model |= {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True}
        return make(model | {"vocab": vocab, "merges": []}, pattern)

    return learn


KINDS: dict[str, Callable[[Iterator[str], int, int], str]] = {
    "bpe": _bpe,
    "unigram": _unigram,
    "wordpiece": _wordpiece,
    "word": _whole(WORDS),
    "char": _whole(ONE_CHARACTER),
}
