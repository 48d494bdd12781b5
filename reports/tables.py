"""The comparison of all subjects on all metrics, as blocks for the page and as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.records import Comparison, GateResult, Measure
from harness.results import RunResults, Subject
from reports.blocks import Cell, Column, Table, Tone, Value
from reports.text import MISSING, Unit, count, finite, interval, line, listed, number, p_value, plural

MARKS = {"pass": "✓ pass", "fail": "✕ fail", "inconclusive": "? inconclusive"}
RULES = {
    "better": "must be better than {than} on {metric}",
    "not_worse": "must not be worse than {than} on {metric}",
    "min": "must reach its minimum on {metric}",
    "max": "must stay below its maximum on {metric}",
}
SIGNIFICANT = 0.05
HEADER = (
    *("subject", "role", "suite", "metric", "primary", "value", "low", "high", "n", "unscored", "baseline"),
    *("difference", "difference_low", "difference_high", "p", "p_adjusted", "adjustment", "n_items", "n_seeds"),
    *("claim", "method"),
)


def metrics(results: RunResults) -> list[tuple[str, str]]:
    """Every (suite, metric): the primary ones first, in the order in which they were named, then the others."""
    primary = [split(name) for name in results.primary]
    seen = [(suite, metric) for _, suite, metric in results.measures]
    compared = [(comparison.suite, comparison.metric) for comparison in results.comparisons]
    return list(dict.fromkeys([*primary, *seen, *compared]))


def split(name: str) -> tuple[str, str]:
    """`suite/metric` as its two parts; the suite may hold slashes of its own (`probes/are_you_sure/harm`)."""
    suite, _, metric = name.rpartition("/")
    return suite, metric


def unit(results: RunResults, suite: str, metric: str) -> Unit:
    """Percent for a rate; plain where any value leaves [0, 1], as an average of 1-10 marks does."""
    found = (finite(measure.value) for (_, s, m), measure in results.measures.items() if (s, m) == (suite, metric))
    return "percent" if all(value is None or 0 <= value <= 1 for value in found) else "plain"


def find(results: RunResults, suite: str, metric: str, label: str) -> Comparison | None:
    """The comparison of `label` with the baseline on one metric: the first, where several make different claims."""
    key = (suite, metric, results.baseline, label)
    return next((c for c in results.comparisons if (c.suite, c.metric, c.a, c.b) == key), None)


def subjects(results: RunResults) -> list[Subject]:
    """The rows of every table: the run's subjects, then students that are compared over all their seeds at once."""
    labels = {subject.label for subject in results.subjects} | {results.baseline}
    pooled = dict.fromkeys(c.b for c in results.comparisons if c.b not in labels)
    return [*results.subjects, *(Subject(label, "student", label) for label in pooled)]


def comparison_table(results: RunResults, name: str, caption: str, columns: Sequence[tuple[str, str]]) -> Table:
    """Subjects down, `columns` across: value and interval, then the paired difference to the baseline.

    Numbers are rounded in the cells and whole in the CSV; a difference is strong if its adjusted p is below 0.05.
    """
    rows = subjects(results)
    heads: list[Column] = [Column("Model", numeric=False)]
    for suite, metric in columns:
        percent = unit(results, suite, metric) == "percent"
        sizes = {m.n for (_, s, x), m in results.measures.items() if (s, x) == (suite, metric)}
        size = f", n {count(min(sizes))}" if len(sizes) == 1 else ""
        group = f"{suite}/{metric}"
        heads.append(Column("value" + ", %" * percent, f"95% interval{size}", group))
        heads.append(Column(f"vs {results.baseline}" + ", points" * percent, "95% interval, p", group))
    body = []
    for subject in rows:
        cells = [Cell(subject.label, (about(results, subject),), strong=True)]
        for suite, metric in columns:
            sizes = {m.n for (_, s, x), m in results.measures.items() if (s, x) == (suite, metric)}
            measure = results.measures.get((subject.label, suite, metric))
            cells.append(value_cell(measure, unit(results, suite, metric), with_n=len(sizes) > 1))
            cells.append(_difference_cell(results, suite, metric, subject.label))
        body.append(tuple(cells))
    records = tuple(_record(results, subject, *column) for column in columns for subject in rows)
    return Table(name, caption, tuple(heads), tuple(body), _notes(results, columns), HEADER, records)


