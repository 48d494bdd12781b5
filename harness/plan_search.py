"""Learning rates chosen on the dev split: the same budget of tries for every objective, never a test item."""

from __future__ import annotations

import math
from collections.abc import Mapping

from harness.cell_book import CellBook
from harness.cells import is_done
from harness.experiment import Search, Student, SuiteUse
from harness.records import UsageError
from harness.sources import LoadedSuite, load_suite
from harness.store import CellRef


def with_rate(student: Student, rate: float) -> Student:
    """The student with one learning rate."""
    return student.model_copy(update={"training": student.training.model_copy(update={"lr": rate})})


def dev_suite(book: CellBook, name: str) -> LoadedSuite:
    """The suite of the dev split. UsageError where the experiment has none."""
    dev = book.experiment.data.dev
    if dev is None or dev.suite is None:
        raise UsageError(
            f"students.{name}.training.lr searches: data.dev must name a suite whose dev split knows truth"
        )
    use = SuiteUse.model_validate({"suite": dev.suite, "limit": dev.limit, "split": dev.split})
    return load_suite(f"{dev.suite}:{dev.split}", use, book.near)


def dev_scores(book: CellBook, scores: Mapping[float, CellRef]) -> dict[float, float | None]:
    """Mean primary score on dev of every rate tried; None where its cells are not done yet."""
    found: dict[float, float | None] = {}
    for rate, ref in scores.items():
        cell = book.cells[ref]
        found[rate] = None
        if is_done(cell, book.store):
            primary, wanted = cell.work["suite"].suite.primary, set(cell.items)
            values = [
                row["value"] for row in book.store.rows(ref) if row["metric"] == primary and row["item"] in wanted
            ]
            known = [value for value in values if value is not None]
            found[rate] = math.fsum(known) / len(known) if known else 0.0
    return found


def best_rate(search: Search, scores: Mapping[float, float | None]) -> float | None:
    """The rate with the best dev score, the smallest one of a tie; None while any score is missing."""
    if any(scores[rate] is None for rate in search.search):
        return None
    return max(sorted(search.search), key=lambda rate: scores[rate] or 0.0)
