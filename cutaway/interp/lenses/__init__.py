"""What the model would say at each layer: the logit lens, the tuned lens and the Jacobian lens."""

from cutaway.interp.lenses.asked import FittedLens, LensDifference, fit_lens, lens_difference, lens_ranks
from cutaway.interp.lenses.jacobian import average_jacobians, fit_jacobian_lens, jacobian_lens
from cutaway.interp.lenses.logit import logit_lens
from cutaway.interp.lenses.translators import LensDistance, Translators, lens_distance, load_lens, read_lens
from cutaway.interp.lenses.tuned import train_tuned_lens, tuned_lens

__all__ = [
    "FittedLens",
    "LensDifference",
    "LensDistance",
    "Translators",
    "average_jacobians",
    "fit_jacobian_lens",
    "fit_lens",
    "jacobian_lens",
    "lens_difference",
    "lens_distance",
    "lens_ranks",
    "load_lens",
    "logit_lens",
    "read_lens",
    "train_tuned_lens",
    "tuned_lens",
]
