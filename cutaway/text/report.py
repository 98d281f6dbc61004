"""What happened to a text: a record that adds up batch by batch, its tables, and one offline HTML page."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from cutaway.text.outcome import Outcome, excerpt

EXAMPLES = 3  # shown for each reason


@dataclass
class StepReport:
    """What one step did.

    Attributes:
        documents: how many came in, and `characters` how long they were in all.
        dropped: reason -> documents; `dropped_characters` their length.
        changed: what was mended -> documents; `removed_characters` how much shorter the kept ones became.
        examples: reason or what was mended -> excerpts, at most EXAMPLES of each.
    """

    documents: int = 0
    characters: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_characters: int = 0
    changed: Counter[str] = field(default_factory=Counter)
    removed_characters: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Characters that did not leave this step."""
        return self.dropped_characters + self.removed_characters

    def add_outcome(self, before: int, outcome: Outcome) -> None:
        """Add what a step did to a batch of `before` characters."""
        dropped = sum(len(d.document.text) for d in outcome.dropped)
        self.documents += len(outcome.kept) + len(outcome.dropped)
        self.characters += before
        self.dropped.update(d.reason for d in outcome.dropped)
        self.dropped_characters += dropped
        self.changed += outcome.changed
        self.removed_characters += before - dropped - sum(len(d.text) for d in outcome.kept)
        for d in outcome.dropped:
            self.show(d.reason, d.document.text)
        for what, example in outcome.examples.items():
            self.show(what, example)

    def show(self, reason: str, text: str) -> None:
        """Keep an excerpt as an example, unless there are enough."""
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append(excerpt(text))

    def add(self, other: "StepReport") -> None:
        """Add the same step's work on what comes after."""
        self.documents += other.documents
        self.characters += other.characters
        self.dropped += other.dropped
        self.dropped_characters += other.dropped_characters
        self.changed += other.changed
        self.removed_characters += other.removed_characters
        for reason, examples in other.examples.items():
            self.examples[reason] = (self.examples.get(reason, []) + examples)[:EXAMPLES]


