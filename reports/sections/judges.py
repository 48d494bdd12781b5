"""What judges prefer: win rates raw and with length taken out, win rates by length, and how the judges judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.results import RunResults, Subject
from reports.blocks import Block, Callout, Cell, Column, Details, Heading, Plot, Prose, Table, Value
from reports.lookup import metrics, unit
from reports.plots import SERIES_SHAPES, Dot, forest
from reports.sections.signal import share_cell
from reports.tables import value_cell
from reports.text import MISSING, count, finite, interval, listed, number

TITLE = "Judges"
ORDER = 35

MAIN = ("win_rate", "win_rate_lc")
HEALTH = (
    ("flip_rate", "verdict flips", "other winner in the other order"),
    ("first_rate", "first preferred", "half: no position bias"),
    ("tie_rate", "ties", ""),
    ("mass", "mass", "of the verdict's tokens"),
    ("length_only", "length alone", "says the verdict: the longer wins"),
)
CONTROL = (
    "The length-controlled rate is what a logistic model expects for answers of equal length. It extrapolates where "
    "one side is nearly always longer: read it with the overlap and with its range over penalties and shapes."
)
OWN = (
    "Bins by the student's own generated length. It conditions on what training changed: the bins hold different "
    "prompts for each student, and hard prompts make long answers. No cause can be read from it."
)
FIXED = "Bins by the length of {other}'s answer: the same prompts in a bin for every student, whatever its length."
MOVED = "Bins by the length of {other}'s answer to the scored prompts: unscored ones moved the edges between students."


def build(results: RunResults) -> list[Block]:
    """Per judge and opponent: win rates, what length control rests on, win rates by length, the judge's own traits."""
    suites = dict.fromkeys(suite for suite, _ in metrics(results) if suite.split("/")[0] == "judges")
    suites |= dict.fromkeys(suite for _, suite in results.judged)
    blocks: list[Block] = []
    for suite in suites:
        rows = [s for s in results.subjects if (s.label, suite) in results.judged or _has(results, s, suite)]
        if rows:
            blocks += _judge(results, suite, rows)
    if blocks:
        text = (
            "A judge's preference is an opinion about answers, not their truth. One half is a draw with the opponent."
        )
        blocks.insert(0, Prose(text))
    return blocks


def _has(results: RunResults, subject: Subject, suite: str) -> bool:
    return any((label, s) == (subject.label, suite) for label, s, _ in results.measures)


def _judge(results: RunResults, suite: str, rows: Sequence[Subject]) -> list[Block]:
    name = suite.partition("/")[2]
    details = {s.label: results.judged.get((s.label, suite), {}) for s in rows}
    said = [f"Judged by {_names(details, 'judge')}"] if _names(details, "judge") else []
    said += [f"on {_names(details, 'suite')}"] if _names(details, "suite") else []
    said += [f"against {_names(details, 'opponent')}"] if _names(details, "opponent") else []
    blocks: list[Block] = [Heading(name)]
    if said:
        blocks.append(Prose(f"{', '.join(said)}."))
    related = list(dict.fromkeys(str(d["related"]) for d in details.values() if d.get("related")))
    if related:
        blocks.append(Callout("The judge is not independent", items=tuple(related), tone="inconclusive"))
    blocks += [_rates(results, suite, rows), _table(results, suite, rows, details)]
    opponent = _names(details, "opponent") or "the opponent"
    blocks += [plot for s in rows if (plot := _by_own(suite, s.label, details[s.label])) is not None]
    blocks += _by_fixed(suite, details, opponent)
    blocks += [Prose(text) for text in _unscored(details)]
    health = [row for row in HEALTH if any((s.label, suite, row[0]) in results.measures for s in rows)]
    if health:
        blocks.append(Details("How the judge judges", (_health(results, suite, rows, health),)))
    return blocks


def _names(details: Mapping[str, Mapping[str, Any]], key: str) -> str:
    return listed(list(dict.fromkeys(str(d[key]) for d in details.values() if d.get(key))))


