"""Two classes by hand: logistic regression on one example, as textbooks work it out on paper."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from cutaway.errors import InputError
from cutaway.interp.lessons.worked import Shown, Worked
from cutaway.interp.receipt import Receipt
from cutaway.interp.results import Curve

MOST = 32  # features


def sigmoid_by_hand(
    features: Sequence[float],
    weights: Sequence[float],
    bias: float = 0.0,
    target: int = 1,
    *,
    lr: float = 0.1,
    names: Sequence[str] | None = None,
) -> Worked:
    """One example of a two-class model: z = w·x + b, ŷ = σ(z), the loss −log of the right class's chance, and a step.

    The gradient of the loss is (ŷ − y)·x for the weights and ŷ − y for the bias (Cox 1958; as in any textbook).

    Args:
        features: x, one number for each feature.
        weights: w, as many.
        bias: b.
        target: y, 1 or 0.
        lr: η; the step takes η times the gradient off the weights and the bias.
        names: of the features.

    Returns:
        A row for each feature: x, w, "product" w·x, "gradient", and the weight "after" the step. Figures: "bias",
        "z", "chance" ŷ, "loss" in nats, "error" ŷ − y, "bias gradient", and after the step "bias after", "z after",
        "chance after" and "loss after". The curve is σ around z.

    Raises:
        InputError: as many weights as features are needed, 1 … 32, all of them finite; a class that is not 0 or 1.
    """
    started = time.perf_counter()
    count = len(features)
    if not 1 <= count <= MOST or len(weights) != count or (names is not None and len(names) != count):
        raise InputError(f"give 1 … {MOST} features and as many weights (and names); not {count} and {len(weights)}")
    if target not in (0, 1):
        raise InputError(f"the class must be 0 or 1, but {target} was given")
    if not all(map(math.isfinite, (*features, *weights, bias, lr))):
        raise InputError("features, weights, bias and learning rate must be finite numbers")
    called = list(names or [f"x{i + 1}" for i in range(count)])
    products = [w * x for w, x in zip(weights, features, strict=True)]
    z = math.fsum(products) + bias
    chance = sigmoid(z)
    error = chance - target
    gradient = [error * x for x in features]
    after = [w - lr * g for w, g in zip(weights, gradient, strict=True)]
    bias_after = bias - lr * error
    z_after = math.fsum(w * x for w, x in zip(after, features, strict=True)) + bias_after
    figures = [
        Shown("bias", bias),
        Shown("z", z),
        Shown("chance", chance),
        Shown("loss", _loss(z, target)),
        Shown("error", error),
        Shown("bias gradient", error),
        Shown("bias after", bias_after),
        Shown("z after", z_after),
        Shown("chance after", sigmoid(z_after)),
        Shown("loss after", _loss(z_after, target)),
    ]
    rows = [list(row) for row in zip(called, features, weights, products, gradient, after, strict=True)]
    spelled = f"{list(features)}, {list(weights)}, {bias}, {target}, lr={lr}"
    spelled += f", names={called}" if names is not None else ""
    code = f"from cutaway.interp import sigmoid_by_hand\n\nresult = sigmoid_by_hand({spelled})\n"
    receipt = Receipt(0.0, 1000 * (time.perf_counter() - started), 0, "float64", "", code=code)
    reach = max(6.0, abs(z) + 1, abs(z_after) + 1)
    xs = [reach * (i - 48) / 48 for i in range(97)]
    curve = Curve("σ", "z", "chance", xs, {"σ": [sigmoid(x) for x in xs]}, receipt=receipt)
    columns = ["feature", "x", "w", "product", "gradient", "after"]
    return Worked("two classes by hand", columns, rows, figures, {}, {}, curve, receipt=receipt)  # pyright: ignore[reportArgumentType]


def sigmoid(z: float) -> float:
    """1 / (1 + e^−z), without overflow."""
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def _loss(z: float, target: int) -> float:
    """−log σ(z) of class 1, −log σ(−z) of class 0: exact where the chance is rounded to 1."""
    wrong = -z if target else z
    return max(wrong, 0.0) + math.log1p(math.exp(-abs(wrong)))
