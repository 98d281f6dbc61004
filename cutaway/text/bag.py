"""The classic steps before counting words: for bag-of-words models, and not for a language model.

Textbooks list them: lower-casing, removing punctuation, segmenting Chinese, dropping stop words, stemming,
vectorising. A model that only counts words gains from them, since fewer distinct words mean more evidence for each. A
language model must learn to write what it reads, and these steps take away what it has to write: see WHY_NOT.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from cutaway.errors import ConfigError, need, unknown

# Function words: they are in nearly every text and so tell texts apart badly.
_ENGLISH = """
a about above after again against all am an and any are as at be because been before being below between both but by
can could did do does doing down during each few for from further had has have having he her here hers herself him
himself his how i if in into is it its itself just me more most my myself no nor not now of off on once only or other
our ours ourselves out over own same she should so some such than that the their theirs them themselves then there
these they this those through to too under until up very was we were what when where which while who whom why will
with would you your yours yourself yourselves
"""
_CHINESE = """
的 了 和 是 在 我 有 就 不 人 都 一 一个 上 也 很 到 说 要 去 你 会 着 没有 看 自己 这 那 他 她 它 们 我们 你们 他们
她们 它们 与 及 或 而 但 但是 因为 所以 如果 虽然 然而 并 并且 以 以及 对 对于 把 被 让 给 从 向 由 于 为 为了 之
其 此 这个 那个 这些 那些 什么 怎么 吗 呢 吧 啊 呀 哦 地 得 过 还 又 再 只 才 已 已经 可以 能 能够
"""
STOP_WORDS: Mapping[str, frozenset[str]] = {
    "en": frozenset(_ENGLISH.split()),
    "zh": frozenset(_CHINESE.split()),
}

SNOWBALL = {  # ISO 639-1 -> the Snowball algorithm's name (Porter 2001)
    "ar": "arabic", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish",
    "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian",
    "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch",
    "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish",
    "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip

_PUNCTUATION = re.compile(r"[^\w\s]|_")
HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
WORDS = re.compile(
    f"{HAN.pattern}|(?:(?!{HAN.pattern})\\w)+"
)  # a Chinese character, or a run of other letters and digits


def lowercase(text: str, _language: str = "en") -> str:
    """Lower case (of scripts that have it)."""
    return text.lower()


def punctuation(text: str, _language: str = "en") -> str:
    """Punctuation and symbols become spaces."""
    return " ".join(_PUNCTUATION.sub(" ", text).split())


def segment(text: str, _language: str = "zh") -> str:
    """Put spaces between Chinese words (jieba: a dictionary and a hidden Markov model); other scripts have theirs.

    Raises:
        MissingExtra: jieba is not installed.
    """
    return " ".join(word for word in _jieba().cut(text) if word.strip()) if HAN.search(text) else text


def stop_words(text: str, language: str = "en") -> str:
    """Drop the function words of English or Chinese (segmented); compared without regard to case.

    Raises:
        ConfigError: a language without a list.
    """
    if language not in STOP_WORDS:
        raise ConfigError(unknown("language with stop words", language, STOP_WORDS))
    stops = STOP_WORDS[language]
    return " ".join(word for word in text.split() if word.lower() not in stops)


def stem(text: str, language: str = "en") -> str:
    """Cut words to their stems by Snowball's rules; Chinese has no endings and passes.

    Raises:
        ConfigError: a language that Snowball has no rules for.
        MissingExtra: snowballstemmer is not installed.
    """
    if language == "zh":
        return text
    if language not in SNOWBALL:
        raise ConfigError(unknown("language with a stemmer", language, SNOWBALL))
    return " ".join(_stemmer(SNOWBALL[language]).stemWords(text.split()))


CLASSIC: Mapping[str, Callable[[str, str], str]] = {
    "lowercase": lowercase,
    "punctuation": punctuation,
    "segment": segment,
    "stop_words": stop_words,
    "stem": stem,
}

WHY_NOT: Mapping[str, str] = {
    "lowercase": "the model can never write a capital letter, and loses what they say (names, sentence starts)",
    "punctuation": "the model never learns where a sentence ends, nor how to write one; code loses its meaning",
    "segment": "the tokenizer learns Chinese words by itself, and the model would write spaces between them",
    "stop_words": "the model never sees 'not', 'of' or 'the', so it can neither write grammar nor read negation",
    "stem": "the model writes stems ('studi') instead of words, and number and tense are gone",
}


def check_classic(names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple in the order of CLASSIC, whatever order they were given in.

    Raises:
        ConfigError: a step that does not exist; the message offers near matches.
    """
    given = [names] if isinstance(names, str) else list(names)
    for name in given:
        if name not in CLASSIC:
            raise ConfigError(unknown("classic step", name, CLASSIC))
    return tuple(name for name in CLASSIC if name in given)


