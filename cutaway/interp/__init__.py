"""Look inside: record and replace, the ledger, surprisal, attention, the logit lens, and a page of all of them."""

from cutaway.interp.attention import attention
from cutaway.interp.ledger import Ledger, LedgerError, Term
from cutaway.interp.lens import logit_lens
from cutaway.interp.look import Look, look
from cutaway.interp.record import Recording, predicted_bytes, record, replace
from cutaway.interp.results import Attention, Lens, LensCell, Receipt, Result, TokenScores
from cutaway.interp.surprisal import surprisal
from cutaway.interp.unfold import ledger

__all__ = [
    "Attention",
    "Ledger",
    "LedgerError",
    "Lens",
    "LensCell",
    "Look",
    "Receipt",
    "Recording",
    "Result",
    "Term",
    "TokenScores",
    "attention",
    "ledger",
    "logit_lens",
    "look",
    "predicted_bytes",
    "record",
    "replace",
    "surprisal",
]
