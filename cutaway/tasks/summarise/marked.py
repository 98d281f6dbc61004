"""A text as a network reads it that tells which sentences make its summary.

BERT reads [CLS] title [SEP] first [SEP] second [SEP] …; how good a sentence is, is the mean of what the head says of
its tokens. A text that is longer than the network sees is read in windows; each begins with the sentence before it, so
that no sentence but the first looks like the first one.

Shapes: S sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cutaway.models import Model
from cutaway.tokenizers import Tokenizer
from cutaway.tokenizers.frame import beginning, frame

REPEATED = 4  # a window's first sentence is that before it, unless it takes more than this share (1 / 4) of it


@dataclass(frozen=True)
class Window:
    """What is read at once.

    Attributes:
        ids: with all special tokens.
        places: of the sentences among them: first token, and behind the last (which is a mark).
        numbers: of these sentences in the text.
    """

    ids: list[int]
    places: list[tuple[int, int]]
    numbers: list[int]


def mark(tokenizer: Tokenizer) -> int:
    """The token that ends a sentence: what stands behind a text where something does, else the one between texts."""
    framed = frame(tokenizer, [0])[0]
    behind = framed[len(beginning(tokenizer)) + 1 :]
    return behind[0] if behind else tokenizer.end_of_text or 0


def windows(model: Model, title: str, sentences: Sequence[str], context: int = 0) -> list[Window]:
    """All sentences of a text, in as few windows as hold them; one that does not fit into any is cut.

    Args:
        model: whose tokenizer and context.
        title: what stands before them all; "": nothing.
        sentences: of the text, at least one.
        context: tokens at the most; 0: those of the model.
    """
    longest = min(context or model.config.context, model.config.context)
    end = mark(model.tokenizer)
    head = beginning(model.tokenizer)
    encoded = [ids.tolist() for ids in model.tokenizer.encode_bulk([title, *sentences] if title else list(sentences))]
    if title:
        head = [*head, *encoded.pop(0)[: longest // REPEATED], end]
    made: list[Window] = []
    ids, places, numbers = list(head), list[tuple[int, int]](), list[int]()
    for number, sentence in enumerate(encoded):
        if numbers and len(ids) + len(sentence) + 1 > longest:
            made.append(Window(ids, places, numbers))
            ids, places, numbers = list(head), [], []
            before = encoded[number - 1]
            if len(before) < longest // REPEATED and len(head) + len(before) + len(sentence) + 2 <= longest:
                ids += [*before, end]
        start = len(ids)
        ids += [*sentence[: max(0, longest - start - 1)], end]
        places.append((start, len(ids)))
        numbers.append(number)
    made.append(Window(ids, places, numbers))
    return made
