"""Preference pairs from rollouts: best against worst by reward, with where each preference came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.cells import Cell
from harness.records import Generation, Row
from harness.stages.generate import load
from harness.store import row_key


def best_against_worst(
    answers: Sequence[Generation], rewards: Mapping[int, float | None]
) -> tuple[Generation, Generation] | str:
    """The answer with the highest and the one with the lowest reward, or the reason why there is no pair.

    `rewards` by sample. Ties go to the lower sample number. Equal texts and equal rewards make no preference
    (PAD, appendix B.3, pairs maximum against minimum).
    """
    scored = [answer for answer in answers if rewards.get(answer.sample) is not None and answer.token_ids]
    if len(scored) < 2:
        return "fewer than two scored answers"
    by_reward = sorted(scored, key=lambda answer: (-float(rewards[answer.sample] or 0.0), answer.sample))
    best, worst = by_reward[0], by_reward[-1]
    if best.token_ids == worst.token_ids:
        return "all answers alike"
    if rewards[best.sample] == rewards[worst.sample]:
        return "all rewards alike"
    return best, worst


def fill(cell: Cell, context: Any) -> None:
    """Rows {key, item, chosen, rejected, preference_source, preference_basis}; dropped items are counted by reason."""
    wanted = set(cell.items)
    rewards: dict[str, dict[int, float | None]] = {}
    for row in context.store.rows(cell.work["rewards"]):
        rewards.setdefault(row["item"], {})[row["sample"]] = row["value"]
    answers: dict[str, list[Generation]] = {}
    for answer in load(context.store, cell.work["rollouts"]):
        if answer.item in wanted:
            answers.setdefault(answer.item, []).append(answer)
    dropped: Counter[str] = Counter()
    with context.store.writer(cell.ref, cell.spec, on_wait=context.progress.say) as writer:
        context.progress.start("pairs", len(wanted))
        for item in cell.items:
            pair = best_against_worst(answers.get(item, []), rewards.get(item, {}))
            if isinstance(pair, str):
                dropped[pair] += 1
                continue
            writer.append(_row(cell, item, *pair, rewards[item]))
            context.progress.advance()
        writer.finish(items=cell.items, dropped=dict(dropped), lineage=context.lineage(cell))
        context.progress.finish()


def _row(cell: Cell, item: str, best: Generation, worst: Generation, rewards: Mapping[int, float | None]) -> Row:
    def side(answer: Generation) -> Row:
        return {"sample": answer.sample, "text": answer.text, "reward": rewards[answer.sample]}

    high, low = rewards[best.sample], rewards[worst.sample]
    return {
        "key": row_key(cell.ref.key, item),
        "item": item,
        "chosen": side(best),
        "rejected": side(worst),
        "preference_source": cell.work["source"],
        "preference_basis": f"reward {high:.6g} against {low:.6g}, the highest and lowest of {len(rewards)} rollouts",
    }
