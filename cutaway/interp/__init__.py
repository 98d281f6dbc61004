"""Look inside: record and replace, the ledger, surprisal, attention, the logit lens, and a page of all of them."""

from cutaway.interp.attention import (
    attention,
    attention_flow,
    composition_scores,
    copying_scores,
    head_detectors,
    head_scores,
    ov_circuit,
    qk_circuit,
    repeated_tokens,
    rollout,
    value_weighted,
)
from cutaway.interp.check import check
from cutaway.interp.claims import Claim, Claims
from cutaway.interp.during import GenerationRecording, record_generation, training_tap
from cutaway.interp.features import attribution_graph, evaluate_features, feature_dashboard, train_features
from cutaway.interp.inputs import Inputs, inputs_of
from cutaway.interp.ledger.ledger import Ledger, LedgerError, Term
from cutaway.interp.ledger.numbers import ledger, score_pairs
from cutaway.interp.lenses.logit import logit_lens
from cutaway.interp.look import Look, look
from cutaway.interp.memory import predicted_bytes
from cutaway.interp.probes import erase, interchange, probe
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
    "Claim",
    "Claims",
    "Clock",
    "Curve",
    "Edge",
    "GenerationRecording",
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
    "attention_flow",
    "attribution_graph",
    "check",
    "composition_scores",
    "copying_scores",
    "erase",
    "evaluate_features",
    "feature_dashboard",
    "head_detectors",
    "head_scores",
    "inputs_of",
    "interchange",
    "ledger",
    "logit_lens",
    "look",
    "open_spill",
    "ov_circuit",
    "predicted_bytes",
    "probe",
    "qk_circuit",
    "record",
    "record_generation",
    "repeated_tokens",
    "replace",
    "rollout",
    "score_pairs",
    "surprisal",
    "target_of",
    "train_features",
    "training_tap",
    "value_weighted",
]
