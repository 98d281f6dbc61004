"""What the model would say at each layer: the logit lens, the tuned lens and the Jacobian lens."""

from cutaway.interp.lenses.jacobian import average_jacobians, fit_jacobian_lens, jacobian_lens
from cutaway.interp.lenses.logit import logit_lens
from cutaway.interp.lenses.translators import LensDistance, Translators, lens_distance, load_lens
from cutaway.interp.lenses.tuned import train_tuned_lens, tuned_lens

__all__ = [
    "LensDistance",
    "Translators",
    "average_jacobians",
    "fit_jacobian_lens",
    "jacobian_lens",
    "lens_distance",
    "load_lens",
    "logit_lens",
    "train_tuned_lens",
    "tuned_lens",
]
