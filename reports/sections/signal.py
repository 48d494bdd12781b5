"""Whether the training signal can be trusted: how right the rewards order answers, and what else they prefer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.results import RunResults
from reports.blocks import Block, Callout, Cell, Column, Details, Heading, Plot, Prose, Table, Value
from reports.plots import Curve, Dot, curves, forest
from reports.text import MISSING, count, finite, interval, number

TITLE = "Can the signal be trusted?"
ORDER = 25

RIGHT = (
    ("pair_accuracy", "orders right", "right above wrong, ties half"),
    ("top_accuracy", "best is right", "the highest of a prompt"),
    ("chosen_right", "chosen right", "of implied pairs"),
    ("rejected_right", "rejected right", "of implied pairs"),
)
LENGTHS = (
    ("length_auc", "longer chosen", "tokens, ties half"),
    ("conditional_length_auc", "between equals", "both right or both wrong"),
)
FLAG = "A mark ! stands where the share is outside 40 to 60% and its interval leaves out 50%"


def build(results: RunResults) -> list[Block]:
    """The advice, how right each candidate is, the room above it, accuracy over alpha, and length and style."""
    signal = results.signal
    found: Mapping[str, Mapping[str, Any]] = (signal or {}).get("candidates") or {}
    if not signal or not found:
        return []
    n = f"{count(signal.get('n_prompts'))} training prompts with {count(signal.get('n_answers'))} sampled answers"
    if signal.get("n_decidable") is not None:
        n += f"; {count(signal['n_decidable'])} prompts have both a right and a wrong one"
    text = "Training on preferences amplifies whatever the reward prefers. What each prefers, on the training data: "
    blocks: list[Block] = [Prose(f"{text}{n}.")]
    if signal.get("advice"):
        blocks.append(Callout("What this says", str(signal["advice"]), tone="note"))
    if any(row.get(key) for row in found.values() for key, _, _ in RIGHT):
        blocks.append(_right_table(found))
    blocks += [plot for plot in (_headroom(signal), _alpha(signal)) if plot is not None]
    rows = _alpha_rows(signal)
    if rows:
        blocks.append(Details("Every alpha with its intervals", (_alpha_table(rows),)))
    note = str(signal.get("note") or "")
    return [
        *blocks,
        Heading("Length and style"),
        *([Prose(note)] if note else []),
        _length_table(found),
        *_style(found),
    ]


def share_cell(share: Mapping[str, Any] | None, mark: bool = False) -> Cell:
    """A share {value, low, high, n} as a table's cell; a marked one warns."""
    value = finite((share or {}).get("value"))
    if share is None or value is None:
        return Cell(MISSING)
    bounds = interval(share.get("low"), share.get("high"))
    return Cell(number(value) + " !" * mark, (f"{bounds}, n {count(share.get('n'))}",), strong=mark)


def _records(
    found: Mapping[str, Mapping[str, Any]], keys: Sequence[str]
) -> tuple[tuple[str, ...], tuple[tuple[Value, ...], ...]]:
    rows = []
    for name, row in found.items():
        for key in keys:
            share = row.get(key) or {}
            rows.append((name, key, *(share.get(part) for part in ("value", "low", "high", "n"))))
    return ("signal", "measure", "value", "low", "high", "n"), tuple(rows)


def _right_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    heads = [Column("Signal", numeric=False), *(Column(f"{title}, %", sub) for _, title, sub in RIGHT)]
    heads.append(Column("has a value, %", "of the answers"))
    rows = [
        (
            Cell(name, strong=True),
            *(share_cell(row.get(key)) for key, _, _ in RIGHT),
            Cell(number(row.get("coverage"))),
        )
        for name, row in found.items()
    ]
    header, records = _records(found, [key for key, _, _ in RIGHT])
    note = "95% intervals, clustered by prompt. A coin orders 50% right. An implied pair: highest against lowest."
    return Table("signal-right", "How right the signals are", tuple(heads), tuple(rows), (note,), header, records)


