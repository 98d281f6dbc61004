"""Change what a model says: vectors added to activations, and edits of weights."""

from cutaway.interp.steering.dose import DoseResponse, dose_response
from cutaway.interp.steering.rome import Edited, rank_one_edit, rome
from cutaway.interp.steering.vector import SteeringVector, load_steering_vector, steering_vector
from cutaway.interp.steering.written import Steered, steer, steered_texts

__all__ = [
    "DoseResponse",
    "Edited",
    "Steered",
    "SteeringVector",
    "dose_response",
    "load_steering_vector",
    "rank_one_edit",
    "rome",
    "steer",
    "steered_texts",
    "steering_vector",
]
