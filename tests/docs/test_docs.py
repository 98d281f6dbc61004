"""The documentation is true: its code and commands run, its links lead somewhere, its figures are measured.

A page's blocks run in order, in one process and one empty folder that holds `texts/`, some real English and Python. A
training of minutes is shortened to a few steps; nothing else is changed. A block that is not meant to run says so by
its language (```text). Pages with servers are tried by `test_serving_page.py`.

Commands of README.md are processes of their own, as its readers start them; those of other pages run in this one. What
many pages begin with is run once. README.zh-CN.md has the very blocks of README.md, which a test of its own holds.
"""

import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
import torch

from cutaway.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "README.zh-CN.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
]
BLOCK = re.compile(r"^```(python|console|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
STARTS = re.compile("cutaway (prepare|train) ")
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
FIGURE = re.compile(r"<!--figure:([\w/]+)-->\s*([^<|]*?)\s*<!--/figure-->")


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text("utf-8"))


def shorten(text: str) -> str:
    """A training of minutes becomes one of a few steps."""
    text = re.sub(r"--minutes[ =][\d.]+", "--steps 30", text)
    return re.sub(r"\bminutes=[\d.]+", "steps=30", text)


def commands(text: str) -> list[str]:
    """The commands of `cutaway` in a block; make, git, pip and bash are tried by CI and by runs/, not inside tests."""
    lines = [line.removeprefix("$ ").split("  #")[0].strip() for line in text.replace("\\\n", " ").splitlines()]
    return [shorten(line) for line in lines if line.startswith("cutaway ")]


def run_command(line: str, *, apart: bool = False) -> None:
    """Run a command in the current folder, in this process or one of its own (`apart`)."""
    words = shlex.split(line)[1:]
    if apart:
        done = subprocess.run([sys.executable, "-m", "cutaway", *words], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    else:
        assert main(words) == 0, line


Begun = dict[tuple[str, ...], Path]


@pytest.fixture(scope="module")
def begun() -> Begun:
    """The folders that commands left with which pages begin."""
    return {}


def begin(lines: tuple[str, ...], folder: Path, begun: Begun, factory: pytest.TempPathFactory) -> None:
    """Run the first commands of a page, or take what the same ones left before."""
    if lines in begun:
        shutil.copytree(begun[lines], folder, dirs_exist_ok=True)
    elif lines:
        begin(lines[:-1], folder, begun, factory)
        run_command(lines[-1])
        begun[lines] = shutil.copytree(folder, factory.mktemp("begun"), dirs_exist_ok=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in ("argparse", "textwrap", "statistics", "heapq", "string", "calendar", "fractions", "inspect"):
        source = Path(sys.modules[name].__file__ or "") if name in sys.modules else Path(__import__(name).__file__)
        (texts / f"{name}.py").write_text(source.read_text("utf-8"), "utf-8")
    (texts / "novel.txt").write_text((ROOT / "LICENSE").read_text("utf-8"), "utf-8")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)  # commands choose their own


RUN = [page for page in PAGES if blocks(page) and page.name not in ("serving.md", "README.zh-CN.md")]


@pytest.mark.parametrize("page", RUN, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_blocks_run(page: Path, folder: Path, begun: Begun, tmp_path_factory: pytest.TempPathFactory):
    names: dict[str, object] = {"__name__": "__main__"}
    steps = [
        step
        for language, text in blocks(page)
        for step in ([(language, shorten(text))] if language == "python" else [(language, c) for c in commands(text)])
    ]
    apart = page.name == "README.md"
    first = () if apart else tuple(text for _, text in takewhile(lambda step: STARTS.match(step[1]), steps))
    begin(first, folder, begun, tmp_path_factory)
    for language, text in steps[len(first) :]:
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(text, page.name, "exec"), names)  # noqa: S102 (our own documentation)
        else:
            run_command(text, apart=apart)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path):
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text("utf-8"), flags=re.DOTALL)
    missing = [link for link in LINK.findall(prose) if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_figures_are_the_measured_ones(page: Path):
    """<!--figure:bench/name-->shown<!--/figure--> must show the value of bench/results/<bench>.json."""
    for name, shown in FIGURE.findall(page.read_text("utf-8")):
        bench, figure = name.split("/")
        results = ROOT / "bench/results" / f"{bench}.json"
        measured = json.loads(results.read_text("utf-8"))["figures"] if results.exists() else {}
        if shown == "–":  # said to be not measured yet
            assert figure not in measured, name
            continue
        value = measured[figure]["value"]
        number = re.search(r"-?[\d,]*\.?\d+(e-?\d+)?", shown)
        assert number, f"{name}: no number in {shown!r}"
        if number[1]:  # 1.2e-05 shows all digits that there are
            assert float(number[0]) == value, name
            continue
        digits = len(number[0].partition(".")[2])
        assert float(number[0].replace(",", "")) == pytest.approx(round(value, digits), abs=10**-digits / 2), name


def test_the_two_readmes_have_the_same_parts():
    english, chinese = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert blocks(ROOT / "README.md") == blocks(ROOT / "README.zh-CN.md")
    assert [n for n, _ in FIGURE.findall(english)] == [n for n, _ in FIGURE.findall(chinese)]
