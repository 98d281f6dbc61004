"""Weights in fewer bits, and what that costs."""

from cutaway.generation.quantize.measure import Quality, compare, eight_bits, with_rounded_activations
from cutaway.generation.quantize.quantize import Quantized, quantize, save_quantized
from cutaway.generation.quantize.report import Report, read_report
from cutaway.generation.quantize.texts import held_out, read_texts, rows_of

__all__ = [
    "Quality",
    "Quantized",
    "Report",
    "compare",
    "eight_bits",
    "held_out",
    "quantize",
    "read_report",
    "read_texts",
    "rows_of",
    "save_quantized",
    "with_rounded_activations",
]
