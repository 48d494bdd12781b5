"""`proctor compare`: two runs, two students of runs, or two files of outputs, paired item by item."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.collect import collect, score_tables
from harness.compare import ScoreTable, compare
from harness.outputs import read_outputs
from harness.records import Comparison, ProctorError, UsageError
from harness.run import find_run, read_manifest
from harness.sources import LoadedSuite, load_suite
from harness.stages.score import score_value
from harness.store import Store


def comparisons(
    a: str, b: str | None, root: Path, *, suite: str | None = None, data: str | None = None, partial: bool = False
) -> list[Comparison]:
    """Differences b minus a. One run alone gives all its comparisons with its baseline.

    Raises UsageError where a side is neither a run nor a file, ProctorError where the two are not comparable.
    """
    if b is None:
        folder = find_run(a, root)
        rows = collect(folder, Store(folder.parent)).comparisons
        return [row for row in rows if suite is None or row.suite == suite]
    sides = [_side(text, root, suite, data, partial) for text in (a, b)]
    _same_prompts(sides, a, b)
    first, second = (side["tables"] for side in sides)
    shared = [key for key in first if key in second and (suite is None or key[0] == suite)]
    if not shared:
        raise ProctorError(f"{a} and {b} have no suite and metric in common: {_names(first)} against {_names(second)}")
    return [compare(first[key], second[key], partial=partial) for key in shared]


def _names(tables: Mapping[tuple[str, str], ScoreTable]) -> str:
    return ", ".join(f"{suite}/{metric}" for suite, metric in tables) or "nothing"


def _side(text: str, root: Path, suite: str | None, data: str | None, partial: bool) -> dict[str, Any]:
    """Tables by (suite, metric), and the hash of each suite's prompts."""
    path = Path(text)
    if path.is_file():
        if suite is None:
            raise UsageError(f"{text} is a file of outputs: say which suite it answers with --suite NAME")
        return _file_side(path, load_suite(suite, None, Path.cwd(), data), partial)
    name, _, student = text.partition(":")
    folder = find_run(name, root)
    manifest = read_manifest(folder)
    labels = [subject["label"] for subject in manifest["subjects"]]
    if not student:
        students = [subject["label"] for subject in manifest["subjects"] if subject["role"] == "student"]
        if len(students) != 1:
            raise UsageError(f"{text} has several students: write {name}:STUDENT, one of {', '.join(labels)}")
        student = students[0]
    if student not in labels:
        raise UsageError(f"{name} has no student {student!r}; it has {', '.join(labels)}")
    tables = {
        (s, metric): dataclasses.replace(table, subject=text)
        for (label, s, metric), table in score_tables(manifest, Store(folder.parent)).items()
        if label == student
    }
    return {"tables": tables, "prompts": {s: facts["prompts"] for s, facts in manifest["suites"].items()}}


def _file_side(path: Path, loaded: LoadedSuite, partial: bool) -> dict[str, Any]:
    items = {item.id: item for item in loaded.suite.items}
    outputs = {o.item: o.text for o in read_outputs(loaded.suite, path, partial=partial)}
    tables = {}
    for metric in loaded.suite.metrics:
        tables[loaded.name, metric] = ScoreTable(
            suite=loaded.name,
            metric=metric,
            subject=str(path),
            values={
                item: (score_value(loaded.suite, metric, text, items[item], loaded.name),)
                for item, text in outputs.items()
            },
            clusters={item.id: item.cluster for item in loaded.suite.items if item.cluster is not None},
            n_expected=len(items),
        )
    return {"tables": tables, "prompts": {loaded.name: loaded.prompts}}


def _same_prompts(sides: list[dict[str, Any]], a: str, b: str) -> None:
    first, second = (side["prompts"] for side in sides)
    for suite in first.keys() & second.keys():
        if first[suite] != second[suite]:
            raise ProctorError(
                f"{a} and {b} answered different prompts of {suite} (other versions, data or parameters of the suite), "
                "so their scores cannot be paired. Run both on the same suite."
            )