def _unscored(details: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why verdicts are missing, in one sentence per student that lacks some."""
    out = []
    for label, found in details.items():
        reasons = found.get("unscored")
        if isinstance(reasons, Mapping) and reasons:
            listing = "; ".join(f"{count(n)} {reason}" for reason, n in reasons.items())
            out.append(f"{label}: {count(found.get('n_scored'))} of {count(found.get('n_rows'))} scored ({listing}).")
    return out


def _rates(results: RunResults, suite: str, rows: Sequence[Subject]) -> Plot:
    shown = [m for m in MAIN if any((s.label, suite, m) in results.measures for s in rows)] or ["win_rate"]
    found = [(s.label, i, m, results.measures.get((s.label, suite, m))) for s in rows for i, m in enumerate(shown)]
    legend = [{"win_rate": "raw", "win_rate_lc": "length-controlled"}[m] for m in shown]
    dots = [
        Dot(label, m.value if m else None, m.low if m else None, m.high if m else None, i, SERIES_SHAPES[i])
        for label, i, _, m in found
    ]
    words = "; ".join(f"{label} {name} {number(m.value if m else None)}" for label, _, name, m in found)
    title = f"{suite}, win rate, %"
    name = f"win-rate-{suite}"
    half = [(0.5, "one half")]
    svg = forest(name, title, f"Win rates with 95% intervals: {words}.", dots, dashes=half, legend=legend)
    header = ("model", "metric", "value", "low", "high", "n", "unscored")
    records = tuple((label, name, m.value, m.low, m.high, m.n, m.unscored) for label, _, name, m in found if m)
    return Plot(name, title, "95% intervals over items; the table has the numbers.", svg, header, records)


def _table(results: RunResults, suite: str, rows: Sequence[Subject], details: Mapping[str, Mapping[str, Any]]) -> Table:
    heads = (
        Column("Model", numeric=False),
        Column("win rate, %", "95% interval"),
        Column("length-controlled, %", "95% interval"),
        Column("range over penalties", "and over shapes, %"),
        Column("overlap", "longer, shorter, effective n"),
        Column("length-matched, %", "answers within 10%"),
    )
    body, records = [], []
    for s in rows:
        found = details[s.label].get("length_controlled") or {}
        related = (str(details[s.label]["related"]),) if details[s.label].get("related") else ()
        raw, controlled = (results.measures.get((s.label, suite, metric)) for metric in MAIN)
        lc = value_cell(controlled, "percent")
        if controlled is None or controlled.value is None:
            lc = Cell(MISSING, tuple(str(found[key]) for key in ("reason",) if found.get(key)))
        penalties, shapes = _range(found.get("penalty_range")), _range(found.get("form_range"))
        shared = found.get("overlap") or {}
        shares = f"{number(shared.get('longer'))}, {number(shared.get('shorter'))}" if shared else MISSING
        effective = (f"n {count(shared.get('effective_n'))} of {count(shared.get('n'))}",) if shared else ()
        cells: tuple[Cell, ...] = (Cell(interval(*penalties), (interval(*shapes),)), Cell(shares, effective))
        numbers = [(m.value, m.low, m.high, m.n) if m else (None,) * 4 for m in (raw, controlled)]
        overlap = (shared.get("longer"), shared.get("shorter"), shared.get("effective_n"))
        matched = details[s.label].get("length_matched") or {}
        close = tuple(matched.get(part) for part in ("value", "low", "high", "n"))
        cells += (share_cell(matched or None),)
        body.append((Cell(s.label, related, strong=True), value_cell(raw, "percent"), lc, *cells))
        records.append(
            (s.label, *numbers[0], *numbers[1], *penalties, *shapes, *overlap, *close, related[0] if related else None)
        )
    header = ("model", *(f"{a}_{b}" for a in MAIN for b in ("value", "low", "high", "n")))
    header += ("penalty_low", "penalty_high", "form_low", "form_high", "longer", "shorter", "effective_n")
    header += ("matched", "matched_low", "matched_high", "matched_n", "related")
    return Table(f"judge-{suite}", f"{suite}: win rates", heads, tuple(body), (CONTROL,), header, tuple(records))


def _range(found: object) -> tuple[float | None, float | None]:
    if isinstance(found, list | tuple) and len(found) == 2:
        return finite(found[0]), finite(found[1])
    return None, None


def _bins(found: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    bins = found.get(key)
    return [row for row in bins if isinstance(row, Mapping) and row.get("n")] if isinstance(bins, list | tuple) else []


def _bin_name(row: Mapping[str, Any]) -> str:
    low, high = finite(row.get("low")), finite(row.get("high"))
    if low is None:
        return "all" if high is None else f"under {count(high)}"
    return f"from {count(low)}" if high is None else f"{count(low)} to {count(high)}"


def _by_own(suite: str, label: str, found: Mapping[str, Any]) -> Plot | None:
    bins = _bins(found, "by_student_length")
    if not bins:
        return None
    dots = [_dot(row) for row in bins]
    title = f"{label}: win rate by its length, %"
    return _length_plot(f"length-own-{suite}-{label}", title, OWN, dots, [(label, row) for row in bins], ())


def _dot(row: Mapping[str, Any], series: int = 0) -> Dot:
    found = row.get("estimate") or {}
    return Dot(
        _bin_name(row), found.get("value"), found.get("low"), found.get("high"), series, SERIES_SHAPES[series % 5]
    )


def _by_fixed(suite: str, details: Mapping[str, Mapping[str, Any]], opponent: str) -> list[Plot]:
    """One picture for all students, or one each where unscored items moved the edges of the bins."""
    groups: dict[tuple[str, ...], list[tuple[str, Mapping[str, Any]]]] = {}
    for label, found in details.items():
        rows = _bins(found, "by_base_length")
        groups.setdefault(tuple(_bin_name(row) for row in rows), []).extend((label, row) for row in rows)
    kept = [rows for rows in groups.values() if rows]
    caption = (FIXED if len(kept) < 2 else MOVED).format(other=opponent)
    return [_fixed_plot(suite, rows, opponent, caption) for rows in kept]


def _fixed_plot(suite: str, rows: Sequence[tuple[str, Mapping[str, Any]]], opponent: str, caption: str) -> Plot:
    labels = list(dict.fromkeys(label for label, _ in rows))
    dots = [_dot(row, labels.index(label)) for label, row in rows]
    legend = labels if len(labels) > 1 else []
    title = f"{'' if legend else labels[0] + ': '}win rate by the length of {opponent}, %"
    return _length_plot(f"length-fixed-{suite}", title, caption, dots, rows, legend)


def _length_plot(
    name: str,
    title: str,
    caption: str,
    dots: Sequence[Dot],
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    legend: Sequence[str],
) -> Plot:
    words = "; ".join(
        f"{label} {_bin_name(row)} {number((row.get('estimate') or {}).get('value'))} n {count(row.get('n'))}"
        for label, row in rows
    )
    svg = forest(
        name, title, f"Win rate per bin of characters: {words}.", dots, dashes=[(0.5, "one half")], legend=legend
    )
    keys = ("from", "below", "value", "low", "high", "n")
    records: list[tuple[Value, ...]] = []
    for label, row in rows:
        found = row.get("estimate") or {}
        numbers = (found.get("value"), found.get("low"), found.get("high"), row.get("n"))
        records.append((label, row.get("low"), row.get("high"), *numbers))
    sizes = sorted(int(row["n"]) for _, row in rows)
    text = f"{caption} Characters; n {_span(sizes)} per bin."
    return Plot(name, title, text, svg, ("model", *keys), tuple(records))


def _span(sizes: Sequence[int]) -> str:
    return f"{sizes[0]:,}" if sizes[0] == sizes[-1] else f"{sizes[0]:,} to {sizes[-1]:,}"


def _health(results: RunResults, suite: str, rows: Sequence[Subject], shown: Sequence[tuple[str, str, str]]) -> Table:
    heads = [Column("Model", numeric=False)]
    heads += [Column(title + ", %" * (unit(results, suite, metric) == "percent"), sub) for metric, title, sub in shown]
    body = []
    for s in rows:
        cells = [
            value_cell(results.measures.get((s.label, suite, metric)), unit(results, suite, metric), with_n=True)
            for metric, _, _ in shown
        ]
        body.append((Cell(s.label, strong=True), *cells))
    return Table(f"judge-{suite}-traits", f"{suite}: flips, position, ties, length", tuple(heads), tuple(body))
