"""The openai client's own tests against a running server."""

import subprocess
import sys
from pathlib import Path

from serving import serving, tiny_talker

from cutaway.serve import Settings

SUITE = Path(__file__).parents[1] / "outsiders" / "openai_suite.py"
NAMES = ("gpt-3.5-turbo-instruct", "gpt-6-astra")  # of models in its cases


def test_the_suite_of_the_openai_client_passes_but_for_what_is_written_down(tmp_path: Path):
    source = tiny_talker(tmp_path / "tiny", context=64)
    with serving(Settings(models=dict.fromkeys(NAMES, source))) as served:
        ran = subprocess.run([sys.executable, str(SUITE), served.url], capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "215 cases, 115 passed" in ran.stdout
