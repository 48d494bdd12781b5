"""A scalar for every rollout: what ranks the answers that preference objectives learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.cells import Cell
from harness.records import Unscored
from harness.stages.generate import load
from harness.store import row_key


def mean_log_likelihood(log_probs: Sequence[float]) -> float | None:
    """PAD's normalised log-likelihood reward (eq. 7): the mean over the scored tokens, None without any."""
    return sum(log_probs) / len(log_probs) if log_probs else None


def fill(cell: Cell, context: Any) -> None:
    """Rows {key, item, sample, value, reason}; value None means that the answer has no reward and enters no pair."""
    with context.store.writer(cell.ref, cell.spec, on_wait=context.progress.say) as writer:
        context.progress.start("rewards", cell.rows, len(writer.keys))
        for item, sample, value, reason in _values(cell, context):
            row = {"key": row_key(cell.ref.key, item, sample), "item": item, "sample": sample, "value": value}
            if writer.append({**row, "reason": reason}):
                context.progress.advance()
        writer.finish(items=cell.items)
        context.progress.finish()


def _values(cell: Cell, context: Any) -> list[tuple[str, int, float | None, str | None]]:
    wanted = set(cell.items)
    if cell.spec["reward"] == "likelihood":
        return [
            (row["item"], row["sample"], value, None if value is not None else "no scored token")
            for row in context.store.rows(cell.work["of"])
            if row["item"] in wanted
            for value in (mean_log_likelihood(row["log_probs"]),)
        ]
    items = {example.item.id: example.item for example in cell.work["examples"]}
    found = []
    for answer in load(context.store, cell.work["of"]):
        if answer.item in wanted:
            value = cell.work["metric"](answer.text, items[answer.item])
            failed = isinstance(value, Unscored)
            found.append(
                (answer.item, answer.sample, None if failed else float(value), value.reason if failed else None)
            )
    return found
