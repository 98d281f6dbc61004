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
from cutaway.interp.inputs import Inputs, inputs_of
from cutaway.interp.ledger.ledger import Ledger, LedgerError, Term
from cutaway.interp.ledger.numbers import ledger, score_pairs
from cutaway.interp.ledger.training import Lesson, gradient_ledger, lesson_from, lesson_of, loss_ledger
from cutaway.interp.ledger.update import update_ledger
from cutaway.interp.lenses.logit import logit_lens
from cutaway.interp.look import Look, look
from cutaway.interp.memory import predicted_bytes
from cutaway.interp.probes import erase, interchange, probe
from cutaway.interp.patching import (
    Site,
    ablate,
    attribution_patching,
    causal_trace,
    circuit,
    patch,
    patch_sweep,
    path_patching,
)
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
from cutaway.interp.steering import (
    SteeringVector,
    dose_response,
    load_steering_vector,
    rank_one_edit,
    rome,
    steering_vector,
)
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
    "Lesson",
    "Look",
    "Matrix",
    "Node",
    "Panel",
    "Receipt",
    "Recording",
    "Result",
    "Site",
    "SteeringVector",
    "Table",
    "Target",
    "Term",
    "TokenScores",
    "Tree",
    "ablate",
    "attention",
    "attention_flow",
    "check",
    "composition_scores",
    "copying_scores",
    "erase",
    "gradient_ledger",
    "head_detectors",
    "head_scores",
    "attribution_patching",
    "causal_trace",
    "check",
    "circuit",
    "dose_response",
    "inputs_of",
    "interchange",
    "ledger",
    "lesson_from",
    "lesson_of",
    "load_steering_vector",
    "logit_lens",
    "look",
    "loss_ledger",
    "open_spill",
    "ov_circuit",
    "patch",
    "patch_sweep",
    "path_patching",
    "predicted_bytes",
    "probe",
    "qk_circuit",
    "rank_one_edit",
    "record",
    "record_generation",
    "repeated_tokens",
    "replace",
    "rollout",
    "score_pairs",
    "rome",
    "steering_vector",
    "surprisal",
    "target_of",
    "training_tap",
    "update_ledger",
    "value_weighted",
]
