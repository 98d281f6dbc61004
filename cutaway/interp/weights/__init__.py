"""What can be seen in weights alone, and over the checkpoints of a run."""

from cutaway.interp.weights.differences import checkpoint_differences, weight_difference
from cutaway.interp.weights.frequencies import Frequencies, fourier, frequencies_of
from cutaway.interp.weights.landscape import loss_landscape
from cutaway.interp.weights.listing import parameters
from cutaway.interp.weights.memorised import memorised
from cutaway.interp.weights.neighbours import neighbours
from cutaway.interp.weights.over_training import over_training
from cutaway.interp.weights.ridgelines import ridgelines
from cutaway.interp.weights.spectra import Spectra, spectra
from cutaway.interp.weights.training_report import training_report

__all__ = [
    "Frequencies",
    "Spectra",
    "checkpoint_differences",
    "fourier",
    "frequencies_of",
    "loss_landscape",
    "memorised",
    "neighbours",
    "over_training",
    "parameters",
    "ridgelines",
    "spectra",
    "training_report",
    "weight_difference",
]
