"""`cutaway prepare`: texts or examples in, token shards out, and a table of what happened in between."""

import json as json_format
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cutaway.cli._frame import live_progress
from cutaway.errors import ConfigError
from cutaway.tokenizers.examples import PreparedExamples, prepare_examples
from cutaway.tokenizers.pipeline import Prepared
from cutaway.tokenizers.pipeline import prepare as prepare_corpus


def prepare(
    sources: Annotated[
        list[str], typer.Argument(help="Files and folders: text, Markdown, HTML, PDF, tables, JSONL, code …")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to make.")] = Path("corpus"),
    tokenizer: Annotated[
        str, typer.Option(help="bpe, unigram, wordpiece, word or char to train one; or a folder or file to load.")
    ] = "bpe",
    vocab_size: Annotated[int, typer.Option(help="How many tokens a trained tokenizer has.")] = 8192,
    column: Annotated[str | None, typer.Option(help="The column or field that holds the text.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Prepare pairs: the column with the source, such as a sentence …")
    ] = None,
    target: Annotated[str | None, typer.Option(help="… and the one with what is made of it, its translation.")] = None,
    text: Annotated[str | None, typer.Option(help="Prepare labelled texts: the column with the text …")] = None,
    label: Annotated[str | None, typer.Option(help="… and the one with its class or number.")] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(help="Run only these cleaning steps (repeat the option); default: the usual ones."),
    ] = None,
    web: Annotated[bool, typer.Option("--web", help="Stricter quality filters, for crawled pages.")] = False,
    near_duplicates: Annotated[bool, typer.Option("--near-duplicates", help="Drop near-duplicates too.")] = False,
    language: Annotated[
        list[str] | None, typer.Option(help="Keep only this language, such as en or zh (repeat).")
    ] = None,
    classic: Annotated[
        list[str] | None,
        typer.Option(help="lowercase, punctuation, segment, stop_words, stem: for bag-of-words models."),
    ] = None,
    valid: Annotated[float, typer.Option(help="Share of the text held out for validation.")] = 0.05,
    test: Annotated[float, typer.Option(help="Share of the text held out for testing.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Another seed, another split.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one per core.")] = None,
    report: Annotated[bool, typer.Option("--report", help="Write report.html into the folder too.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Clean texts, drop duplicates, split, train a tokenizer, and store the tokens; or examples from a table.

    Examples:
      cutaway prepare texts/ notes.md -o corpus --report
      cutaway prepare reviews.csv --column text --language en --valid 0.1
      cutaway prepare reviews.csv --text review --label stars -o labelled     # to learn the label
      cutaway prepare sentences.tsv --source en --target zh -o pairs          # to learn what to make of a source
    """
    if given := [name for name in (source, target, text, label) if name is not None]:
        if len(given) != 2 or (source is None) != (target is None):
            raise ConfigError("give --source and --target for pairs, or --text and --label for labelled texts")
        if cleaning := [
            name
            for name, value in {
                "--column": column, "--step": step, "--web": web, "--near-duplicates": near_duplicates,
                "--language": language, "--classic": classic, "--workers": workers, "--report": report,
            }.items()
            if value
        ]:  # fmt: skip
            raise ConfigError(f"examples are taken as they are; {' and '.join(cleaning)} would be of no effect")
        _examples(sources, out, source or text or "", target, label, tokenizer, vocab_size, valid, test, seed, json)
        return
    from cutaway.text.clean import WEB  # late, as --help should not wait for it

    started = time.perf_counter()
    with live_progress(quiet=json) as progress:
        made = prepare_corpus(
            sources,
            out,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            column=column,
            steps=step,
            quality=WEB if web else None,
            near_duplicates=near_duplicates,
            languages=language or (),
            classic=classic or (),
            valid=valid,
            test=test,
            seed=seed,
            workers=workers,
            report=report,
            progress=progress,
        )
    seconds = time.perf_counter() - started
    if json:
        print(json_format.dumps({"folder": str(made.folder), "seconds": round(seconds, 3), **made.report.to_dict()}))
    else:
        show(made, seconds, Console(), html=report)


def _examples(
    sources: list[str],
    out: Path,
    text: str,
    target: str | None,
    label: str | None,
    tokenizer: str,
    vocab_size: int,
    valid: float,
    test: float,
    seed: int,
    json: bool,
) -> None:
    started = time.perf_counter()
    with live_progress(quiet=json) as progress:
        made = prepare_examples(
            sources,
            out,
            text=text,
            target=target,
            label=label,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            valid=valid,
            test=test,
            seed=seed,
            progress=progress,
        )
    seconds = time.perf_counter() - started
    if json:
        record = {"splits": made.splits, "labels": made.labels, "tokenizer": made.tokenizer, "dropped": made.dropped}
        print(json_format.dumps({"folder": str(made.folder), "seconds": round(seconds, 3), **record}))
    else:
        show_examples(made, seconds, Console())


def show_examples(made: PreparedExamples, seconds: float, console: Console) -> None:
    """Print what became of the rows: a table of splits, the labels, what was left out."""
    splits = Table()
    for name in ("split", "examples", "MB", "tokens"):
        splits.add_column(name, justify="left" if name == "split" else "right")
    for name, figures in made.splits.items():
        splits.add_row(name, f"{figures['examples']:,}", f"{figures['bytes'] / 1e6:,.1f}", f"{figures['tokens']:,}")
    console.print(splits)
    words = made.tokenizer
    console.print(
        f"Tokenizer: {words['kind']}, {words['vocab_size']:,} tokens, {words['bytes_per_token']} bytes a token. "
        f"{seconds:.1f} s."
    )
    if made.labels:
        shown = ", ".join(f"{name} {count:,}" for name, count in list(made.labels.items())[:10])
        more = f" and {len(made.labels) - 10:,} more" if len(made.labels) > 10 else ""
        console.print(f"Labels: {shown}{more}.", markup=False)
    for reason, count in made.dropped.items():
        console.print(f"Left out: {count:,} × {reason}.", markup=False)
    objective = "classify (or regress)" if made.labels else "seq2seq"
    console.print(
        f"Wrote {made.folder}. Next: cutaway train {made.folder} --objective {objective}", markup=False, soft_wrap=True
    )


def show(made: Prepared, seconds: float, console: Console, *, html: bool = False) -> None:
    """Print what happened to the text: a table of steps, a table of splits, warnings."""
    report = made.report
    steps = Table(title=f"{report.documents:,} documents from {report.files:,} files")
    for name in ("step", "documents in", "dropped", "changed", "mostly because"):
        steps.add_column(name, justify="right" if name in ("documents in", "dropped", "changed") else "left")
    for name, documents, dropped, changed, why in report.rows():
        steps.add_row(name, f"{documents:,}", f"{dropped:,}" if dropped else "", f"{changed:,}" if changed else "", why)
    console.print(steps)
    splits = Table()
    for name in ("split", "documents", "MB", "tokens"):
        splits.add_column(name, justify="left" if name == "split" else "right")
    for name, figures in report.splits.items():
        splits.add_row(name, f"{figures['documents']:,}", f"{figures['bytes'] / 1e6:,.1f}", f"{figures['tokens']:,}")
    console.print(splits)
    size = sum(figures["bytes"] for figures in report.splits.values())
    words = report.tokenizer
    console.print(
        f"Tokenizer: {words['kind']}, {words['vocab_size']:,} tokens, {words['bytes_per_token']} bytes a token. "
        f"{seconds:.1f} s, {size / 1e6 / seconds:.1f} MB/s."
    )
    if report.languages:
        seen = report.languages.total()
        common = ", ".join(f"{code} {count / seen:.0%}" for code, count in report.languages.most_common(5))
        console.print(f"Languages, in a sample of {seen:,} documents: {common}.")
    if report.skipped:
        name, why = next(iter(report.skipped.items()))
        console.print(f"{len(report.skipped):,} files were not read in full, such as {name}: {why}.", markup=False)
    for warning in report.warnings:
        console.print(f"[yellow]Warning:[/yellow] {warning}")
    console.print(
        f"Wrote {made.folder}{' and its report.html' if html else ''}. Next: cutaway train {made.folder}", markup=False
    )
