"""A scalar for every rollout: what ranks the answers that preference objectives learn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.cells import Cell
from harness.records import Unscored
from harness.signals.choices import SELECTION_FLOOR, selection
from harness.stages.generate import load
from harness.store import row_key

Rewarded = tuple[str, int, float | None, dict[str, float], str | None]


def mean_log_likelihood(log_probs: Sequence[float]) -> float | None:
    """PAD's normalised log-likelihood reward (eq. 7): the mean over the scored tokens, None without any."""
    return math.fsum(log_probs) / len(log_probs) if log_probs else None


def calibrated(likelihood: float | None, selected: float | None, alpha: float) -> float | None:
    """PAD's eq. 9: (1 - alpha) * mean log-likelihood + alpha * log p_sel, p_sel no lower than SELECTION_FLOOR.

    A part with weight 0 is not needed; None where a part that is needed is missing.
    """
    total = 0.0
    for weight, part in ((1 - alpha, likelihood), (alpha, selected)):
        if weight == 0:
            continue
        if part is None:
            return None
        total += weight * (part if part is likelihood else math.log(max(part, SELECTION_FLOOR)))
    return total


def fill(cell: Cell, context: Any) -> None:
    """Rows {key, item, sample, value, parts, reason}; an answer whose value is None enters no preference."""
    with context.store.writer(cell.ref, cell.spec, on_wait=context.progress.say) as writer:
        context.progress.start(f"rewards: {cell.label}", cell.rows, len(writer.keys))
        for item, sample, value, parts, reason in _values(cell, context):
            key = row_key(cell.ref.key, item, sample)
            row = {"key": key, "item": item, "sample": sample, "value": value, "parts": parts, "reason": reason}
            if writer.append(row):
                context.progress.advance()
        writer.finish(items=cell.items, lineage=context.lineage(cell))
        context.progress.finish()


def _values(cell: Cell, context: Any) -> list[Rewarded]:
    if cell.spec["reward"] == "truth":
        return _truth(cell, context)
    alpha = cell.work["alpha"]
    likelihood: dict[tuple[str, int], float | None] = {}
    if alpha < 1:
        rows = context.store.rows(cell.work["log_probs"])
        likelihood = {(row["item"], row["sample"]): mean_log_likelihood(row["log_probs"]) for row in rows}
    selected: Mapping[tuple[str, int], float] = {}
    if alpha > 0:
        selected = selection(context.store.rows(cell.work["choices"]))
    wanted = set(cell.items)
    found: list[Rewarded] = []
    for answer in load(context.store, cell.work["rollouts"]):
        if answer.item in wanted:
            where = answer.item, answer.sample
            parts = {"mean_log_likelihood": likelihood.get(where), "selection": selected.get(where)}
            value = calibrated(parts["mean_log_likelihood"], parts["selection"], alpha)
            kept = {name: part for name, part in parts.items() if part is not None}
            found.append((*where, value, kept, None if value is not None else "no reward: see the cells it is made of"))
    return found


def _truth(cell: Cell, context: Any) -> list[Rewarded]:
    wanted = set(cell.items)
    items = {example.item.id: example.item for example in cell.work["examples"]}
    found: list[Rewarded] = []
    for answer in load(context.store, cell.work["of"]):
        if answer.item in wanted:
            value = cell.work["metric"](answer.text, items[answer.item])
            if isinstance(value, Unscored):
                found.append((answer.item, answer.sample, None, {}, value.reason))
            else:
                found.append((answer.item, answer.sample, float(value), {"truth": float(value)}, None))
    return found
