"""How surprising each token is, how surprising it was to be expected, and to whom.

Shapes: T tokens, N tokens predicted.
"""

from dataclasses import replace

from cutaway.errors import ConfigError
from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording
from cutaway.interp.results import Panel, Result, TokenScores
from cutaway.interp.text.predictions import Predictions, predictions
from cutaway.models import Model
from cutaway.models.model import Source


def surprisal(
    model: Recording | Model, text: Text = "", *, source: Source | None = None, masked: bool = False
) -> TokenScores:
    """Bits of surprise at each token: -log2 of the probability that the model gave it. The first has none.

    Args:
        model: a model with a text, or a recording.
        text: of several texts the first.
        source: what an encoder–decoder reads; the text is its target.
        masked: of an encoder that fills gaps: each token is hidden in turn, and predicted from all others
            (pseudo-log-likelihood, Salazar et al. 2020). Special tokens have none then. The bits are not those of any
            one distribution over texts, and are lower than a next-token model's, as both sides are known.

    Raises:
        ConfigError: an encoder without `masked`, which sees the token that it would be surprised by; another model with
            it; a head that names no tokens.
        InputError: empty text, or more tokens than the context.
    """
    run = model.model if isinstance(model, Recording) else model
    given = model if isinstance(model, Recording) else text
    clock = Clock(run, "surprisal", given, source=source, masked=masked or None)
    found = predictions(model, text, source=source, masked=masked, purpose="surprisal")
    return _scores("surprisal", found, found.spread(found.bits), clock)


def entropy(model: Recording | Model, text: Text = "", *, source: Source | None = None, masked: bool = False) -> Panel:
    """How surprised the model expected to be at each token, and how much more it was.

    The entropy of what it gave to all tokens is its surprise on average, were its probabilities right. The excess,
    surprisal minus entropy, is above zero where a token is unusual for its place. Over a text that a model knows how to
    predict its mean is about zero; above it, the model is surer than it may be.

    Args:
        model: as in `surprisal`.
        text: as in `surprisal`.
        source: as in `surprisal`.
        masked: as in `surprisal`.

    Returns:
        A panel of "entropy" and "excess" in bits at each token, with their means as figures.

    Raises:
        ConfigError: as in `surprisal`.
        InputError: as in `surprisal`.
    """
    run = model.model if isinstance(model, Recording) else model
    given = model if isinstance(model, Recording) else text
    clock = Clock(run, "entropy", given, source=source, masked=masked or None)
    found = predictions(model, text, source=source, masked=masked, purpose="entropy")
    expected = _scores("entropy of what was expected", found, found.spread(found.entropy), clock)
    excess = _scores("surprisal minus entropy", found, found.spread(found.bits - found.entropy), clock)
    figures = {"mean entropy": expected.mean, "mean excess": excess.mean}
    known = {name: value for name, value in figures.items() if value is not None}
    parts: dict[str, Result] = {"entropy": expected, "excess": replace(excess, signed=True)}
    return Panel("expected and unexpected", parts, (), known, receipt=expected.receipt)


def compare(
    model: Model, other: Model, text: Text, *, source: Source | None = None, masked: bool = False
) -> TokenScores:
    """Bits by which each token surprises another model more than this one.

    Args:
        model: this one.
        other: the other; it must cut the text into the same tokens.
        text: of several texts the first.
        source: what encoder–decoders read.
        masked: as in `surprisal`.

    Returns:
        Above zero where this model knew better. The mean is the difference of the two losses in bits.

    Raises:
        ConfigError: as in `surprisal`, or models with different tokens.
        InputError: as in `surprisal`.
    """
    clock = Clock(model, "compare", text, source=source, masked=masked or None)
    own = predictions(model, text, source=source, masked=masked, purpose="a comparison")
    theirs = predictions(other, text, source=source, masked=masked, purpose="a comparison")
    if own.tokens != theirs.tokens or own.ids.tolist() != theirs.ids.tolist():
        raise ConfigError(
            "the two models cut the text into different tokens, so they cannot be compared token by token; compare "
            "bits per byte: the sum of each one's surprisal, divided by the bytes of the text"
        )
    made = _scores("surprisal of the other model minus this one's", own, own.spread(theirs.bits - own.bits), clock)
    code = made.receipt.code.replace("compare(model,", "compare(model, other,")
    second = f"\nother = cutaway.load_model({other.source!r})\nresult"
    return replace(made, signed=True, receipt=replace(made.receipt, code=code.replace("\nresult", second)))


def _scores(what: str, found: Predictions, values: list[float | None], clock: Clock) -> TokenScores:
    receipt = clock.receipt(difference=found.difference, bytes=found.bytes)
    return TokenScores(what, "bits", found.tokens, found.ids.tolist(), values, receipt=receipt)
