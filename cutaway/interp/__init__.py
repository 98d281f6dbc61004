"""Look inside: record and replace, the ledger, surprisal, attention, the logit lens, and a page of all of them."""

from cutaway.interp.attention.patterns import attention
from cutaway.interp.inputs import Inputs, inputs_of
from cutaway.interp.ledger.ledger import Ledger, LedgerError, Term
from cutaway.interp.ledger.numbers import ledger, score_pairs
from cutaway.interp.lenses.logit import logit_lens
from cutaway.interp.look import Look, look
from cutaway.interp.memory import predicted_bytes
from cutaway.interp.receipt import Clock, Receipt
from cutaway.interp.record import Recording, record, replace
from cutaway.interp.results import (
    Attention,
    Branch,
    Curve,
    Edge,
    Graph,
    Lens,
    LensCell,
    Matrix,
    Node,
    Panel,
    Result,
    Table,
    TokenScores,
    Tree,
)
from cutaway.interp.spill import open_spill
from cutaway.interp.target import Target, target_of
from cutaway.interp.text.surprisal import surprisal

__all__ = [
    "Attention",
    "Branch",
    "Clock",
    "Curve",
    "Edge",
    "Graph",
    "Inputs",
    "Ledger",
    "LedgerError",
    "Lens",
    "LensCell",
    "Look",
    "Matrix",
    "Node",
    "Panel",
    "Receipt",
    "Recording",
    "Result",
    "Table",
    "Target",
    "Term",
    "TokenScores",
    "Tree",
    "attention",
    "inputs_of",
    "ledger",
    "logit_lens",
    "look",
    "open_spill",
    "predicted_bytes",
    "record",
    "replace",
    "score_pairs",
    "surprisal",
    "target_of",
]
