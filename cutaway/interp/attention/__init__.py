"""Where heads look, what moves through them, and what their matrices do."""

from cutaway.interp.attention.circuits import HeadCircuit, copying_scores, ov_circuit, qk_circuit
from cutaway.interp.attention.composition import composition_scores
from cutaway.interp.attention.detectors import head_detectors, head_scores
from cutaway.interp.attention.flow import Rollout, attention_flow, rollout
from cutaway.interp.attention.overview import AttentionOverview, attention_overview
from cutaway.interp.attention.patterns import attention
from cutaway.interp.attention.repeats import repeated_tokens
from cutaway.interp.attention.weighted import ValueWeighted, value_weighted

__all__ = [
    "AttentionOverview",
    "HeadCircuit",
    "Rollout",
    "ValueWeighted",
    "attention",
    "attention_flow",
    "attention_overview",
    "composition_scores",
    "copying_scores",
    "head_detectors",
    "head_scores",
    "ov_circuit",
    "qk_circuit",
    "repeated_tokens",
    "rollout",
    "value_weighted",
]
