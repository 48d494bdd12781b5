"""Scores by length: of the reference, the same bins for everybody, and of the generated answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.records import Row
from harness.results import RunResults
from reports.blocks import Block, Heading, Plot, Prose
from reports.lookup import unit
from reports.plots import SERIES_SHAPES, Dot, forest
from reports.text import number

TITLE = "Scores by length"
ORDER = 36

CAPTIONS = {
    "reference": "Bins by the reference's length in words: the same questions in a bin for everybody.",
    "generated": (
        "Bins by the answer's own length in words. It conditions on what training changed, and the bins hold different "
        "questions for each model: no cause can be read from it."
    ),
}


def build(results: RunResults) -> list[Block]:
    """Per suite and metric one plot by reference length and one by generated length."""
    blocks: list[Block] = []
    for suite, metric in dict.fromkeys((suite, metric) for _, suite, metric in results.by_length):
        rows = {s.label: results.by_length.get((s.label, suite, metric), {}) for s in results.subjects}
        blocks.append(Heading(f"{suite}/{metric}"))
        blocks += [_plot(results, suite, metric, kind, rows) for kind in CAPTIONS]
    if blocks:
        blocks.insert(0, Prose("Where a score depends on length, look whether the students differ in length first."))
    return blocks


def _plot(
    results: RunResults, suite: str, metric: str, kind: str, rows: Mapping[str, Mapping[str, Sequence[Row]]]
) -> Plot:
    labels = [label for label, found in rows.items() if found.get(kind)]
    shown = [(label, row) for label in labels for row in rows[label][kind] if row["n"]]
    dots = [
        Dot(_range(row), row["value"], row["low"], row["high"], i, SERIES_SHAPES[i % len(SERIES_SHAPES)])
        for label, row in sorted(shown, key=lambda pair: (pair[1]["low_length"] or 0, labels.index(pair[0])))
        for i in (labels.index(label),)
    ]
    percent = unit(results, suite, metric) == "percent"
    title = f"{metric} by {kind} length" + ", %" * percent
    said = "; ".join(f"{label} {_range(row)} words {number(row['value'])} n {row['n']}" for label, row in shown)
    name = f"length-{suite}-{metric}-{kind}"
    svg = forest(name, title, f"{CAPTIONS[kind]} {said}.", dots, legend=labels)
    header = ("model", "low_length", "high_length", "value", "low", "high", "n")
    records = tuple((label, *(row[key] for key in header[1:])) for label, row in shown)
    return Plot(name, title, CAPTIONS[kind], svg, header, records)


def _range(row: Row) -> str:
    low, high = row["low_length"], row["high_length"]
    if low is None:
        return "any" if high is None else f"under {high:g}"
    return f"from {low:g}" if high is None else f"{low:g} to {high:g}"
