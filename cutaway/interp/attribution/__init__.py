"""Which parts of the input a number is owed to: gradients, occlusion, Shapley values, and whether they are faithful."""

from cutaway.interp.attribution.agreement import Agreement, agreement
from cutaway.interp.attribution.attention import attention_x_gradient
from cutaway.interp.attribution.counterfactual import Counterfactual, counterfactual
from cutaway.interp.attribution.faithfulness import faithfulness
from cutaway.interp.attribution.gradients import gradient_x_input, integrated_gradients
from cutaway.interp.attribution.integrate import Integral, integrate
from cutaway.interp.attribution.occlusion import occlusion
from cutaway.interp.attribution.question import Attribution
from cutaway.interp.attribution.shapley import Shares, shapley, shapley_values

__all__ = [
    "Agreement",
    "Attribution",
    "Counterfactual",
    "Integral",
    "Shares",
    "agreement",
    "attention_x_gradient",
    "counterfactual",
    "faithfulness",
    "gradient_x_input",
    "integrate",
    "integrated_gradients",
    "occlusion",
    "shapley",
    "shapley_values",
]
