"""Dictionaries of features in a folder, found by plain names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cutaway.errors import CutawayError, InputError, unknown
from cutaway.files import inside, read_json
from cutaway.interp.features.dictionary import FEATURES_JSON, Features, FeaturesConfig, load_features
from cutaway.settings import build

NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class StoredFeatures:
    """A dictionary that can be opened.

    Attributes:
        name: of its folder.
        config: what it is made of.
    """

    name: str
    config: FeaturesConfig


def stored_features(folder: str | Path) -> list[StoredFeatures]:
    """The dictionaries that lie directly in a folder, newest first; what is none, or damaged, is not among them."""
    folder, found = Path(folder), []
    if not folder.is_dir():
        return []
    for path in sorted(folder.iterdir(), key=lambda path: -path.lstat().st_mtime):
        if not NAME.fullmatch(path.name) or path.is_symlink() or not (path / FEATURES_JSON).is_file():
            continue
        try:
            config = build(FeaturesConfig, read_json(inside(path, FEATURES_JSON)), where=str(path))  # pyright: ignore[reportArgumentType]
        except (CutawayError, OSError):
            continue
        found.append(StoredFeatures(path.name, config))
    return found


def open_features(folder: str | Path, name: str) -> Features:
    """One of them.

    Raises:
        InputError: no dictionary of this name.
        DamagedFile, ConfigError: as in `load_features`.
    """
    known = [one.name for one in stored_features(folder)]
    if name not in known:
        raise InputError(unknown("dictionary of features", name, known))
    return load_features(Path(folder) / name)