def value_cell(measure: Measure | None, unit: Unit, with_n: bool = False) -> Cell:
    """A value with its interval; what is missing or unscored is said in words."""
    if measure is None:
        return Cell(MISSING)
    sub = [interval(measure.low, measure.high, unit) + (f", n {count(measure.n)}" if with_n else "")]
    if measure.unscored:
        share = measure.n / (measure.n + measure.unscored)
        sub.append(f"{count(measure.unscored)} unscored, {100 * share:.1f}% covered")
    return Cell(number(measure.value, unit), tuple(sub))


def about(results: RunResults, subject: Subject) -> str:
    """What a subject is, in a few words: `dpo from sft`, `teacher`, `base, baseline`."""
    words = subject.role if subject.objective is None else subject.objective
    if subject.parent is not None:
        words += f" from {subject.parent}"
    return words + ", baseline" * (subject.label == results.baseline)


def gate_title(gate: GateResult) -> str:
    """What a gate asks, as a sentence without its end."""
    rule = RULES.get(gate.rule, f"{gate.rule} on {{metric}}")
    than = gate.than or ("one half" if "win_rate" in gate.metric else "the baseline")
    return f"{gate.student} " + rule.replace("{than}", than).replace("{metric}", gate.metric)


def gate_number(results: RunResults, gate: GateResult) -> str:
    """The estimate a gate read, with its interval: a signed difference, or a level for `min`, `max` and win rates."""
    signed = gate.rule in ("better", "not_worse") and "win_rate" not in gate.metric
    kind = unit(results, *split(gate.metric))
    return f"{number(gate.value, kind, signed)} {interval(gate.low, gate.high, kind, signed)}"


def gate_table(results: RunResults) -> Table:
    """One row per gate: outcome, what was asked and the reason, the numbers."""
    heads = (
        Column("Outcome", numeric=False),
        Column("Gate", numeric=False),
        Column("Estimate", "95% interval"),
    )
    rows = []
    for gate in results.gates:
        why = [gate.reason]
        if gate.needed is not None:
            why.append(f"about {count(gate.needed)} items would decide")
        if gate.level == "warn":
            why.append("warns, decides nothing")
        tone: Tone = gate.outcome
        outcome = Cell(MARKS.get(gate.outcome, gate.outcome), strong=True, tone=tone)
        value, bounds = gate_number(results, gate).split(" ", 1)
        rows.append((outcome, Cell(gate_title(gate), ("; ".join(why),)), Cell(value, (bounds,))))
    fields = ("rule", "metric", "student", "than", "level", "outcome", "value", "low", "high", "needed", "reason")
    records = tuple(tuple(getattr(gate, field) for field in fields) for gate in results.gates)
    return Table("gates", "Gates", heads, tuple(rows), (), fields, records)


def console(results: RunResults) -> str:
    """What `proctor run` prints at its end: a table per primary metric (of all, if none is named), then the gates.

    Fits 80 columns with labels of up to 20 letters. Foreign text is cleaned of what could command a terminal.
    """
    parts = []
    for suite, metric in metrics(results)[: len(set(results.primary)) or None]:
        kind = unit(results, suite, metric)
        found = [(s, find(results, suite, metric, s.label)) for s in subjects(results)]
        adjusted = any(c is not None and c.p_adjusted is not None for _, c in found)
        rows = [["model", "value [95%]", f"vs {results.baseline} [95%]", "p adj." if adjusted else "p", "n"]]
        for subject, c in found:
            m = results.measures.get((subject.label, suite, metric))
            level = f"{number(m.value, kind)} {interval(m.low, m.high, kind)}" if m else MISSING
            p = p_value(c.p_adjusted if adjusted else c.p) if c else ""
            rows.append([subject.label, level, _signed(c, kind) if c else "", p, count(m.n if m else None)])
        parts.append("\n".join([f"{line(suite)}/{line(metric)}" + ", %" * (kind == "percent"), *_aligned(rows)]))
    gates = [
        f"{gate.outcome:<13}{line(gate_title(gate))}: {line(gate.reason)}" + " (warning)" * (gate.level == "warn")
        for gate in results.gates
    ]
    return "\n\n".join([*parts, "\n".join(gates)] if gates else parts)


