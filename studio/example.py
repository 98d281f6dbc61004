"""Record the example that the pages show before any model is open: python studio/example.py MODEL

It writes studio/public/example.bin: what a small model (a run of some minutes on `python:`, Python's own sources) made
of a line of code, packed as the server packs answers.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cutaway
from cutaway.interp import attention, logit_lens, surprisal
from cutaway.interp.about import about
from cutaway.interp.pictures.wire import packed

TEXT = "for name in names:\n    if name not in seen:"
MOST = 64_000  # bytes: it is there before anything else is


def example(source: str) -> bytes:
    """The packed example."""
    model = cutaway.load_model(source)
    found = [surprisal(model, TEXT), logit_lens(model, TEXT, top=3), attention(model, TEXT)]
    # not the path of whoever made it
    results = [replace(one, receipt=replace(one.receipt, source="", code="")) for one in found]
    return packed({"about": replace(about(model), name="example", activations=[]), "text": TEXT, "results": results})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    made = example(parser.parse_args().model)
    if len(made) > MOST:
        raise SystemExit(f"the example takes {len(made):,} bytes, more than {MOST:,}: give a smaller model")
    Path(__file__).parent.joinpath("public", "example.bin").write_bytes(made)
    print(f"studio/public/example.bin: {len(made):,} bytes")
