"""What each student and stage cost, and what came from the store instead of being paid for again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from harness.records import Row
from harness.results import RunResults
from reports.blocks import Block, Cell, Column, Prose, Table, Value
from reports.text import count, duration, finite, memory

TITLE = "Cost"
ORDER = 50

COLUMNS: tuple[tuple[str, str, Callable[[object], str]], ...] = (
    ("rows", "Rows", count),
    ("tokens", "Tokens", count),
    ("seconds", "Time", duration),
    ("peak_memory_mb", "Peak memory", memory),
)


def build(results: RunResults) -> list[Block]:
    """The ledger, one row per student and stage. `peak_memory_mb` is in MiB and is never summed."""
    if not results.ledger:
        return []
    columns = [c for c in COLUMNS if c[0] != "peak_memory_mb" or any(c[0] in row for row in results.ledger)]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in results.ledger:
        groups.setdefault((str(row.get("subject") or "shared"), str(row.get("kind") or "")), []).append(row)
    order = {subject.label: i for i, subject in enumerate(results.subjects)}
    keys = sorted(groups, key=lambda key: order.get(key[0], -1 if key[0] == "shared" else len(order)))
    body, records, last = [], [], ""
    for subject, kind in keys:
        rows = groups[subject, kind]
        cells = [Cell(show(_total(rows, name))) for name, _, show in columns]
        body.append((Cell(subject if subject != last else "", strong=True), Cell(kind), *cells, Cell(_cached(rows))))
        records.append(_record(subject, kind, rows))
        last = subject
    heads = [
        Column("Model", numeric=False),
        Column("Stage", numeric=False),
        *(Column(title) for _, title, _ in columns),
    ]
    heads.append(Column("From store", numeric=False))
    total = [Cell(show(_total(results.ledger, name)), strong=True) for name, _, show in columns]
    body.append((Cell("all", strong=True), Cell(""), *total, Cell(_cached(results.ledger))))
    header = ("subject", "kind", "cells", "rows", "tokens", "seconds", "peak_memory_mb", "cached")
    caption = "Cost by model and stage"
    table = Table("cost", caption, tuple(heads), tuple(body), (), header, tuple(records))
    return [Prose(_sentence(results.ledger)), table]


def _sentence(ledger: Sequence[Row]) -> str:
    new = [row for row in ledger if not row.get("cached")]
    everything = f"All cells behind this report took {duration(_total(ledger, 'seconds'))}"
    if len(new) == len(ledger):
        return f"{everything}; none came from the store."
    if not new:
        return f"{everything}; all came from the store, so this run paid for none."
    text = f"{everything}; {len(ledger) - len(new):,} of {len(ledger):,} came from the store"
    return f"{text}, and this run itself paid for {duration(_total(new, 'seconds'))}."


def _total(rows: Iterable[Row], name: str) -> float | None:
    """The sum (of memory: the maximum) of what was recorded; None where nothing was."""
    known = [value for row in rows if (value := finite(row.get(name))) is not None]
    if not known:
        return None
    return max(known) if name == "peak_memory_mb" else sum(known)


def _cached(rows: Sequence[Row]) -> str:
    n = sum(bool(row.get("cached")) for row in rows)
    return "no" if n == 0 else "yes" if n == len(rows) else f"{n:,} of {len(rows):,}"


def _record(subject: str, kind: str, rows: Sequence[Row]) -> tuple[Value, ...]:
    totals = (_total(rows, name) for name in ("rows", "tokens", "seconds", "peak_memory_mb"))
    return (subject, kind, len(rows), *totals, sum(bool(row.get("cached")) for row in rows))
