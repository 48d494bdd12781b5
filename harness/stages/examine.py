"""Fill the cells of scores: every metric of a suite for every answer. No model is loaded."""

from __future__ import annotations

from typing import Any

from harness.cells import Cell
from harness.stages.generate import load
from harness.stages.score import score_rows
from harness.store import row_key


def fill(cell: Cell, context: Any) -> None:
    """Rows {key, item, sample, metric, value, reason}; value None is unscored, with its reason."""
    loaded = cell.work["suite"]
    wanted = set(cell.items)
    answers = [answer for answer in load(context.store, cell.work["of"]) if answer.item in wanted]
    with context.store.writer(cell.ref, cell.spec, on_wait=context.progress.say) as writer:
        context.progress.start(f"scores: {cell.label}", cell.rows, len(writer.keys))
        for score in score_rows(loaded.suite, answers, name=loaded.name):
            row = {
                "key": row_key(cell.ref.key, score.item, score.sample, score.metric),
                "item": score.item,
                "sample": score.sample,
                "metric": score.metric,
                "value": score.value,
                "reason": score.reason,
            }
            if writer.append(row):
                context.progress.advance()
        writer.finish(items=cell.items, lineage=context.lineage(cell))
        context.progress.finish()
