"""A run as a report sees it: base, teacher, sft and dpo on the playground and GSM8K. No randomness, no files."""

import math
from dataclasses import replace
from pathlib import Path

from harness.records import Comparison, GateResult, Measure
from harness.results import RunResults, Subject
from reports import page
from reports.blocks import Cell, Details, Table

N = {"playground": 600, "gsm8k": 200}
RIGHT = {
    ("playground", "exact_match"): {"base": 503, "teacher": 571, "sft": 529, "dpo": 531},
    ("playground", "format"): {"base": 548, "teacher": 598, "sft": 596, "dpo": 591},
    ("gsm8k", "official"): {"base": 31, "teacher": 118, "sft": 80, "dpo": 79},
    ("gsm8k", "strict"): {"base": 30, "teacher": 117, "sft": 80, "dpo": 78},
    ("gsm8k", "flexible"): {"base": 74, "teacher": 124, "sft": 84, "dpo": 96},
    ("gsm8k", "numeric"): {"base": 77, "teacher": 126, "sft": 85, "dpo": 97},
    ("gsm8k", "format"): {"base": 68, "teacher": 188, "sft": 184, "dpo": 165},
    ("gsm8k", "truncated"): {"base": 22, "teacher": 1, "sft": 3, "dpo": 9},
}
PRIMARY = ("playground/exact_match", "gsm8k/numeric")
SUBJECTS = (
    Subject("base", "base", "base"),
    Subject("teacher", "teacher", "teacher"),
    Subject("sft", "student", "sft", 0, "sft", "base"),
    Subject("dpo", "student", "dpo", 0, "dpo", "sft"),
)
UNSCORED = {("dpo", "gsm8k", "numeric"): 3}


