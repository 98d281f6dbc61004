"""What can be read out of activations, and whether the model uses it.

`probe` reads with linear maps beside their controls, `erase` takes a concept out, `interchange` puts another text's
value in and compares with a causal model.
"""

from cutaway.interp.probes.controls import control_labels, untrained_copy
from cutaway.interp.probes.erase import Erased, Eraser, erase, fit_eraser
from cutaway.interp.probes.interchange import Interchanged, interchange
from cutaway.interp.probes.linear import Probed, probe

__all__ = [
    "Erased",
    "Eraser",
    "Interchanged",
    "Probed",
    "control_labels",
    "erase",
    "fit_eraser",
    "interchange",
    "probe",
    "untrained_copy",
]
