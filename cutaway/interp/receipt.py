"""What a result can be checked by."""

from __future__ import annotations

import ast
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

from cutaway.models import Model

QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
OPENED = re.compile(rf"load_model\(({QUOTED})\)|{QUOTED}")  # and not what a text says that looks alike
LONGEST = 20_000  # characters of one argument in a receipt's code; a longer list is written as a variable


@dataclass(frozen=True)
class Receipt:
    """What a result can be checked by.

    Attributes:
        difference: largest difference of the logits from a plain run; 0.0 where nothing was replaced, which the
            contract tests hold every network to.
        milliseconds: of the whole analysis.
        bytes: of what was recorded.
        dtype: of the computation.
        source: the model.
        seed: of what was drawn; None where nothing is.
        gap: how far the parts are from adding up to the whole, in the unit of the result; None where nothing adds up.
        code: the Python that makes the result.
    """

    difference: float
    milliseconds: float
    bytes: int
    dtype: str
    source: str
    seed: int | None = None
    gap: float | None = None
    code: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return plain(self)

    def code_for(self, places: Mapping[str, str]) -> str:
        """The code, where models are opened by other names than these lines should: a server knows where each lies.

        Args:
            places: what to open in the place of a name.
        """

        def opened(found: re.Match[str]) -> str:
            name = "" if found[1] is None else ast.literal_eval(found[1])
            return f"load_model({places[name]!r})" if name in places else found[0]

        return OPENED.sub(opened, self.code)


def going_on(code: str, name: str, function: str, rest: str = "") -> str:
    """The code of a result that is made of another one.

    Args:
        code: of the other.
        name: what to call that.
        function: the public name in `cutaway.interp` that is given it.
        rest: what else the function is given, such as ", seed=1".
    """
    before, _, call = code.rpartition("result = ")
    return f"from cutaway.interp import {function}\n{before}{name} = {call}result = {function}({name}{rest})\n"


class Clock:
    """Starts with an analysis, and ends in its receipt.

    clock = Clock(model, "occlusion", text, token=token, grain=grain)
    …
    TokenScores(…, receipt=clock.receipt(gap=gap))

    Args:
        model: what is analysed.
        function: the public name in `cutaway.interp`.
        text: its second argument; None where it takes no text. Of a recording of a text that text is spelled, and the
            source that was read with it.
        options: its options; those that are None are left out of the code.
    """

    def __init__(self, model: Model, function: str, text: Any = None, **options: Any) -> None:
        weight = next(model.network.parameters())
        self.dtype, self.source = str(weight.dtype).removeprefix("torch."), model.source
        if (heard := getattr(getattr(text, "inputs", text), "said_source", None)) is not None:
            options = {"source": heard, **{name: value for name, value in options.items() if value is not None}}
        given = ["model", *([] if text is None else [_spelled(text, "text")])]
        given += [f"{name}={_spelled(value, name)}" for name, value in options.items() if value is not None]
        self.code = (
            f"import cutaway\nfrom cutaway.interp import {function}\n\n"
            f"model = cutaway.load_model({model.source!r})\nresult = {function}({', '.join(given)})\n"
        )
        self.started = time.perf_counter()

    def receipt(
        self, *, difference: float = 0.0, gap: float | None = None, bytes: int = 0, seed: int | None = None
    ) -> Receipt:
        """The receipt, as of now."""
        milliseconds = 1000 * (time.perf_counter() - self.started)
        return Receipt(difference, milliseconds, bytes, self.dtype, self.source, seed, gap, self.code)


def _spelled(value: Any, name: str) -> str:
    """A value as Python; of what has no spelling the name of a variable that holds it."""
    if isinstance(value, Tensor):
        return repr(value.tolist()) if not value.is_floating_point() and value.numel() <= 4096 else name
    if isinstance(value, str | int | float | bool | list | tuple | dict | set | range | type(None)):
        spelled = repr(value)
        return spelled if len(spelled) <= LONGEST or isinstance(value, str) else name
    if isinstance(value, Model):
        return f"cutaway.load_model({value.source!r})"
    if spelled := getattr(value, "spelled", ""):  # of a lens that was fitted to texts
        return spelled
    if place := getattr(value, "place", ""):  # of dictionaries of features that lie in a folder
        return f"cutaway.interp.features.load_features({place!r})"
    if (said := getattr(getattr(value, "inputs", value), "said", None)) is not None:  # of Inputs and Recordings
        return repr(said)
    ids = getattr(value, "ids", None)
    return _spelled(ids, name) if isinstance(ids, Tensor) else getattr(value, "__name__", name)


def plain(value: Any) -> Any:
    """Dataclasses, tensors and tuples as what JSON holds; numbers that are not finite as None."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if f.repr or f.compare}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