def _headroom(signal: Mapping[str, Any]) -> Plot | None:
    room = signal.get("headroom")
    if not room:
        return None
    rows = {"one at random": room.get("pass_at_1")}
    rows |= {f"best by {name}": share for name, share in (room.get("best_by") or {}).items()}
    rows["any of them"] = room.get("pass_at_n")
    known = [(label, share) for label, share in rows.items() if share]
    dots = [
        Dot(label, s.get("value"), s.get("low"), s.get("high"), shape="circle" if label.startswith("best") else "ring")
        for label, s in known
    ]
    title = "Right answers by who picks, %"
    words = "; ".join(f"{label} {number(s.get('value'))}" for label, s in known)
    caption = (
        "Of a prompt's sampled answers: one at random (pass@1), the one each signal ranks highest, and whether any is "
        "right (pass@n): the room in which a signal can help. 95% intervals over prompts."
    )
    records = tuple((label, s.get("value"), s.get("low"), s.get("high"), s.get("n")) for label, s in known)
    svg = forest("signal-headroom", title, f"Share of prompts answered right: {words}.", dots)
    return Plot("signal-headroom", title, caption, svg, ("picked", "value", "low", "high", "n"), records)


def _alpha_rows(signal: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in signal.get("alpha") or [] if finite(row.get("alpha")) is not None]


def _alpha(signal: Mapping[str, Any]) -> Plot | None:
    rows = _alpha_rows(signal)
    if len(rows) < 2:
        return None
    lines, records = [], []
    for key, label in (("pair_accuracy", "orders right"), ("top_accuracy", "best is right")):
        points = []
        for row in rows:
            share = row.get(key) or {}
            value = finite(share.get("value"))
            points.append((float(row["alpha"]), None if value is None else 100 * value))
            records.append((key, row["alpha"], *(share.get(part) for part in ("value", "low", "high", "n"))))
        lines.append(Curve(label, tuple(points)))
    words = "; ".join(f"alpha {x:g}: {'n/a' if y is None else f'{y:.1f}'}" for x, y in lines[0].points)
    caption = "Alpha 0 is the mean log-likelihood alone, 1 the multiple-choice probability alone."
    title = "Accuracy of the mixed reward, %"
    svg = curves("signal-alpha", title, f"Right above wrong, percent: {words}.", lines, "alpha")
    header = ("measure", "alpha", "value", "low", "high", "n")
    return Plot("signal-alpha", title, caption, svg, header, tuple(records))


def _alpha_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    heads = (Column("alpha"), Column("orders right, %"), Column("best is right, %"))
    body = [
        (Cell(f"{row['alpha']:g}"), share_cell(row.get("pair_accuracy")), share_cell(row.get("top_accuracy")))
        for row in rows
    ]
    return Table("signal-alpha", "Accuracy over alpha", heads, tuple(body))


def _length_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    shown = [key for key in LENGTHS if any(row.get(key[0]) for row in found.values())]
    heads = [Column("Signal", numeric=False), Column("implied pairs")]
    heads += [Column(f"{title}, %", sub) for _, title, sub in shown]
    rows = []
    for name, row in found.items():
        mark = bool(row.get("length_flagged"))
        cells = [share_cell(row.get(key), mark and key == "length_auc") for key, _, _ in shown]
        rows.append((Cell(name, strong=True), Cell(count(row.get("n_pairs"))), *cells))
    notes = [f"{FLAG}."]
    if len(shown) > 1:
        notes.append(
            "Between two equally right answers, a preference for length is not a preference for right answers."
        )
    header, records = _records(found, [key for key, _, _ in shown])
    return Table("signal-length", "Preference for length", tuple(heads), tuple(rows), tuple(notes), header, records)


def _style(found: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    features = list(dict.fromkeys(feature for row in found.values() for feature in row.get("style") or {}))
    if not features:
        return []
    heads = (Column("Signal", numeric=False), *(Column(feature, "chosen has more, %") for feature in features))
    rows, records = [], []
    for name, row in found.items():
        cells = []
        for feature in features:
            style = (row.get("style") or {}).get(feature) or {}
            share = {**style, "value": style.get("among_differing"), "n": style.get("n_differing")}
            cells.append(share_cell(share, bool(style.get("flagged"))))
            numbers = (style.get(key) for key in ("auc", "n_differing", "among_differing", "low", "high", "p"))
            records.append((name, feature, *numbers, "yes" if style.get("flagged") else "no"))
        rows.append((Cell(name, strong=True), *cells))
    notes = (
        "Among the implied pairs that differ in the feature (n); below 10 of them nothing is flagged.",
        f"{FLAG} by a sign test, Holm-adjusted over the features of a signal.",
    )
    header = ("signal", "feature", "auc", "n_differing", "among_differing", "low", "high", "p_adjusted", "flagged")
    return [Table("signal-style", "Preference for style", heads, tuple(rows), notes, header, tuple(records))]
