"""Quality filters: documents that are hardly text are dropped. The thresholds are those of published corpora.

Gopher: Rae et al. 2021, "Scaling Language Models", section A.1 and table A1. C4: Raffel et al. 2020, section 2.2.
FineWeb: Penedo et al. 2024, section 3.5. StarCoder: Li et al. 2023, section 3.1, for source code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cutaway.text.documents import Document
from cutaway.text.measure import Counts, Measured
from cutaway.text.outcome import Dropped, Outcome, is_code

STRUCTURAL = 16  # characters; shorter lines (a speaker's name, a bracket) may repeat without harm
_BULLETS = ("- ", "* ", "• ", "● ", "– ", "‣ ", "◦ ", "▪ ", "·")
_ENDS = tuple(".!?…。！？,;:，；：\"'”’」』)）")


@dataclass(frozen=True)
class Quality:
    """When a document is too poor to keep. Shares are of 1; a bound of 0 (least) or 1 (most) switches its rule off.

    The defaults suit texts that somebody chose: poems, dialogues and messages pass. WEB is stricter, for crawled pages.
    Words are counted only in scripts that put spaces between them.
    """

    # Gopher asks for 50 words, FineWeb too; a message or a poem has fewer, so only fragments go by default.
    min_characters: int = 16
    # Gopher: a mean word of 3 to 10 characters; addresses, keys and encoded data have longer "words".
    min_mean_word: float = 2.0
    max_mean_word: float = 12.0
    # Gopher: 80 % of words hold a letter. By characters, so that it means the same in Chinese: letters ÷ non-spaces.
    min_letters: float = 0.5
    # Gopher: at most 0.1 "#" or ellipsis a word, which at 5 characters a word is 0.02 a character.
    max_symbols: float = 0.02
    # U+FFFD stands where decoding failed; a text full of them was read in the wrong encoding.
    max_broken: float = 0.005
    # Gopher: at most 90 % of lines are bullets, at most 30 % end in an ellipsis.
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    # Gopher table A1: duplicate lines 0.30 of the lines and 0.20 of the characters; the same for paragraphs.
    max_repeated_lines: float = 0.3
    max_repeated_line_characters: float = 0.2
    max_repeated_paragraphs: float = 0.3
    max_repeated_paragraph_characters: float = 0.2
    # Gopher table A1: 0.15 of a text in repeated 5-grams. Units are words, or characters of scripts without spaces.
    max_repeated_ngrams: float = 0.15
    # C4: "lorem ipsum" marks a page that nobody has written yet.
    placeholder: bool = True
    # FineWeb: at least 0.12 of the lines end in punctuation, at most 0.67 are shorter than 30 characters. For web
    # pages.
    min_ended_lines: float = 0.0
    max_short_lines: float = 1.0
    # StarCoder: a mean line over 100 characters, one over 1,000, or under 0.25 letters and digits is data, not source
    # code.
    max_code_mean_line: float = 100.0
    max_code_line: int = 1000
    min_code_letters: float = 0.25


WEB = Quality(
    min_characters=250,
    min_mean_word=3.0,
    max_mean_word=10.0,
    min_letters=0.7,
    min_ended_lines=0.12,
    max_short_lines=0.67,
)


def quality(documents: Sequence[Document], config: Quality | None = None) -> Outcome:
    """Drop documents that break a rule of `config` (default Quality()); the reason names the first rule broken."""
    rules = config or Quality()
    outcome = Outcome()
    if not documents:
        return outcome
    measured = Measured([document.text for document in documents])
    repeated = measured.repeated_ngrams(5).tolist()
    for document, counts, share in zip(documents, measured.counts, repeated, strict=True):
        if counts.characters < rules.min_characters:
            reason = f"fewer than {rules.min_characters} characters"
        elif is_code(document):
            reason = _poor_code(document.text, counts, rules)
        else:
            reason = _poor_characters(document.text, counts, rules) or _poor_lines(document.text, rules)
            if not reason and share > rules.max_repeated_ngrams:
                reason = f"more than {rules.max_repeated_ngrams:.0%} repeated 5-grams"
        if reason:
            outcome.dropped.append(Dropped(document, "quality", reason))
        else:
            outcome.kept.append(document)
    return outcome


def _poor_characters(text: str, counts: Counts, rules: Quality) -> str:
    """The rule on characters and words that a prose text breaks, or nothing."""
    seen = counts.characters - counts.spaces
    if not seen or counts.letters < rules.min_letters * seen:
        return f"letters are less than {rules.min_letters:.0%} of what is not space"
    if counts.broken > rules.max_broken * counts.characters:
        return f"more than {rules.max_broken:.1%} undecodable characters"
    # A Chinese ellipsis is two characters; three full stops are one.
    symbols = counts.symbols - (text.count("……") if counts.symbols else 0) + text.count("...")
    if symbols > max(2, rules.max_symbols * counts.characters):
        return f"more than {rules.max_symbols:.0%} '#' and ellipses"
    if counts.unspaced < 0.2 * counts.letters:
        mean = seen / max(1, counts.units)
        if mean < rules.min_mean_word:
            return f"mean word shorter than {rules.min_mean_word:g} characters"
        if mean > rules.max_mean_word:
            return f"mean word longer than {rules.max_mean_word:g} characters"
    if rules.placeholder and ("orem ipsum" in text or "OREM IPSUM" in text):
        return "placeholder text (lorem ipsum)"
    return ""


def _poor_lines(text: str, rules: Quality) -> str:
    """The rule on lines and paragraphs that a prose text breaks, or nothing."""
    lines = [line for line in text.split("\n") if line]
    count = len(lines)
    if count < 3:
        return ""
    # Nine lines in ten can only be bullets if one of the first tenth is, which spares looking at the others.
    first = lines[: 1 + int((1 - rules.max_bullet_lines) * count)]
    if any(map(_is_bullet, first)) and sum(map(_is_bullet, lines)) > rules.max_bullet_lines * count:
        return f"more than {rules.max_bullet_lines:.0%} bullet lines"
    ellipses = sum(text.count(f"{mark}\n") + text.endswith(mark) for mark in ("...", "…"))
    if ellipses > rules.max_ellipsis_lines * count:
        return f"more than {rules.max_ellipsis_lines:.0%} of lines end in an ellipsis"
    if rules.min_ended_lines and sum(line.endswith(_ENDS) for line in lines) < rules.min_ended_lines * count:
        return f"fewer than {rules.min_ended_lines:.0%} of lines end in punctuation"
    if rules.max_short_lines < 1 and sum(len(line) < 30 for line in lines) > rules.max_short_lines * count:
        return f"more than {rules.max_short_lines:.0%} short lines"
    repeated, characters = _repeated(lines)
    if repeated > rules.max_repeated_lines * count:
        return f"more than {rules.max_repeated_lines:.0%} repeated lines"
    if characters > rules.max_repeated_line_characters * len(text):
        return f"more than {rules.max_repeated_line_characters:.0%} of characters in repeated lines"
    if not repeated:  # then no paragraph is repeated either
        return ""
    paragraphs = text.split("\n\n")
    repeated, characters = _repeated(paragraphs)
    if repeated > rules.max_repeated_paragraphs * len(paragraphs):
        return f"more than {rules.max_repeated_paragraphs:.0%} repeated paragraphs"
    if characters > rules.max_repeated_paragraph_characters * len(text):
        return f"more than {rules.max_repeated_paragraph_characters:.0%} of characters in repeated paragraphs"
    return ""


def _is_bullet(line: str) -> bool:
    return line.lstrip().startswith(_BULLETS)


def _repeated(pieces: list[str]) -> tuple[int, int]:
    """How many pieces repeat an earlier one, and their characters; structural ones do not count."""
    if len(set(pieces)) == len(pieces):
        return 0, 0
    long = [piece for piece in pieces if len(piece) > STRUCTURAL]
    distinct = set(long)
    return len(long) - len(distinct), sum(map(len, long)) - sum(map(len, distinct))


def _poor_code(text: str, counts: Counts, rules: Quality) -> str:
    """The rule that a source file breaks, or nothing."""
    lines = text.split("\n")
    if counts.characters > rules.max_code_mean_line * len(lines):
        return f"code with a mean line over {rules.max_code_mean_line:g} characters"
    if max(map(len, lines)) > rules.max_code_line:
        return f"code with a line over {rules.max_code_line} characters"
    digits = sum(map(text.count, "0123456789"))
    if counts.letters + digits < rules.min_code_letters * counts.characters:
        return f"code with less than {rules.min_code_letters:.0%} letters and digits"
    return ""