def wilson(right: int, n: int) -> tuple[float, float]:
    z = 1.959964
    center = (right + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(right * (n - right) / n + z * z / 4)
    return center - half, center + half


def measure(label: str, suite: str, metric: str, right: int) -> Measure:
    unscored = UNSCORED.get((label, suite, metric), 0)
    n = N[suite] - unscored
    return Measure(metric, right / n, *wilson(right, n), n, unscored)


def comparison(label: str, suite: str, metric: str, right: int, base: int, students: int = 2) -> Comparison:
    n = N[suite]
    difference = (right - base) / n
    error = math.sqrt(0.12 / n)
    p = math.erfc(abs(difference) / error / math.sqrt(2))
    primary = f"{suite}/{metric}" in PRIMARY
    adjusted = min(1.0, p * students) if primary and label != "teacher" else None
    ends = (difference - 1.96 * error, difference + 1.96 * error)
    adjustment = None if adjusted is None else "Holm"
    tail = (p, adjusted, adjustment, n, 1, "checkpoint", "Tango's score interval")
    return Comparison(suite, metric, "base", label, difference, *ends, *tail)


def training(label: str, steps: int = 62) -> tuple[dict[str, float], ...]:
    def row(step: int) -> dict[str, float]:
        wave = 0.05 * math.sin(2.3 * step) + 0.03 * math.sin(7.1 * step)
        if label == "sft":
            return {"step": step, "loss": 1.9 * math.exp(-step / 14) + 0.42 + wave, "grad_norm": 1.1 + wave * 4}
        loss = math.log(2) * math.exp(-step / 40) + wave / 2
        margin = 0.03 * step + wave
        rates = {"accuracy": 1 / (1 + math.exp(-margin)), "margin": margin, "grad_norm": 2.4 + 8 * wave}
        return {
            "step": step,
            "loss": loss,
            **rates,
            "kl": 0.004 * step + abs(wave) / 9,
            "lr": 1e-4 * (1 - step / steps),
        }

    return tuple(row(step) for step in range(1, steps + 1))


def ledger() -> tuple[dict[str, object], ...]:
    def row(subject: str, kind: str, rows: int, seconds: float, tokens: int, cached: bool, **more: object) -> dict:
        entry = {"kind": kind, "subject": subject, "rows": rows, "seconds": seconds, "tokens": tokens}
        return {**entry, "cached": cached, **more}

    out = [row("shared", "rollouts", 4000, 96.4, 152_311, True, peak_memory_mb=610.2)]
    out.append(row("shared", "rewards", 4000, 41.0, 198_204, True, peak_memory_mb=580.0))
    for label in ("sft", "dpo"):
        out.append(row(label, "train", 62, 27.9, 40_113, False, peak_memory_mb=1454.1))
    for label in ("base", "teacher", "sft", "dpo"):
        for suite, n in N.items():
            out.append(row(label, "generate", n, n / 31, n * 41, label in ("base", "teacher"), suite=suite))
            out.append(row(label, "score", 2 * n, n / 4000, 0, label in ("base", "teacher"), suite=suite))
    return tuple(out)


def gates() -> tuple[GateResult, ...]:
    metric, numeric = PRIMARY
    by = {c.b: c for c in comparisons() if (c.suite, c.metric) == ("playground", "exact_match")}
    gsm = {c.b: c for c in comparisons() if (c.suite, c.metric) == ("gsm8k", "numeric")}

    def result(rule, metric, student, outcome, reason, c, **more) -> GateResult:
        return GateResult(rule, metric, student, outcome, reason, value=c.difference, low=c.low, high=c.high, **more)

    official = measure("dpo", "gsm8k", "official", 79)
    sft = measure("sft", "playground", "format", 596)
    return (
        result("better", metric, "dpo", "pass", "the interval lies above 0", by["dpo"], than="base"),
        result(
            "not_worse", numeric, "sft", "pass", "the interval lies above the margin of -2.0", gsm["sft"], than="base"
        ),
        GateResult(
            *("min", "gsm8k/official", "dpo", "fail", "the whole interval lies below the minimum of 50.0"),
            value=official.value,
            low=official.low,
            high=official.high,
        ),
        result(
            *("better", numeric, "sft", "inconclusive", "the interval holds 0", gsm["sft"]),
            than="base",
            needed=1240,
        ),
        GateResult(
            *("max", "playground/format", "sft", "inconclusive", "the interval holds the maximum of 99.5", "warn"),
            value=sft.value,
            low=sft.low,
            high=sft.high,
        ),
    )


def measures() -> dict[tuple[str, str, str], Measure]:
    rows = [(suite, metric, label, n) for (suite, metric), by in RIGHT.items() for label, n in by.items()]
    return {(label, suite, metric): measure(label, suite, metric, n) for suite, metric, label, n in rows}


def comparisons() -> tuple[Comparison, ...]:
    rows = [(suite, metric, label, n, by["base"]) for (suite, metric), by in RIGHT.items() for label, n in by.items()]
    return tuple(comparison(label, suite, metric, n, base) for suite, metric, label, n, base in rows if label != "base")


def experiment() -> dict[str, object]:
    return {
        "name": "quickstart",
        "seed": 0,
        "models": {"base": {"path": "playground/base"}, "teacher": {"path": "playground/teacher", "dtype": "float32"}},
        "rollouts": {"n": 4, "temperature": 0.8},
        "students": {
            "sft": {"objective": "sft", "targets": "teacher"},
            "dpo": {"objective": "dpo", "from": "sft", "params": {"beta": 0.1}, "training": {"lr": 1e-4}},
        },
        "suites": {"playground": {"limit": 600}, "gsm8k": {"limit": 200}},
        "compare": {"baseline": "base", "primary": list(PRIMARY)},
        "gates": [{"metric": "gsm8k/numeric", "student": "sft", "rule": "not_worse", "than": "base", "margin": 0.02}],
    }


def manifest() -> dict[str, object]:
    def suite(license: str, n: int) -> dict[str, object]:
        return {
            "version": "1",
            "license": license,
            "items": [str(i) for i in range(n)],
            "clusters": {},
            "prompts": "5d1e",
        }

    return {
        "name": "quickstart",
        "fingerprint": "6f1c2ab9",
        "subjects": [{"label": subject.label, "role": subject.role} for subject in SUBJECTS],
        "suites": {"playground": suite("Apache-2.0", 600), "gsm8k": suite("MIT", 200)},
        "examined": [{"subject": subject.label, "suite": name} for subject in SUBJECTS for name in N],
        "trained": {"sft": "77c0d1e9a2b3c4d5e6f7", "dpo": "04fe8d2c1b0a99887766"},
        "models": {"base": {"content": "3b1f09c2a7d4e5f6" * 4}, "teacher": {"content": "9d07aa41be6c33f2" * 4}},
        "cells": [{"kind": "train", "key": "77c0d1e9a2b3c4d5e6f7", "label": "sft", "rows": 62}],
        "versions": {"proctor": "0.1.0", "python": "3.11.9", "torch": "2.8.0", "transformers": "5.16.1"},
    }


def results(**changes: object) -> RunResults:
    """The realistic run, with any field replaced."""
    run = RunResults(
        name="quickstart",
        fingerprint="6f1c2ab9",
        folder=Path("runs/quickstart-6f1c2ab9"),
        experiment=experiment(),
        manifest=manifest(),
        subjects=SUBJECTS,
        baseline="base",
        primary=PRIMARY,
        measures=measures(),
        comparisons=comparisons(),
        gates=gates(),
        outcome="fail",
        ledger=ledger(),
        training={"sft": training("sft"), "dpo": training("dpo")},
        notes=("gsm8k covers its first 200 of 1,319 items.",),
    )
    return replace(run, **changes)


def empty() -> RunResults:
    """A run with no results at all."""
    nothing = {"subjects": (), "primary": (), "measures": {}, "comparisons": (), "gates": (), "outcome": None}
    return results(**nothing, ledger=(), training={}, notes=(), experiment={}, manifest={})


def wide(n: int = 12) -> RunResults:
    """`n` subjects: the base, the teacher and `n - 2` seeds of one student with a long name."""
    labels = [f"pad-ppd-lora seed {seed}" for seed in range(n - 2)]
    students = tuple(Subject(label, "student", "pad-ppd-lora", i, "pad", "base") for i, label in enumerate(labels))
    found, pairs = {}, []
    for (suite, metric), by in RIGHT.items():
        counts = {"base": by["base"], "teacher": by["teacher"]}
        counts |= {label: by["dpo"] - 4 + (3 * i) % 8 for i, label in enumerate(labels)}
        for label, right in counts.items():
            found[label, suite, metric] = measure(label, suite, metric, right)
            pairs.append(comparison(label, suite, metric, right, by["base"], n - 2))
    curves = {label: training("dpo", 62 + i) for i, label in enumerate(labels)}
    pairs = [pair for pair in pairs if pair.b != "base"]
    return results(subjects=SUBJECTS[:2] + students, measures=found, comparisons=tuple(pairs), training=curves)


def blocks_of(section: list, kind: type) -> list:
    """The blocks of one kind in a section, folded ones included."""
    inner = [b for block in section if isinstance(block, Details) for b in block.blocks]
    return [block for block in (*section, *inner) if isinstance(block, kind)]


def table(run: RunResults, name: str) -> Table:
    """A table of the report by its name."""
    found = [b for section in page.build(run) for b in blocks_of(list(section.blocks), Table) if b.name == name]
    return found[0]


def rows_by_model(found: Table) -> dict[str, tuple[Cell, ...]]:
    """A table's rows by the text of their first cell."""
    return {row[0].text: row[1:] for row in found.rows}
