"""Does anything that is installed have a known vulnerability? Run by make check (make audit).

Two ways, and what each of them saw is said:

1. Advisories that were looked at by hand (`KNOWN`), for what Cutaway stands on. They are here, so this always works.
2. pip-audit, which asks a server of advisories. Whether that can be reached is tried first with a version that is known
   to be vulnerable: an audit that does not find that one would find nothing. Where it cannot be reached, this says so
   and fails only with --require (or CUTAWAY_AUDIT=require): a build may not depend on somebody else's server, and a
   release should.

    python tests/audit.py [--require] [--requirements FILE] [--osv-url URL]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.version import Version

KNOWN = {  # the first version without it
    "h11": ("0.16.0", "CVE-2025-43859: chunked bodies are read leniently, which lets requests be smuggled"),
    "jinja2": ("3.1.6", "CVE-2025-27516: templates leave the sandbox"),
    "lxml-html-clean": ("0.4.0", "CVE-2024-52595: what is cleaned may still hold scripts"),
    "pyarrow": ("14.0.1", "CVE-2023-47248: reading a file may run code"),
    "python-multipart": ("0.0.18", "CVE-2024-53981: a form's end makes it log without end"),
    "requests": ("2.32.4", "CVE-2024-47081: credentials are sent to another host"),
    "scikit-learn": ("1.5.0", "CVE-2024-5206: texts are kept in a vectoriser's stop words"),
    "setuptools": ("78.1.1", "CVE-2025-47273: a package's name leads out of its folder"),
    "starlette": ("0.49.1", "CVE-2025-62727: a Range header takes quadratic time"),
    "torch": ("2.6.0", "CVE-2025-32434: torch.load runs code with weights_only=True"),
    "tqdm": ("4.66.3", "CVE-2024-34062: arguments are evaluated"),
    "transformers": ("5.0.0", "CVE-2026-1839: the trainer unpickles rng_state.pth"),
    "urllib3": ("2.5.0", "CVE-2025-50181: redirects are followed where they were turned off"),
    "werkzeug": ("3.0.6", "CVE-2024-49767: forms fill the memory"),
}
CANARY = "jinja2==3.1.2"


def installed() -> dict[str, str]:
    """Names and versions of this environment."""
    return {_plain(found.metadata["Name"]): found.version for found in distributions() if found.metadata["Name"]}


def pinned(path: Path) -> dict[str, str]:
    """Names and versions of a file with a line NAME==VERSION for each."""
    lines = [line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines()]
    return {_plain(name): version for name, _, version in (line.partition("==") for line in lines if "==" in line)}


def by_hand(found: Mapping[str, str]) -> list[str]:
    """What is older than an advisory of `KNOWN` allows."""
    return [
        f"{name} {found[name]} has {what}; take {safe} or newer"
        for name, (safe, what) in KNOWN.items()
        if name in found and Version(found[name]) < Version(safe)
    ]


def by_server(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What pip-audit finds, and what it could not look up.

    Raises:
        RuntimeError: it did not answer in a form that can be read.
    """
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    try:
        listed: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise RuntimeError(lines[-1][:300]) from None
    bad = [
        f"{one['name']} {one['version']} has {vuln['id']}; fixed in {', '.join(vuln['fix_versions']) or 'no version'}"
        for one in listed
        for vuln in one.get("vulns", ())
    ]
    return bad, [one["name"] for one in listed if "skip_reason" in one]


def main() -> int:
    """Say what there is; 1 where something is vulnerable."""
    parser = argparse.ArgumentParser(description="Known vulnerabilities of what is installed.")
    parser.add_argument("--require", action="store_true", help="fail where advisories cannot be reached")
    parser.add_argument("--requirements", type=Path, help="look at the versions in this file instead")
    parser.add_argument("--osv-url", help="of a server of advisories")
    asked = parser.parse_args()
    found = pinned(asked.requirements) if asked.requirements else installed()
    bad = by_hand(found)
    print(f"{len(found)} packages against {len(KNOWN)} advisories kept here: {len(bad)} vulnerable")
    service = ["-s", "osv", "--osv-url", asked.osv_url] if asked.osv_url else []
    with tempfile.TemporaryDirectory() as folder:
        canary, listed = Path(folder) / "canary.txt", Path(folder) / "listed.txt"
        canary.write_text(CANARY + "\n")
        # a build of its own, such as torch's 2.13.0+cpu, is looked up as the version that it is of
        listed.write_text("".join(f"{name}=={version.partition('+')[0]}\n" for name, version in sorted(found.items())))
        try:
            alive = bool(by_server([*service, "--no-deps", "--disable-pip", "-r", str(canary)])[0])
            why = f"{CANARY} is not reported, which has known vulnerabilities"
        except RuntimeError as error:
            alive, why = False, str(error)
        if alive:
            worse, missing = by_server([*service, "--no-deps", "--disable-pip", "-r", str(listed)])
            bad += worse
            print(f"pip-audit: {len(worse)} vulnerabilities; not known there: {', '.join(missing) or 'none'}")
        else:
            print(f"pip-audit: NOT AUDITED, for the advisories cannot be reached ({why})")
    print("\n".join(bad), end="\n" if bad else "")
    required = asked.require or os.environ.get("CUTAWAY_AUDIT") == "require"
    return 1 if bad or (required and not alive) else 0


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
