"""Per-token log-probabilities that a model gives to answers: references, teachers' rewards, distillation."""

from __future__ import annotations

from typing import Any

from harness.cells import Cell
from harness.records import Generation, Prompt
from harness.sources import TrainingData
from harness.stages.generate import load
from harness.store import row_key

CHUNK = 512


def answers(cell: Cell, context: Any) -> list[tuple[Prompt, Generation]]:
    """What is scored: the answers of another cell, or the chosen (0) and rejected (1) sides of the data."""
    if cell.work["of"] is None:
        given = given_answers(cell.work["data"])
    else:
        given = {(g.item, g.sample): g for g in load(context.store, cell.work["of"])}
    return [(prompt, given[prompt.item, prompt.sample]) for prompt in cell.work["prompts"]]


def given_answers(data: TrainingData) -> dict[tuple[str, int], Generation]:
    """The chosen (sample 0) and rejected (sample 1) texts of preference data; they count as finished."""
    return {
        (example.item.id, side): Generation(example.item.id, side, 0, text or "", (), "stop", 0)
        for example in data.examples
        for side, text in enumerate((example.chosen, example.rejected))
    }


def fill(cell: Cell, context: Any) -> None:
    """Score what is missing. Rows: {key, item, sample, log_probs (nats, one per scored token)}."""
    with context.store.writer(cell.ref, cell.spec, on_wait=context.progress.say) as writer:
        jobs = [
            (key, prompt, answer)
            for prompt, answer in answers(cell, context)
            if (key := row_key(cell.ref.key, prompt.item, prompt.sample)) not in writer.keys
        ]
        context.progress.start(f"log-probs by {cell.label}", cell.rows, cell.rows - len(jobs))
        engine = context.engine(cell.model)
        jobs.sort(key=lambda job: len(job[2].token_ids) or len(job[2].text))
        for start in range(0, len(jobs), CHUNK):
            chunk = jobs[start : start + CHUNK]
            values = engine.log_probs([prompt for _, prompt, _ in chunk], [answer for _, _, answer in chunk])
            for (key, prompt, _), log_probs in zip(chunk, values, strict=True):
                rounded = [float(f"{value:.9g}") for value in log_probs]  # nine digits give float32 back exactly
                writer.append({"key": key, "item": prompt.item, "sample": prompt.sample, "log_probs": rounded})
            writer.sync()
            context.progress.advance(len(chunk))
        writer.finish(
            items=cell.items,
            lineage=context.lineage(cell),
            tokenizer_hash=engine.tokenizer_hash,
            tokens=sum(len(row["log_probs"]) for row in context.store.rows(cell.ref)),
        )
        context.progress.finish()
