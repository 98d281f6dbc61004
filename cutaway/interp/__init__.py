"""Look inside: record and replace, the ledger, surprisal, attention, the logit lens, and a page of all of them."""

from cutaway.interp.ledger import Ledger, Term, ledger
from cutaway.interp.record import Receipt, Recording, predicted_bytes, record, replace
from cutaway.interp.views import Attention, Lens, TokenScores, attention, logit_lens, surprisal

__all__ = [
    "Attention",
    "Ledger",
    "Lens",
    "Receipt",
    "Recording",
    "Term",
    "TokenScores",
    "attention",
    "ledger",
    "logit_lens",
    "predicted_bytes",
    "record",
    "replace",
    "surprisal",
]