def why_not(steps: Iterable[str]) -> list[str]:
    """A warning for each classic step that is about to be used for a language model."""
    return [f"{step} is for bag-of-words models: {WHY_NOT[step]}. Leave it out for a language model." for step in steps]


def classic(text: str, steps: Iterable[str], language: str | None = None) -> str:
    """A text after the named classic steps, its words separated by single spaces.

    Args:
        text: any text.
        steps: names in CLASSIC; they run in CLASSIC's order.
        language: ISO 639-1 code; None takes "zh" if there is a Chinese character in the text, else "en".

    >>> classic("The cats were NOT sleeping.", ["lowercase", "punctuation", "stop_words", "stem"])
    'cat sleep'
    """
    spoken = language or ("zh" if HAN.search(text) else "en")
    for name in check_classic(steps):
        text = CLASSIC[name](text, spoken)
    return text


@dataclass(frozen=True)
class Bags:
    """Texts as vectors of word weights.

    Attributes:
        matrix: (N texts, V words) a SciPy CSR matrix.
        vocabulary: the word of each column.
        vectorizer: scikit-learn's, to transform further texts in the same way.
    """

    matrix: Any
    vocabulary: list[str]
    vectorizer: Any


def vectorize(
    texts: Sequence[str], kind: Literal["counts", "tfidf"] = "tfidf", *, least: int = 1, most_words: int | None = None
) -> Bags:
    """Count the words of each text, or weigh the counts by how rare the word is (tf-idf, Spärck Jones 1972).

    Args:
        texts: words separated by white space, as `classic` gives them.
        kind: "counts", or "tfidf" with rows of unit length.
        least: leave out words that are in fewer texts.
        most_words: keep only so many, the most frequent.

    Raises:
        ConfigError: an unknown kind, or no words at all.
        MissingExtra: scikit-learn is not installed.
    """
    sklearn = need("sklearn.feature_extraction.text", "classic", "vectorising texts")
    makers = {"counts": sklearn.CountVectorizer, "tfidf": sklearn.TfidfVectorizer}
    if kind not in makers:
        raise ConfigError(unknown("kind of vectors", kind, makers))
    vectorizer = makers[kind](analyzer=str.split, min_df=least, max_features=most_words)
    try:
        matrix = vectorizer.fit_transform(texts)
    except ValueError as error:
        raise ConfigError(f"no words to count in {len(texts)} texts with least={least}: {error}") from error
    return Bags(matrix, vectorizer.get_feature_names_out().tolist(), vectorizer)


@lru_cache(maxsize=1)
def _jieba() -> Any:
    """jieba's own Tokenizer, silent, its dictionary loaded at the first use."""
    module = need("jieba", "documents", "Chinese word segmentation")
    module.setLogLevel(60)
    return module.Tokenizer()


@lru_cache(maxsize=4)
def _stemmer(algorithm: str) -> Any:
    return need("snowballstemmer", "documents", "stemming").stemmer(algorithm)
