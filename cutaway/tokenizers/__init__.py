"""Text to ids and back, and the store of ids that training reads. Nothing here needs torch.

tok = train_tokenizer(texts, "bpe", 8192)        tok.encode("中文")    tok.decode(ids)    tok.explain("unhappily")
store = prepare("texts/", "store/").store        store["train"].batch(step, seed=0, batch=16, context=256)
"""

from typing import TYPE_CHECKING, Any

from cutaway.tokenizers.explain import Merge, TokenExplanation, explain
from cutaway.tokenizers.load import load_tokenizer
from cutaway.tokenizers.measure import Compression, compression
from cutaway.tokenizers.store import TokenSplit, TokenStore
from cutaway.tokenizers.tokenizer import TextStream, Tokenizer
from cutaway.tokenizers.train import KINDS, train_tokenizer
from cutaway.tokenizers.writer import StoreWriter

if TYPE_CHECKING:
    from cutaway.tokenizers.examples import prepare_examples as prepare_examples
    from cutaway.tokenizers.pipeline import prepare as prepare

__all__ = [
    "KINDS",
    "Compression",
    "Merge",
    "StoreWriter",
    "TextStream",
    "TokenExplanation",
    "TokenSplit",
    "TokenStore",
    "Tokenizer",
    "compression",
    "explain",
    "load_tokenizer",
    "prepare",
    "prepare_examples",
    "train_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name == "prepare":  # these read documents too; loaded when they are used
        from cutaway.tokenizers.pipeline import prepare

        return prepare
    if name == "prepare_examples":
        from cutaway.tokenizers.examples import prepare_examples

        return prepare_examples
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
