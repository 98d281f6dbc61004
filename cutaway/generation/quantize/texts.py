"""Texts as a network reads them: to calibrate with, and to measure on.

Shapes: T tokens, S source tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.models import OFF, Encoder, Model, Network, Seq2Seq, Tap
from cutaway.models.model import CHECKPOINTS
from cutaway.tokenizers import TokenStore
from cutaway.tokenizers.frame import beginning, frame, frame_pair
from cutaway.tokenizers.writer import STORE_JSON

WINDOW = 256  # tokens of a text that are read at once
HIDDEN = 7  # of a masked language model every so-manieth token is hidden
ANSWER = 48  # tokens of a target that an encoder–decoder writes to be measured on


@dataclass(frozen=True)
class Text:
    """One row of tokens, and what is asked about it.

    Attributes:
        ids: (1, T) what the network reads; of an encoder–decoder its target.
        places: the positions whose output counts, (K,); None: all.
        targets: (K,) the token that each of these should name; None where nobody knows.
        source: (1, S) of an encoder–decoder.
        mask: (1, T) bool; None, as nothing is padded.
        types: (1, T) of a network that reads two texts apart: 0 for the first, then 1.
    """

    ids: Tensor
    places: Tensor | None = None
    targets: Tensor | None = None
    source: Tensor | None = None
    mask: Tensor | None = None
    types: Tensor | None = None

    @property
    def sight(self) -> dict[str, Any]:
        """What says which tokens see each other, where anything does."""
        given = {"mask": self.mask, "token_types": self.types}
        return {name: value for name, value in given.items() if value is not None}

    def run(self, network: Network, tap: Tap = OFF) -> Tensor:
        """What the network makes of it."""
        given = {} if self.source is None else {"source": self.source}
        return network(self.ids, **given, **self.sight, tap=tap)

    def output(self, network: Network) -> Tensor:
        """(K, V) float32 logits, or what another head gives, where it counts; one row of a text as a whole."""
        made = self.run(network)[0].float()
        if made.ndim == 1:
            made = made[None]
        return made if self.places is None else made[self.places]


Given = str | Sequence[int]  # a text, or its ids


def rows_of(model: Model, texts: Sequence[Given], *, most: int, window: int = WINDOW) -> list[Text]:
    """Texts cut to windows, until there are `most` tokens.

    Texts of a language model follow each other, ended by its end of text. Of a masked one every seventh token is
    hidden. An encoder–decoder reads each text, and its targets are what it writes by itself. A network that compares
    two texts reads the halves of each.

    Args:
        model: that reads.
        texts: plain texts, or ids of them.
        most: tokens.
        window: tokens at once, at most the model's context.

    Raises:
        InputError: no text, or none long enough to say anything.
        ConfigError: a model that does not read texts.
    """
    if isinstance(texts, str):
        raise InputError("give a list of texts, even of one")
    if model.mel is not None:
        raise ConfigError(f"{model.source or 'this model'} listens: texts cannot calibrate or measure it")
    context = getattr(model.config, "source_context", 0) or model.config.context
    window = max(2, min(window, context))
    found: list[Text] = []
    count = 0
    for ids in _windows(model, texts, window):
        if len(ids) < 2:
            continue
        found.append(_apart(model, ids, window) if getattr(model.config, "apart", False) else _text(model, ids))
        count += len(ids)
        if count >= most:
            break
    if not found:
        raise InputError("the texts hold no two tokens in a row; give longer ones")
    return found


def _windows(model: Model, texts: Sequence[Given], window: int) -> Iterator[list[int]]:
    if isinstance(model.network, Encoder | Seq2Seq):
        for text in texts:
            if getattr(model.config, "apart", False):
                yield _ids(model, text)[:window]
                continue
            yield frame(model.tokenizer, _ids(model, text), longest=window)[0]
        return
    waiting: list[int] = []
    for text in texts:
        end = model.tokenizer.end_of_text
        plain = isinstance(text, str)  # as `Model.ids` has it, with the token that begins a text, and its end
        waiting += [*(beginning(model.tokenizer) if plain else ()), *_ids(model, text)]
        waiting += [end] if plain and end is not None else []
        while len(waiting) >= window:
            yield waiting[:window]
            waiting = waiting[window:]
    yield waiting


def _ids(model: Model, text: Given) -> list[int]:
    return model.tokenizer.encode(text) if isinstance(text, str) else list(text)


def _text(model: Model, ids: list[int]) -> Text:
    network, row = model.network, torch.tensor([ids], device=model.device)
    if isinstance(network, Seq2Seq):
        target = torch.tensor([_answer(model, row)], device=model.device)
        return Text(target[:, :-1], None, target[0, 1:], row)
    if isinstance(network, Encoder):
        mask = model.tokenizer.mask
        if network.config.head != "masked_lm" or mask is None:
            return Text(row)
        places = torch.arange(1, max(2, len(ids) - 1), HIDDEN)
        hidden = row.clone()
        hidden[0, places] = mask
        return Text(hidden, places, row[0, places])
    if getattr(network.config, "head", "causal_lm") != "causal_lm":
        return Text(row)
    return Text(row, torch.arange(len(ids) - 1), row[0, 1:])


def _apart(model: Model, ids: list[int], window: int) -> Text:
    """A text's halves, as two that are compared."""
    half = len(ids) // 2
    row, types = frame_pair(model.tokenizer, ids[:half], ids[half:], longest=window, apart=True)
    return Text(torch.tensor([row], device=model.device), types=torch.tensor([types], device=model.device))


@torch.no_grad()
def _answer(model: Model, source: Tensor) -> list[int]:
    """What an encoder–decoder writes to a source, the likeliest token each time."""
    network = model.network
    assert isinstance(network, Seq2Seq)
    ids, ends = [network.config.start_id], {model.tokenizer.end_of_text, *model.generation.eos_token_id}
    cache, new = network.new_cache(source, capacity=ANSWER + 1), ids[:]
    for _ in range(min(ANSWER, network.config.context - 1)):
        new = [int(network(torch.tensor([new], device=source.device), cache=cache)[0, -1].argmax())]
        ids += new
        if new[0] in ends:
            break
    return ids


def read_texts(paths: Sequence[str | Path]) -> list[str]:
    """The texts of files and folders, in their order, as `cutaway prepare` reads them.

    Raises:
        InputError: there are none.
    """
    from cutaway.text.readers import read  # reads documents; not needed by those who give texts

    texts = [document.text for document in read([str(path) for path in paths])]
    if not any(texts):
        raise InputError(f"no text was found in {', '.join(map(str, paths))}")
    return texts


def held_out(source: str | Path, most: int) -> list[list[int]]:
    """The validation tokens of a run, at most so many; none where it is no run, or its corpus is gone.

    Args:
        source: what the model was loaded from.
        most: tokens.
    """
    folder = Path(source)
    if not (folder / CHECKPOINTS).is_dir():
        return []
    from cutaway.training.checkpoint import read_config  # training is not needed by those who give texts

    corpus = Path(read_config(folder)[0].data)
    if not (corpus / STORE_JSON).is_file():
        return []
    store = TokenStore.open(corpus, verify=False)
    if "valid" not in store.splits or store.kind != "texts":
        return []
    split = store["valid"]
    return [split.window(0, min(most, split.tokens)).tolist()]
