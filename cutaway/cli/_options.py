"""What `cutaway generate` and `cutaway chat` both take: how tokens are chosen, and what computes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.cli._frame import harmless
from cutaway.errors import ConfigError, InputError, unknown

if TYPE_CHECKING:
    from cutaway.generation.engine import Engine
    from cutaway.models import Model

ROUNDINGS = ("eight", "sixteen")
NewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", "-n", help="Tokens at the most; as the checkpoint says, or 100.")
]
Temperature = Annotated[
    float | None, typer.Option(help="0: always the likeliest token; as the checkpoint says, or 0.8.")
]
TopK = Annotated[int | None, typer.Option(help="Draw among the k likeliest.")]
TopP = Annotated[float | None, typer.Option(help="Draw among the likeliest that together reach p.")]
MinP = Annotated[float | None, typer.Option(help="Draw among those at least this share of the likeliest.")]
TypicalP = Annotated[float | None, typer.Option(help="Draw among the most typical that together reach p.")]
RepetitionPenalty = Annotated[float | None, typer.Option(help="Above 1: less of what was seen before.")]
FrequencyPenalty = Annotated[float | None, typer.Option(help="Taken off a logit each time that its token came.")]
PresencePenalty = Annotated[float | None, typer.Option(help="Taken off a logit once its token came.")]
LogitBias = Annotated[
    list[str] | None, typer.Option(metavar="ID=NUMBER", help="Added to the logit of one token, by its id (repeat).")
]
Stop = Annotated[list[str] | None, typer.Option(help="Stop before this text (repeat).")]
Seed = Annotated[int, typer.Option(help="Another seed, another text.")]
Speculate = Annotated[
    str | None,
    typer.Option(metavar="lookup|MODEL", help="Guess ahead: from what the text said before, or with a smaller model."),
]
Cache = Annotated[
    str,
    typer.Option(metavar="DTYPE", help="Keys and values in float32, float16 or int8; auto: as suits the weights."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads that compute; as many as there are cores.")]
Rounding = Annotated[
    str | None,
    typer.Option(metavar="eight|sixteen", help="Bits of activations that meet quantised weights; eight is faster."),
]
Dequantise = Annotated[
    bool, typer.Option("--dequantise", help="Make float32 weights of blocks; else they stay as they are stored.")
]

Adapter = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="A LoRA adapter in PEFT's format, beside the model's weights.")
]


def opened(source: str, dequantise: bool, adapter: Path | None = None) -> Model:
    """A model; its notes go to stderr.

    Args:
        source: as `load_model` takes it.
        dequantise: make numbers of blocks, as is done where no native kernels compute with them.
        adapter: folder of one that is computed beside its weights.
    """
    from cutaway.generation.native.library import available
    from cutaway.models import load_model

    model = load_model(source, quantised=not dequantise and available()[0])
    for note in model.generation.notes:
        print(f"note: {harmless(note)}", file=sys.stderr)
    return with_adapter(model, adapter)


def with_adapter(model: Model, folder: Path | None) -> Model:
    """A model with an adapter, where one was asked for."""
    if folder is None:
        return model
    from cutaway.models.adapters import load_adapter

    return load_adapter(model, folder)


def engine_for(model: Model, cache: str, threads: int | None, rounding: str | None) -> Engine:
    """What generates; options that are not given are the engine's to choose.

    Raises:
        ConfigError: an option that does not exist.
    """
    import torch

    from cutaway.generation.engine import Engine

    if rounding not in (None, *ROUNDINGS):
        raise ConfigError(unknown("rounding", str(rounding), ROUNDINGS))
    if threads is not None:
        torch.set_num_threads(threads)  # where it is torch that computes
    return Engine(model, cache=cache, **said(threads=threads, rounding=rounding))


def said(**options: Any) -> dict[str, Any]:
    """Those of the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def speculation(wanted: str | None) -> Any:
    """What guesses ahead: nothing, the look-up, or a model that is opened here."""
    if wanted is None or wanted == "lookup":
        return wanted
    return opened(wanted, dequantise=False)


def biases(given: list[str] | None) -> dict[int, float] | None:
    """ID=NUMBER as numbers.

    Raises:
        ConfigError: one that is not that.
    """
    made = {}
    for text in given or []:
        id, _, number = text.partition("=")
        try:
            made[int(id)] = float(number)
        except ValueError:
            raise ConfigError(f"--logit-bias must be a token's id, = and a number, but {text!r} was given") from None
    return made or None


def read_text(path: Path, what: str) -> str:
    """A file's text.

    Raises:
        InputError: it is not UTF-8; says where.
    """
    return decoded(path.read_bytes(), f"{what} {path}")


def from_stdin(what: str) -> str:
    """All that standard input holds.

    Raises:
        InputError: it is not UTF-8; says where.
    """
    return decoded(sys.stdin.buffer.read(), f"{what} from stdin")


def decoded(data: bytes, what: str) -> str:
    """UTF-8 as text.

    Raises:
        InputError: it is not; says where.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not UTF-8: {error.reason} at byte {error.start}") from error


def text_or_file(given: str | None, what: str) -> str | None:
    """An option's text; @FILE is what a file says."""
    if given is None or not given.startswith("@"):
        return given
    return read_text(Path(given[1:]), what)
