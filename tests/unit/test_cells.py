"""A cell is done when it covers its items and descends from the weights that are there."""

from __future__ import annotations

from pathlib import Path

from harness.cells import Cell, is_done, is_stale, lineage
from harness.store import CellRef, Store


def make(kind: str, needs: tuple[CellRef, ...], items: tuple[str, ...] = ("a",)) -> Cell:
    spec = {"kind_of_test": kind, "needs": [need.key for need in needs]}
    return Cell(ref=CellRef.of(kind, spec), spec=spec, label=kind, items=items, rows=len(items), needs=needs)


def finish(store: Store, cell: Cell, **facts: object) -> None:
    with store.writer(cell.ref, cell.spec) as writer:
        for item in cell.items:
            writer.append({"key": item, "item": item})
        writer.finish(items=cell.items, lineage=lineage(cell, store), **facts)


def test_everything_that_descends_from_replaced_weights_is_stale(tmp_path: Path) -> None:
    store = Store(tmp_path)
    train = make("train", ())
    rollouts = make("rollouts", (train.ref,))
    rewards = make("rewards", (rollouts.ref,))
    other = make("generations", ())
    for cell, facts in ((train, {"weights": "w1"}), (rollouts, {}), (rewards, {}), (other, {})):
        finish(store, cell, **facts)
    assert all(is_done(cell, store) for cell in (train, rollouts, rewards, other))
    store.discard(train.ref)
    assert not is_stale(rollouts, store), "weights that are missing are no reason to throw answers away"
    finish(store, train, weights="w1")
    assert is_done(rollouts, store), "the same weights came out again"
    store.discard(train.ref)
    finish(store, train, weights="w2")
    assert is_stale(rollouts, store) and not is_done(rollouts, store)
    store.discard(rollouts.ref)
    finish(store, rollouts)
    assert is_stale(rewards, store), "through what lies between, too"
    assert is_done(other, store)


def test_more_items_are_not_done_and_not_stale(tmp_path: Path) -> None:
    store = Store(tmp_path)
    answers = make("generations", ())
    finish(store, answers)
    scores = make("scores", (answers.ref,))
    finish(store, scores)
    more = Cell(ref=answers.ref, spec=answers.spec, label="", items=("a", "b"), rows=2, needs=())
    assert not is_done(more, store)
    finish(store, more)
    assert is_done(more, store) and is_done(scores, store)
