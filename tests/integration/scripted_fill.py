"""Fills one cell of answers with a scripted engine, no torch: the process that test_kill kills."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.cells import Cell
from harness.progress import Progress
from harness.records import Generation, Prompt, Sampling
from harness.stages import generate
from harness.store import CellRef, Store

SPEC = {"model": {"content": "scripted"}, "sampling": {"temperature": 0.0}}
ITEMS = tuple(f"item-{number}" for number in range(400))


class ScriptedEngine:
    tokenizer_hash = "scripted"

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Generation]:
        for prompt in prompts:
            time.sleep(0.0005)
            text = f"answer to {prompt.item} " + "long " * (hash(prompt.item) % 50)
            yield Generation(prompt.item, prompt.sample, 0, text, (1, 2, 3), "stop", 0)


class ScriptedContext:
    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.progress = Progress(quiet=True)

    def engine(self, model: Any) -> ScriptedEngine:
        return ScriptedEngine()

    def lineage(self, cell: Cell) -> str:
        return ""


def cell() -> Cell:
    prompts = [Prompt(item, (), sample) for item in ITEMS for sample in range(2)]
    return Cell(
        ref=CellRef.of("generations", SPEC),
        spec=SPEC,
        label="scripted",
        items=ITEMS,
        rows=len(prompts),
        needs=(),
        work={"prompts": prompts, "sampling": Sampling(n=2)},
    )


if __name__ == "__main__":
    generate.fill(cell(), ScriptedContext(Path(sys.argv[1])))
    assert "torch" not in sys.modules
    print("complete")
