"""Rows -> RunResults: every mean, interval and outcome of a run, recomputed. Needs no model, no data file, no judge."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from harness import collect_examination
from harness.compare import ScoreTable, adjust, compare, compare_seeds, evidence, evidence_seeds, measure
from harness.experiment import Experiment, Gate
from harness.gate import GateRule, decide, from_measure, overall
from harness.records import Comparison, GateResult, Measure, ProctorError, Row
from harness.results import RunResults, Subject
from harness.run import read_manifest
from harness.stats import MIN_SEEDS, Evidence
from harness.store import CellRef, Store

TRUNCATED = "truncated"
Tables = dict[tuple[str, str, str], ScoreTable]


def collect(folder: Path, store: Store) -> RunResults:
    """Everything that a run's report shows. ProctorError where its cells are not complete, or a student is its base."""
    manifest = read_manifest(folder)
    experiment = Experiment.model_validate(yaml.safe_load((folder / "experiment.yaml").read_text(encoding="utf-8")))
    subjects = tuple(Subject(**subject) for subject in manifest["subjects"])
    tables = score_tables(manifest, store)
    refuse_untouched(manifest, subjects, store)
    judged, details, preferences = collect_examination.judges(manifest, store)
    probed = collect_examination.probes(manifest, store)
    by_student = {s.student: [x for x in subjects if x.student == s.student] for s in subjects}
    given = {**judged, **probed}
    gates = tuple(_gate(gate, experiment, by_student, {**tables, **preferences}, given) for gate in experiment.gates)
    return RunResults(
        name=manifest["name"],
        fingerprint=manifest["fingerprint"],
        folder=folder,
        experiment=experiment.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        manifest=manifest,
        subjects=subjects,
        baseline=experiment.compare.baseline,
        primary=tuple(experiment.compare.primary),
        measures={**{key: measure(table) for key, table in tables.items()}, **given},
        comparisons=tuple(comparisons(experiment, by_student, tables, manifest)),
        gates=gates,
        outcome=overall(gates),
        ledger=tuple(_ledger(folder, manifest, store)),
        training={
            label: tuple(store.rows(CellRef("train", key))) for label, key in manifest.get("trained", {}).items()
        },
        notes=tuple(_notes(manifest, store)),
        judged=details,
        signal=collect_examination.signal(manifest, store),
        by_length=collect_examination.by_length(manifest, store, tables),
    )


def score_tables(manifest: Mapping[str, Any], store: Store) -> Tables:
    """One table per (subject, suite, metric) over the items of the run; truncation is a metric of every suite."""
    tables: Tables = {}
    for examined in manifest["examined"]:
        suite = manifest["suites"][examined["suite"]]
        items = set(suite["items"])
        rows = _rows(store, CellRef("scores", examined["scores"]), examined)
        found: dict[str, dict[str, dict[int, float | None]]] = {metric: {} for metric in suite["metrics"]}
        for row in rows:
            if row["item"] in items and row["metric"] in found:
                found[row["metric"]].setdefault(row["item"], {})[row["sample"]] = row["value"]
        cut: dict[str, dict[int, float | None]] = {}
        for row in _rows(store, CellRef("generations", examined["generations"]), examined):
            if row["item"] in items:
                cut.setdefault(row["item"], {})[row["sample"]] = float(row["finish_reason"] == "length")
        for metric, values in {**found, TRUNCATED: cut}.items():
            tables[examined["subject"], examined["suite"], metric] = ScoreTable(
                suite=examined["suite"],
                metric=metric,
                subject=examined["subject"],
                values={
                    item: tuple(samples[sample] for sample in sorted(samples))
                    for item, samples in sorted(values.items())
                },
                clusters=suite["clusters"],
                n_expected=len(items),
            )
    return tables


def _rows(store: Store, ref: CellRef, examined: Mapping[str, Any]) -> list[Row]:
    if store.done(ref) is None:
        raise ProctorError(
            f"{examined['subject']} on {examined['suite']} is not complete ({ref.kind}/{ref.key[:12]}). "
            "Run the experiment again: finished rows are kept."
        )
    return store.rows(ref)


def refuse_untouched(manifest: Mapping[str, Any], subjects: Sequence[Subject], store: Store) -> None:
    """ProctorError where a student answers every item of a suite exactly as what it starts from.

    The sign of an adapter that was never applied, or of weights that were never loaded: no result.
    """
    generations = {(e["subject"], e["suite"]): e["generations"] for e in manifest["examined"]}
    for subject in subjects:
        if subject.role != "student":
            continue
        parents = [s.label for s in subjects if s.student == (subject.parent or "base")]
        parent = next((p for p in parents if p.endswith(f"@{subject.seed}")), parents[0] if parents else None)
        for suite in manifest["suites"]:
            own, other = generations.get((subject.label, suite)), generations.get((parent or "", suite))
            if own is None or other is None:
                continue
            if own == other or _texts(store, own) == _texts(store, other):
                raise ProctorError(
                    f"student {subject.label!r} answers all {len(manifest['suites'][suite]['items'])} items of {suite} "
                    f"exactly as {parent!r}, which it starts from: its training changed nothing (an adapter that was "
                    "never applied, or a learning rate that is far too small). No result is shown."
                )


def _texts(store: Store, key: str) -> dict[tuple[str, int], str]:
    return {(row["item"], row["sample"]): row["text"] for row in store.rows(CellRef("generations", key))}


