"""Answers: rollouts, a teacher's responses, and students' answers to suites are the same work with other settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.cells import Cell
from harness.records import Generation, Prompt, Row, Sampling
from harness.store import CellRef, Store, row_key

SYNC_ROWS = 64


def generation_key(cell_key: str, prompt: Prompt | Generation) -> str:
    """The key of an answer's row."""
    return row_key(cell_key, prompt.item, prompt.sample, prompt.turn)


def fill(cell: Cell, context: Any) -> None:
    """Generate what is missing of a cell of answers."""
    sampling: Sampling = cell.work["sampling"]
    with context.store.writer(cell.ref, cell.spec, on_wait=context.progress.say) as writer:
        missing = [p for p in cell.work["prompts"] if generation_key(cell.ref.key, p) not in writer.keys]
        context.progress.start(f"{cell.ref.kind}: {cell.label}", cell.rows, cell.rows - len(missing))
        engine = context.engine(cell.model)
        for count, generation in enumerate(engine.generate(missing, sampling), start=1):
            writer.append(as_row(cell.ref.key, generation))
            context.progress.advance()
            if count % SYNC_ROWS == 0:
                writer.sync()
        rows = context.store.rows(cell.ref)
        writer.finish(
            items=cell.items,
            lineage=context.lineage(cell),
            tokenizer_hash=engine.tokenizer_hash,
            tokens=sum(len(row["token_ids"]) for row in rows),
            truncated=sum(row["finish_reason"] == "length" for row in rows),
        )
        context.progress.finish()


def as_row(cell_key: str, generation: Generation) -> Row:
    """A Generation as its row on disk."""
    return {
        "key": generation_key(cell_key, generation),
        "item": generation.item,
        "sample": generation.sample,
        "turn": generation.turn,
        "text": generation.text,
        "token_ids": list(generation.token_ids),
        "finish_reason": generation.finish_reason,
        "seed": generation.seed,
    }


def from_rows(rows: Iterable[Row], tokenizer_hash: str = "") -> list[Generation]:
    """Rows back to Generations, in the order of the rows."""
    return [
        Generation(
            item=row["item"],
            sample=row["sample"],
            turn=row["turn"],
            text=row["text"],
            token_ids=tuple(row["token_ids"]),
            finish_reason=row["finish_reason"],
            seed=row["seed"],
            tokenizer_hash=tokenizer_hash,
        )
        for row in rows
    ]


def load(store: Store, ref: CellRef) -> list[Generation]:
    """The answers of a finished cell."""
    return from_rows(store.rows(ref), str((store.done(ref) or {}).get("tokenizer_hash", "")))
