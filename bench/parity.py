"""How far Cutaway's numbers are from transformers', for every published family: the parity tests, and what they saw.

Each shape of a family is a small network with random weights that transformers has saved; both read the same tokens,
with padding on either side and without. The figure is the largest difference between two logits (or states).
"""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

import _bench

GOALS = {"float32": "<= 5e-5", "float64": "<= 1e-9"}


def main() -> None:
    options = _bench.options(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-o", "junit_family=xunit1", f"--junitxml={found}"]
        only = "and_hidden_states" + (" and (llama or bert or t5)" if options.quick else "")
        subprocess.run([*command, "-k", only, "tests/parity"], check=True, cwd=_bench.BENCH.parent)
        seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))  # dtype -> family -> of shapes
        for case in ElementTree.parse(found).iter("testcase"):
            largest: dict[tuple[str, str], float] = {}
            for item in case.iter("property"):
                family, dtype = item.attrib["name"].split(" torch.")
                largest[dtype, family] = max(largest.get((dtype, family), 0.0), float(item.attrib["value"]))
            for (dtype, family), difference in largest.items():
                seen[dtype][family].append(difference)
    figures = {}
    for dtype, families in seen.items():
        everything = [difference for shapes in families.values() for difference in shapes]
        cutaway = f"{len(families)} families, {len(everything)} networks"
        figures[dtype] = _largest(everything, GOALS[dtype], cutaway)
    for family in sorted(seen["float32"]):
        for dtype, families in seen.items():
            figures[f"{family}_{dtype}"] = _largest(families[family], GOALS[dtype], f"{len(families[family])} networks")
    _bench.report("parity", figures, packages=["torch", "transformers"], quick=options.quick)


def _largest(differences: list[float], goal: str, cutaway: str) -> dict:
    """A figure that is the largest of all, not their median."""
    return _bench.figure(differences, goal, cutaway=cutaway, peer_name="transformers") | {
        "value": float(f"{max(differences):.2g}")
    }


if __name__ == "__main__":
    main()