def comparisons(
    experiment: Experiment,
    by_student: Mapping[str, Sequence[Subject]],
    tables: Tables,
    manifest: Mapping[str, Any],
) -> list[Comparison]:
    """Every subject against the baseline on every metric. Primary metrics are families; the rest explores."""
    baseline = by_student[experiment.compare.baseline]
    found: list[Comparison] = []
    for suite, facts in manifest["suites"].items():
        explored: list[Comparison] = []
        for metric in [*facts["metrics"], TRUNCATED]:
            students: list[Comparison] = []
            for name, seeds in by_student.items():
                if name == experiment.compare.baseline:
                    continue
                rows = _against(seeds, baseline, suite, metric, tables, manifest)
                if seeds[0].role == "student":
                    students += rows
                else:
                    found += rows
            if f"{suite}/{metric}" in experiment.compare.primary:
                found += adjust(students, f"students against {experiment.compare.baseline} on {suite}/{metric}")
            else:
                explored += students
        found += adjust(explored, f"exploratory metrics of {suite}", "benjamini-hochberg")
    return found


def _against(
    seeds: Sequence[Subject],
    baseline: Sequence[Subject],
    suite: str,
    metric: str,
    tables: Tables,
    manifest: Mapping[str, Any],
) -> list[Comparison]:
    """Each checkpoint against the baseline's (of the same seed, if it has several); several seeds also as one claim."""
    rows = []
    for subject in seeds:
        partner = next((b for b in baseline if b.seed == subject.seed), baseline[0])
        rows.append(compare(tables[partner.label, suite, metric], tables[subject.label, suite, metric], partial=True))
    if len(seeds) > 1:
        mine = {s.seed or 0: tables[s.label, suite, metric] for s in seeds}
        theirs = {s.seed or 0: tables[s.label, suite, metric] for s in baseline}
        if len(theirs) > 1 and theirs.keys() != mine.keys():
            return rows
        claim = "given_sample" if manifest["sampled"].get(seeds[0].student) else "objective"
        pooled = compare_seeds(theirs, mine, claim, partial=True)  # type: ignore[arg-type]
        rows.append(dataclasses.replace(pooled, a=baseline[0].student, b=f"{seeds[0].student}, {len(seeds)} seeds"))
    return rows


def _gate(
    gate: Gate,
    experiment: Experiment,
    by_student: Mapping[str, Sequence[Subject]],
    tables: Tables,
    given: Mapping[tuple[str, str, str], Measure],
) -> GateResult:
    """One gate over every seed of its student; the worst counts. Judges only warn until they carry a certificate."""
    suite, _, metric = gate.metric.rpartition("/")
    judge = suite.startswith("judges/")
    paired = gate.rule in ("better", "not_worse") and not judge
    than = (gate.than or experiment.compare.baseline) if paired else None
    rule = GateRule(
        metric=gate.metric,
        student=gate.student,
        rule=gate.rule,
        than=than,
        margin=gate.margin,
        value=gate.value,
        level="warn" if judge else gate.level,
        claim=gate.claim,
        coverage=gate.coverage,
    )
    seeds = by_student[gate.student]
    if gate.claim == "objective":
        if len(seeds) < MIN_SEEDS or than is None:
            raise ProctorError(
                f"the gate on {gate.metric} claims the objective: that needs at least {MIN_SEEDS} seeds of "
                f"{gate.student} (it has {len(seeds)}) and a comparator. Use --seeds {MIN_SEEDS}, or claim: checkpoint."
            )
        mine = {s.seed or 0: tables[s.label, suite, metric] for s in seeds}
        theirs = {s.seed or 0: tables[s.label, suite, metric] for s in by_student[than]}
        return decide(rule, [evidence_seeds(mine, theirs, label=f"{gate.student} ({len(seeds)} seeds)")])
    found: list[Evidence] = []
    for subject in seeds:
        where = (subject.label, suite, metric)
        if where not in tables and where in given:
            found.append(from_measure(given[where], label=subject.label))
            continue
        if where not in tables:
            known = sorted({f"{s}/{m}" for _, s, m in [*tables, *given]})
            raise ProctorError(f"the gate on {gate.metric} has nothing to read: the metrics are {', '.join(known)}")
        partner = None
        if than is not None:
            other = next((s for s in by_student[than] if s.seed == subject.seed), by_student[than][0])
            partner = tables[other.label, suite, metric]
        found.append(evidence(tables[where], partner, win_rate=judge))
    return decide(rule, found)


def _ledger(folder: Path, manifest: Mapping[str, Any], store: Store) -> list[Row]:
    """One row per cell of the run; `cached` where an earlier run paid for it."""
    own: set[str] = set()
    events = folder / "events.jsonl"
    if events.is_file():
        for line in events.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except ValueError:  # the line that was being written when the process died
                continue
            if event.get("event") == "done":
                own.add(event["key"])
    rows = []
    for cell in manifest["cells"]:
        marker = store.done(CellRef(cell["kind"], cell["key"])) or {}
        row = {"kind": cell["kind"], "subject": cell["label"], "cached": cell["key"] not in own}
        row |= {name: marker[name] for name in ("rows", "seconds", "tokens", "peak_memory_mb") if name in marker}
        rows.append(row)
    return rows


def _notes(manifest: Mapping[str, Any], store: Store) -> list[str]:
    """What a reader must know: examples that were dropped from training."""
    notes = []
    for label, key in manifest.get("trained", {}).items():
        marker = store.done(CellRef("train", key)) or {}
        for reason, count in sorted((marker.get("dropped") or {}).items()):
            total = marker["groups"] + sum(marker["dropped"].values())
            notes.append(f"{label} was trained without {count:,} of {total:,} prompts: {reason}.")
    return notes
