"""The openai client's own tests of completions, chat and models, run against a server of ours.

They are the stranger's, unchanged, from the source package of a pinned version. OpenAI runs them against a mock of its
API that says yes to everything; here some must fail, and EXPECTED says which and why. The list is exact: a case that
fails and is not on it is an error, and so is one that is on it and passes.

    python tests/outsiders/openai_suite.py http://127.0.0.1:8000  # which serves a model under each of NAMES
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import venv
import xml.etree.ElementTree as xml
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).with_name("openai_requirements.txt")
VERSION = "3.57.0"
SHA256 = "5a0a89d6a542efc85e2a8cec701ca9265b795d578c777828e10fafdf80e333b6"
NAMES = ("gpt-3.5-turbo-instruct", "gpt-6-astra")  # of models in its cases
CASES = ("test_completions.py", "chat/test_completions.py", "test_models.py")

EVERYTHING = (
    "it gives every parameter at once: functions, audio, a logit_bias of the token 'foo', which are refused by name"
)
STORED = "answers are not kept, so there are none to find, change, list or delete"
MODELS = "models come from the command line; none is deleted over HTTP"
EXPECTED = {
    "test_completions": {
        "test_method_create_with_all_params_overload_1": "it asks for the best of 0, and for the token 'foo'",
        "test_method_create_with_all_params_overload_2": "it asks for the best of 0, and for the token 'foo'",
    },
    "chat.test_completions": {
        "test_method_create_with_all_params_overload_1": EVERYTHING,
        "test_method_create_with_all_params_overload_2": EVERYTHING,
        **{
            f"test_{how}_{what}": STORED
            for what in ("retrieve", "update", "list", "delete")
            for how in ("method", "raw_response", "streaming_response")
        },
        "test_method_list_with_all_params": STORED,
    },
    "test_models": {f"test_{how}_delete": MODELS for how in ("method", "raw_response", "streaming_response")},
}


def folder() -> Path:
    """Where the sources are unpacked, with an environment for them; made where it is not there."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + SHA256.encode()).hexdigest()[:12]
    place = ROOT / "build" / "outsiders" / f"openai-{digest}"
    done = place / "installed"
    if not done.exists():
        venv.create(place / "env", with_pip=False, clear=True)
        pip = [sys.executable, "-m", "pip"]
        quiet = ["--quiet", "--disable-pip-version-check", "--no-deps"]
        _run(
            [*pip, "--python", str(_python(place)), "install", *quiet, "--no-compile", "-r", str(REQUIREMENTS)],
            "what openai's tests need could not be installed",
        )
        with TemporaryDirectory() as name:
            wanted = Path(name) / "wanted.txt"
            wanted.write_text(f"openai=={VERSION} --hash=sha256:{SHA256}\n", "utf-8")
            fetch = [
                *pip,
                "download",
                *quiet,
                "--no-binary",
                "openai",
                "--require-hashes",
                "-r",
                str(wanted),
                "-d",
                name,
            ]
            _run(fetch, "the source package of openai could not be fetched")
            (archive,) = Path(name).glob("openai-*.tar.gz")
            assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
            with tarfile.open(archive) as sources:
                sources.extractall(place, filter="data")
        done.touch()
    return place


def _python(place: Path) -> Path:
    return place / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"


def _run(words: list[str], complaint: str) -> None:
    made = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert made.returncode == 0, f"{complaint}:\n{made.stderr[-2000:]}"


def outcomes(url: str) -> dict[tuple[str, str, str], str]:
    """(file, test, client) -> "passed", or why it failed, of every case.

    Args:
        url: of the server, without /v1.
    """
    place = folder()
    sources = place / f"openai-{VERSION}"
    with TemporaryDirectory() as name:
        report = Path(name) / "report.xml"
        words = [
            str(_python(place)),
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-o",
            "addopts=",
            "-q",
            f"--junitxml={report}",
        ]
        words += [f"tests/api_resources/{case}" for case in CASES]
        env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "OPENAI"))}
        env |= {"TEST_API_BASE_URL": f"{url}/v1", "PYTHONPATH": str(sources / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        ran = subprocess.run(words, capture_output=True, text=True, env=env, cwd=sources, timeout=900)
        assert ran.returncode in (0, 1), f"openai's tests did not run:\n{ran.stdout[-3000:]}\n{ran.stderr[-1000:]}"
        found: dict[tuple[str, str, str], str] = {}
        for case in xml.parse(report).iter("testcase"):
            assert case.find("skipped") is None, f"{case.attrib} was skipped"
            file = case.attrib["classname"].removeprefix("tests.api_resources.").rsplit(".", 1)[0]
            test, _, client = case.attrib["name"].rstrip("]").partition("[")
            kind = case.attrib["classname"].rsplit(".", 1)[1]
            bad = [one for name in ("failure", "error") if (one := case.find(name)) is not None]
            found[file, test, f"{kind} {client}"] = bad[0].attrib["message"] if bad else "passed"
    return found


def surprises(found: dict[tuple[str, str, str], str]) -> list[str]:
    """What is not as EXPECTED says, a line for each case."""
    lines = []
    for (file, test, client), outcome in found.items():
        reason = EXPECTED[file].get(test)
        if outcome != "passed" and reason is None:
            lines.append(f"{file}::{test} ({client}) failed: {outcome[:300]}")
        if outcome == "passed" and reason is not None:
            lines.append(f"{file}::{test} ({client}) passed, though {reason}")
    known = {(file, test) for file, test, _ in found}
    lines += [
        f"{file}::{test} was not run" for file in EXPECTED for test in EXPECTED[file] if (file, test) not in known
    ]
    return lines


if __name__ == "__main__":
    cases = outcomes(sys.argv[1])
    wrong = surprises(cases)
    print("\n".join([*wrong, f"{len(cases)} cases, {sum(one == 'passed' for one in cases.values())} passed"]))
    sys.exit(bool(wrong))
