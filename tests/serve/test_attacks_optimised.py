"""The server's promises once more under `python -O`, where `assert` is gone (CVE-2026-41523 was guarded by one)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = ("doors", "keys", "tenants", "texts")
CORE = "t7_an_address or t8_another or t8_a_simple or t8_no_server or t9 or t10 or t12_no_address or t14 or t18"


@pytest.mark.skipif(sys.flags.optimize > 0, reason="this is that run")
def test_the_promises_of_the_server_hold_under_python_o(tmp_path: Path) -> None:
    files = [str(HERE / f"test_attacks_{name}.py") for name in FILES]
    command = [sys.executable, "-O", "-m", "pytest", *files, "-q", "-p", "no:cacheprovider", "-k", CORE]
    command += ["-W", "ignore::pytest.PytestConfigWarning", "--basetemp", str(tmp_path / "o")]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) > 80