def comparison_lines(comparisons: Sequence[Comparison]) -> str:
    """Comparisons of any pairs as aligned lines, for `proctor compare`."""
    rows = [["metric", "difference", "[95%]", "p", "p adj.", "n", "claim"]]
    notes = []
    for c in comparisons:
        percent = all(value is None or abs(value) <= 1 for value in (c.difference, c.low, c.high))
        difference, bounds = _signed(c, "percent" if percent else "plain").split(" ", 1)
        name = f"{c.suite}/{c.metric}: {c.b} minus {c.a}"
        rows.append(
            [
                name,
                difference + " points" * percent,
                bounds,
                p_value(c.p),
                p_value(c.p_adjusted),
                count(c.n_items),
                c.claim,
            ]
        )
        notes += [f"p adjusted by {c.adjustment}"] if c.adjustment else []
    return "\n".join([*_aligned(rows), *dict.fromkeys(line(note) for note in notes)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, the first column to the left, the others to the right."""
    clean = [[line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in clean) for i in range(len(clean[0]))]
    texts = (
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in clean
    )
    return ["  ".join(text).rstrip() for text in texts]


def _signed(comparison: Comparison, kind: Unit) -> str:
    bounds = interval(comparison.low, comparison.high, kind, signed=True)
    return f"{number(comparison.difference, kind, signed=True)} {bounds}"


def _difference_cell(results: RunResults, suite: str, metric: str, label: str) -> Cell:
    comparison = find(results, suite, metric, label)
    if comparison is None:
        return Cell("–" if label == results.baseline else MISSING)
    kind = unit(results, suite, metric)
    adjusted = comparison.p_adjusted
    p = f"p {p_value(comparison.p)}" + ("" if adjusted is None else f", adjusted {p_value(adjusted)}")
    unscored = (f"{plural(comparison.unscored, 'pair')} unscored",) if comparison.unscored else ()
    return Cell(_signed(comparison, kind), (p, *unscored), strong=adjusted is not None and adjusted < SIGNIFICANT)


def _record(results: RunResults, subject: Subject, suite: str, metric: str) -> tuple[Value, ...]:
    m = results.measures.get((subject.label, suite, metric))
    c = find(results, suite, metric, subject.label)
    primary = "yes" if f"{suite}/{metric}" in results.primary else "no"
    left = (subject.label, subject.role, suite, metric, primary)
    level = (m.value, m.low, m.high, m.n, m.unscored) if m else (None,) * 5
    if c is None:
        return (*left, *level, *(None,) * (len(HEADER) - 10))
    difference = (c.a, c.difference, c.low, c.high, c.p, c.p_adjusted, c.adjustment, c.n_items, c.n_seeds)
    return (*left, *level, *difference, c.claim, c.method)


def _notes(results: RunResults, columns: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Under the table: how to read a difference, and each family over which p was adjusted."""
    base = results.baseline
    notes = []
    methods: list[str] = []
    for suite, metric in columns:
        family = [c for c in results.comparisons if (c.suite, c.metric, c.a) == (suite, metric, base)]
        methods += [c.method for c in family if c.method]
        adjusted = [c for c in family if c.p_adjusted is not None]
        for adjustment in dict.fromkeys(c.adjustment or "a method not recorded" for c in adjusted):
            names = [c.b for c in adjusted if (c.adjustment or "a method not recorded") == adjustment]
            who = f"{listed(names)} against {base}" if len(names) < 6 else f"the {len(names)} differences from {base}"
            notes.append(f"{suite}/{metric}: p adjusted by {adjustment} over the family of {who}.")
    if methods:
        used = listed(list(dict.fromkeys(methods)))
        notes.insert(0, f"Differences are model minus {base} on the same items, with 95% intervals: {used}.")
    if any("adjusted" in note for note in notes):
        notes.append(f"Bold: adjusted p below {SIGNIFICANT}. Intervals and plain p are not adjusted.")
    return tuple(notes)
