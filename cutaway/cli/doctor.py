"""`cutaway doctor`: what this machine can do, and which choices follow from it."""

import json as json_format
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cutaway.doctor import diagnose
from cutaway.generation.quantize.report import read_report
from cutaway.parity import SAMPLE, Parity, parity


def doctor(
    model: Annotated[
        str | None, typer.Option(help="Instead, compare this model's numbers with those of transformers.")
    ] = None,
    text: Annotated[str, typer.Option(help="The text to compare on.")] = SAMPLE,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at the machine, measure it, and say what Cutaway chooses on it and why.

    Example:
      cutaway doctor --model run
    """
    if model is not None:
        cost = read_report(Path(model))
        found = parity(model, text)
        if json:
            own = {"quantisation": cost.to_json()} if cost is not None else {}
            print(json_format.dumps(found.to_json() | own))
            return
        if cost is not None:
            Console(highlight=False).print(cost)
        _receipt(found)
        return
    found = diagnose()
    if json:
        print(json_format.dumps(found.to_json()))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row("versions", ", ".join(f"{name} {number}" for name, number in found.versions.items()))
    memory = f", {found.memory_gb:g} GB of memory" if found.memory_gb is not None else ""
    table.add_row("machine", f"{found.cores} cores{memory}, {found.disk_free_gb:g} GB free on this disk")
    table.add_row("instructions", ", ".join(found.vectors) or "none that matter here")
    rates = found.rates
    table.add_row("matrix products", f"{rates['bf16_gflops']:g} GFLOP/s bf16, {rates['fp32_gflops']:g} GFLOP/s fp32")
    table.add_row("memory reads", f"{rates['read_gb_per_s']:g} GB/s")
    for choice in found.choices:
        table.add_row(choice.name, f"{choice.value}: {choice.reason}")
    whole = [extra for extra, missing in found.extras.items() if not missing]
    if whole:
        table.add_row("extras installed", ", ".join(whole))
    for extra, command in found.commands.items():
        table.add_row(f"{extra} lacks", f"{', '.join(found.extras[extra])}; {command}")
    Console(highlight=False, markup=False).print(table)  # cutaway[documents] is no markup


def _receipt(found: Parity) -> None:
    """Print a comparison."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row("model", f"{found.model}, read by transformers as {found.family} ({found.architecture})")
    table.add_row(
        "largest difference", f"{found.difference:.2g} between outputs of up to {found.scale:.3g}, in float32"
    )
    table.add_row("the same likeliest", f"at {found.same_choice} of {found.choices} places, in {found.tokens} tokens")
    table.add_row("versions", ", ".join(f"{name} {number}" for name, number in found.versions.items()))
    Console(highlight=False, markup=False).print(table)
