"""Cutaway: large language models with the casing off. Build one, look inside it, put it to work.

The public names below are loaded when they are first used: `import cutaway` imports neither torch nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cutaway.generation import generate as generate
    from cutaway.generation.quantize import quantize as quantize
    from cutaway.interp import look as look
    from cutaway.interp import record as record
    from cutaway.interp import replace as replace
    from cutaway.models import Model as Model
    from cutaway.models import load_model as load_model
    from cutaway.models import save_model as save_model
    from cutaway.tokenizers import load_tokenizer as load_tokenizer
    from cutaway.tokenizers import prepare as prepare
    from cutaway.tokenizers import prepare_examples as prepare_examples
    from cutaway.training import train as train

_HOME = {
    "generate": "cutaway.generation",
    "load_model": "cutaway.models",
    "load_tokenizer": "cutaway.tokenizers",
    "look": "cutaway.interp",
    "Model": "cutaway.models",
    "prepare": "cutaway.tokenizers",
    "prepare_examples": "cutaway.tokenizers",
    "quantize": "cutaway.generation.quantize",
    "record": "cutaway.interp",
    "replace": "cutaway.interp",
    "save_model": "cutaway.models",
    "train": "cutaway.training",
}

__all__ = [
    "Model",
    "__version__",
    "generate",
    "load_model",
    "load_tokenizer",
    "look",
    "prepare",
    "prepare_examples",
    "quantize",
    "record",
    "replace",
    "save_model",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'cutaway' has no attribute {name!r}; it offers {', '.join(sorted(_HOME))}")


def __dir__() -> list[str]:
    return sorted(__all__)
