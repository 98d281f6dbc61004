"""Damaged files by number; `make fuzz` does 100,000 of them (see fuzz.py, which also replays one)."""

from pathlib import Path

from fuzz import attack, table
from targets import TARGETS

INPUTS = 12  # of each target, times its share


def test_t5_mutated_files_become_a_model_or_one_of_our_errors(specimens: Path) -> None:
    """No other error, no hang, no memory beyond four times the file and 64 MB, nothing opened outside, clear words."""
    jobs = {name: range(INPUTS * max(4, target.share)) for name, target in TARGETS.items()}
    tallies = attack(specimens, jobs)
    faults = [f"{name} {number}: {text}" for name, tally in tallies.items() for number, text in tally.faults.items()]
    assert not faults, "\n".join([f"{len(faults)} faults; replay one with fuzz.py --replay", *faults[:5]])
    # the damage is neither always deadly nor always harmless, but for what may never open
    for name, tally in tallies.items():
        assert tally.ends.total() == len(jobs[name])
        assert 0 < tally.ends["model"] < tally.ends.total() or TARGETS[name].refused, "\n".join(table(tallies))
