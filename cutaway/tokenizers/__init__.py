"""Text to ids and back, and the store of ids that training reads. Nothing here needs torch.

tok = train_tokenizer(texts, "bpe", 8192)        tok.encode("中文")    tok.decode(ids)    tok.explain("unhappily")
store = prepare("texts/", "store/").store        store["train"].batch(step, seed=0, batch=16, context=256)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cutaway.tokenizers.explain import Merge, TokenExplanation, explain
from cutaway.tokenizers.load import load_tokenizer
from cutaway.tokenizers.tokenizer import TextStream, Tokenizer

if TYPE_CHECKING:
    from cutaway.tokenizers.examples import prepare_examples as prepare_examples
    from cutaway.tokenizers.measure import Compression as Compression
    from cutaway.tokenizers.measure import compression as compression
    from cutaway.tokenizers.pipeline import prepare as prepare
    from cutaway.tokenizers.store import TokenSplit as TokenSplit
    from cutaway.tokenizers.store import TokenStore as TokenStore
    from cutaway.tokenizers.train import KINDS as KINDS
    from cutaway.tokenizers.train import train_tokenizer as train_tokenizer
    from cutaway.tokenizers.writer import StoreWriter as StoreWriter

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


_HOME = {  # what is loaded when it is first used: opening a model needs none of it, and some of it reads documents
    "Compression": "cutaway.tokenizers.measure",
    "compression": "cutaway.tokenizers.measure",
    "TokenSplit": "cutaway.tokenizers.store",
    "TokenStore": "cutaway.tokenizers.store",
    "KINDS": "cutaway.tokenizers.train",
    "train_tokenizer": "cutaway.tokenizers.train",
    "StoreWriter": "cutaway.tokenizers.writer",
    "prepare": "cutaway.tokenizers.pipeline",
    "prepare_examples": "cutaway.tokenizers.examples",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
