"""Checkpoints from the Hugging Face hub: data files alone, kept in the hub's own cache.

Downloads continue where they were broken off, and what is there is not fetched again. HF_ENDPOINT, HF_HOME, HF_TOKEN
and HF_HUB_OFFLINE mean what they mean to huggingface_hub.
"""

import os
import re
from pathlib import Path
from typing import Any

from cutaway.errors import InputError, need
from cutaway.models.formats.huggingface import PICKLED
from cutaway.progress import OnProgress, Progress

# what a checkpoint is made of; never code, and no pickled weights
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.spm", "*.jinja")
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def is_repository(name: str) -> bool:
    """Whether this reads like the name of a repository, owner/name."""
    return REPOSITORY.fullmatch(name) is not None and ".." not in name


def fetch(
    name: str,
    *,
    revision: str | None = None,
    file: str | None = None,
    offline: bool = False,
    progress: OnProgress | None = None,
) -> Path:
    """Download a checkpoint, or find it in the cache.

    Args:
        name: owner/name.
        revision: a branch, tag or commit; None: the main branch.
        file: one file alone, such as a GGUF; None: config, weights and tokenizer.
        offline: use the cache alone.
        progress: told how many bytes are there.

    Returns:
        The folder, or the file.

    Raises:
        InputError: no such name, repository, revision or file, or the hub cannot be reached.
        MissingExtra: huggingface_hub is not installed.
    """
    if not is_repository(name):
        raise InputError(f"{name!r} is no name of a repository; one looks like owner/name")
    if file is not None and (file.startswith("/") or ".." in file.split("/") or file.endswith(PICKLED)):
        raise InputError(f"{file!r} is not a file that Cutaway opens; give a .gguf or .safetensors file of {name}")
    hub = need("huggingface_hub", "hub", "the hub")
    errors = need("huggingface_hub.errors", "hub", "the hub")
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    logging = need("huggingface_hub.utils.logging", "hub", "the hub")
    spoken = logging.get_verbosity()
    logging.set_verbosity_error()  # what matters is said in one sentence below
    try:
        folder = hub.snapshot_download(
            name,
            revision=revision,
            allow_patterns=[file] if file else list(WANTED),
            ignore_patterns=[f"*{suffix}" for suffix in PICKLED],
            local_files_only=offline,
            endpoint=os.environ.get("HF_ENDPOINT"),
            tqdm_class=_bar(progress),
        )
    except errors.GatedRepoError as error:
        raise InputError(
            f"{name} is gated: accept its terms on the hub, and set HF_TOKEN to a token of yours"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"the hub has no repository {name} that you may read; check the name, or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{name} has no revision {revision!r}; give a branch, a tag or a commit of it") from error
    except errors.LocalEntryNotFoundError as error:
        reason = "and the network is not used" if offline else "and the hub cannot be reached"
        raise InputError(f"{name} is not in the cache, {reason}; fetch it with: cutaway get {name}") from error
    except (errors.HfHubHTTPError, ConnectionError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"the hub did not send {name}: {str(error).splitlines()[0][:200]}; try again later") from error
    finally:
        logging.set_verbosity(spoken)
    made = Path(folder)
    if file is not None and not (made / file).is_file():
        raise InputError(f"{name} has no file {file}; look at its files on the hub")
    return made / file if file else made


def _bar(progress: OnProgress | None) -> Any:
    """A progress bar of the kind that huggingface_hub drives, which shows nothing and tells `progress`."""
    tqdm = need("tqdm", "hub", "the hub").tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **options | {"file": _Nowhere(), "disable": False})

        def update(self, n: float | None = 1) -> Any:
            updated = super().update(n)
            if progress is not None and self.unit == "B":
                progress(Progress("downloading", self.n, self.total or None, "bytes", {"MB": round(self.n / 1e6, 1)}))
            return updated

    return Bar


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""
