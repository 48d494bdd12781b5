"""How each student learned: its logged loss and metrics, step by step."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records import Row
from harness.results import RunResults, Subject
from reports.blocks import Block, Details, Heading, Plot, Prose
from reports.lookup import about
from reports.plots import Curve, curves
from reports.text import finite, plural

TITLE = "Training"
ORDER = 40
SHOWN = 4


def build(results: RunResults) -> list[Block]:
    """Per student its loss and first metrics, seeds over each other; further metrics stay folded."""
    blocks: list[Block] = []
    logged = [s for s in results.subjects if results.training.get(s.label)]
    known = {subject.label for subject in logged}
    others = [label for label, rows in results.training.items() if rows and label not in known]
    logged += [Subject(label, "student", label) for label in others]
    for student in dict.fromkeys(subject.student for subject in logged):
        group = [subject for subject in logged if subject.student == student]
        plots = [_plot(results, student, group, metric) for metric in _metrics(results, group)]
        what = about(results, group[0])
        heading = what if group[0].objective == student else f"{student}: {what}"
        blocks += [Heading(heading), *plots[:SHOWN]]
        if plots[SHOWN:]:
            blocks.append(Details(plural(len(plots) - SHOWN, "more metric"), tuple(plots[SHOWN:])))
    if blocks:
        text = "Loss and metrics as logged, unsmoothed. Losses of different objectives are on different scales."
        blocks.insert(0, Prose(text))
    return blocks


def _metrics(results: RunResults, group: Sequence[Subject]) -> list[str]:
    """Loss first, then what was logged, in the order in which it appears; only what holds a number somewhere."""
    keys = dict.fromkeys(key for subject in group for row in results.training[subject.label] for key in row)
    numeric = [key for key in keys if key != "step" and any(_values(results.training[s.label], key) for s in group)]
    return sorted(numeric, key=lambda key: key != "loss")


def _values(rows: Sequence[Row], metric: str) -> list[float]:
    return [value for row in rows if (value := finite(row.get(metric))) is not None]


def _plot(results: RunResults, student: str, group: Sequence[Subject], metric: str) -> Plot:
    lines = []
    for subject in group:
        rows = results.training[subject.label]
        points = [(finite(row.get("step", i)), finite(row[metric])) for i, row in enumerate(rows) if metric in row]
        lines.append(Curve(subject.label, tuple((step, value) for step, value in points if step is not None)))
    records = tuple((line.label, step, value) for line in lines for step, value in line.points)
    gaps = sum(value is None for _, _, value in records)
    values = [value for _, _, value in records if value is not None]
    lowest, highest = min(values), max(values)
    words = f"{metric} of {student} over {plural(len(records), 'logged step')}, from {lowest:.4g} to {highest:.4g}."
    caption = f"{plural(gaps, 'logged step')} without a finite value." if gaps else ""
    name = f"training-{student}-{metric}"
    svg = curves(name, metric, words, lines)
    return Plot(name, f"{student}: {metric}", caption, svg, ("model", "step", metric), records)