@dataclass
class Report:
    """What happened from the files to the token shards.

    Attributes:
        files: how many were read.
        skipped: file -> why it was not read.
        documents: how many were in the files, and `characters` how long they were.
        steps: step -> StepReport, in the order they ran.
        languages: ISO 639-1 code -> documents, in a sample.
        splits: "train", "valid", "test" -> {"documents", "bytes", "tokens"}.
        tokenizer: its kind, vocabulary size and bytes per token.
        warnings: what the user should know.
    """

    files: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    documents: int = 0
    characters: int = 0
    steps: dict[str, StepReport] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def step(self, name: str) -> StepReport:
        """The record of a step, made at its first use."""
        return self.steps.setdefault(name, StepReport())

    def add(self, other: "Report") -> None:
        """Add the record of what comes after in the corpus."""
        self.files += other.files
        self.skipped |= other.skipped
        self.documents += other.documents
        self.characters += other.characters
        self.languages += other.languages
        for name, step in other.steps.items():
            self.step(name).add(step)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is its inverse."""
        return {**vars(self), "steps": {name: dict(vars(step)) for name, step in self.steps.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Report":
        """The record that `to_dict` wrote."""
        steps = {
            name: StepReport(**{**step, "dropped": Counter(step["dropped"]), "changed": Counter(step["changed"])})
            for name, step in values["steps"].items()
        }
        return cls(**{**values, "steps": steps, "languages": Counter(values["languages"])})

    def rows(self) -> list[tuple[str, int, int, int, str]]:
        """A table: step, documents in, documents dropped, documents changed, the commonest reasons."""
        rows = []
        for name, step in self.steps.items():
            reasons = [f"{reason} ({count:,})" for reason, count in (step.dropped + step.changed).most_common(3)]
            rows.append((name, step.documents, step.dropped.total(), step.changed.total(), "; ".join(reasons)))
        return rows

    def losses(self) -> str:
        """In words which steps dropped how many documents, the largest first; for error messages."""
        dropped = sorted(((s.dropped.total(), n, s) for n, s in self.steps.items() if s.dropped), reverse=True)
        return "; ".join(
            f"{name} dropped {count:,} of {step.documents:,} ({step.dropped.most_common(1)[0][0]})"
            for count, name, step in dropped
        )


def html(report: Report, title: str = "What happened to the text") -> str:
    """One HTML page without scripts and without anything from elsewhere. Every text from the corpus is escaped."""
    total = max(1, report.characters)
    left = next(reversed(report.steps.values())) if report.steps else StepReport(report.documents, report.characters)
    kept = left.characters - left.lost
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=lead>{_n(report.documents)} documents from {_n(report.files)} files, "
        f"{_n(report.characters)} characters; {kept / total:.1%} of the characters are left.</p>",
        *(f"<p class=warning>{escape(w)}</p>" for w in report.warnings),
        "<h2>Step by step</h2>",
        _table(
            ("step", "documents in", "dropped", "changed", "characters lost", ""),
            [
                (
                    escape(name),
                    _n(step.documents),
                    _n(step.dropped.total()),
                    _n(step.changed.total()),
                    _n(step.lost),
                    _bar(step.lost / total),
                )
                for name, step in report.steps.items()
            ],
        ),
    ]
    if report.splits:
        parts += ["<h2>What is left</h2>", _splits(report)]
    for name, step in report.steps.items():
        reasons = [(r, c, "dropped") for r, c in step.dropped.most_common()]
        reasons += [(r, c, "changed") for r, c in step.changed.most_common()]
        if reasons:
            rows = [
                (escape(r), kind, _n(c), _bar(c / max(1, step.documents)), _examples(step.examples.get(r, [])))
                for r, c, kind in reasons
            ]
            parts += [f"<h2>{escape(name)}</h2>", _table(("why", "", "documents", "", "examples"), rows)]
    if report.languages:
        seen = report.languages.total()
        rows = [(escape(code), _n(count), _bar(count / seen)) for code, count in report.languages.most_common(20)]
        parts += [
            f"<h2>Languages, in a sample of {_n(seen)} documents</h2>",
            _table(("language", "documents", ""), rows),
        ]
    if report.skipped:
        rows = [(escape(name), escape(why)) for name, why in list(report.skipped.items())[:200]]
        parts += [f"<h2>{_n(len(report.skipped))} files not read</h2>", _table(("file", "why"), rows)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _splits(report: Report) -> str:
    rows = [
        (escape(name), *(_n(figures[key]) for key in ("documents", "bytes", "tokens")))
        for name, figures in report.splits.items()
    ]
    words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in report.tokenizer.items())
    return _table(("split", "documents", "bytes", "tokens"), rows) + f"<p>Tokenizer: {escape(words)}.</p>"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already; numbers are set right by their look, and so are their heads."""

    def is_number(value: str) -> bool:
        return value.replace(",", "").isdigit()

    def cell(value: str) -> str:
        return f"<td class=n>{value}</td>" if is_number(value) else f"<td>{value}</td>"

    rows, head = [list(row) for row in rows], list(head)
    numbers = [any(map(is_number, cells)) for cells in zip(*rows, strict=True)] or [False] * len(head)
    heads = zip(head, numbers, strict=True)
    top = "".join(f"<th scope=col{' class=n' * right}>{escape(h)}</th>" for h, right in heads)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _bar(share: float) -> str:
    share = min(1.0, max(0.0, share))
    return f"<span class=bar><i style='width:{100 * share:.2f}%'></i></span> {share:.1%}"


def _examples(examples: Iterable[str]) -> str:
    return "".join(f"<q>{escape(example)}</q>" for example in examples)


def _n(number: int) -> str:
    return f"{number:,}"


_STYLE = """
:root{color-scheme:light dark;--ink:#1d2430;--paper:#fff;--line:#d7dce3;--soft:#5b6675;--bar:#b3541e;--mark:#fff3dc}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--paper:#14181f;--line:#333b47;--soft:#9aa5b4;--bar:#e08a4f;--mark:#3a2d14}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:70rem;margin:0 auto;padding:1.5rem}
h1{font-size:1.7rem;margin:.2em 0}h2{font-size:1.15rem;margin:2em 0 .4em}
.lead{color:var(--soft)}.warning{background:var(--mark);padding:.6em .9em;border-left:4px solid var(--bar)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.93rem}
th{text-align:left;color:var(--soft);font-weight:600}
th,td{padding:.4em .7em .4em 0;border-bottom:1px solid var(--line);vertical-align:top}
th.n,.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.bar{display:inline-block;width:7rem;height:.7em;background:var(--line);border-radius:2px;overflow:hidden}
.bar i{display:block;height:100%;background:var(--bar)}
q{display:block;quotes:none;color:var(--soft);overflow-wrap:anywhere;margin-bottom:.35em}
"""
