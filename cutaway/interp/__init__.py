"""Look inside: record and replace, the ledger, surprisal, attention, the logit lens, and a page of all of them."""

from cutaway.interp.attention.patterns import attention
from cutaway.interp.ledger.ledger import Ledger, LedgerError, Term
from cutaway.interp.ledger.unfold import ledger
from cutaway.interp.lenses.logit import logit_lens
from cutaway.interp.look import Look, look
from cutaway.interp.record import Recording, predicted_bytes, record, replace
from cutaway.interp.results import Attention, Lens, LensCell, Receipt, Result, TokenScores
from cutaway.interp.text.surprisal import surprisal

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
