"""Files of finished outputs, `{"id" or "prompt", "output"}` rows, matched to the items of a suite."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.jsonl import read_jsonl
from harness.records import Item, ProctorError, Row, Suite


@dataclass(frozen=True, slots=True)
class Output:
    """One answer from a file. `text` is None where the file holds something that is no text: an answer, and wrong.

    `score` is the file's own score of the row, where it has such a column.
    """

    item: str
    text: str | None
    score: float | None = None


def read_outputs(suite: Suite, path: str | Path, *, partial: bool = False) -> Iterator[Output]:
    """Yield the outputs of a .jsonl or .jsonl.gz file in its order, each matched to an item of the suite.

    A row names its item by `id` (text or integer) or by `prompt` (see `prompt_keys`). Raises ProctorError with file
    and line for broken lines, wrong columns, unknown, ambiguous or repeated items, a file without rows and, unless
    `partial`, items without an output. That last error comes at the end: use no value before the iterator is spent.
    """
    path = Path(path)
    finder = _Finder(suite)
    line_of: dict[str, int] = {}
    line = 0
    for line, row in read_jsonl(path):
        item = finder.item_id(row, f"{path}:{line}")
        if item in line_of:
            raise ProctorError(
                f"{path}:{line}: a second output for item {item!r}; the first is in line {line_of[item]}"
            )
        line_of[item] = line
        if "output" not in row:
            raise ProctorError(f"{path}:{line}: no column 'output'; the row has columns {', '.join(map(repr, row))}")
        text = row["output"]
        yield Output(item, text if isinstance(text, str) else None, _score(row, f"{path}:{line}"))
    if not line_of:
        raise ProctorError(f"{path}:{line + 1}: holds no outputs")
    missing = [item.id for item in suite.items if item.id not in line_of]
    if missing and not partial:
        named = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ProctorError(
            f"{path}:{line}: the file ends with {len(missing)} of {len(suite.items)} items without an output "
            f"(id {named}); add them, or give --partial to score only what is there"
        )


def prompt_keys(item: Item) -> tuple[str, ...]:
    """The texts by which a file may name an item, without surrounding whitespace.

    They are the last user message, and the same without its last paragraph, where suites put their instruction on
    the form of the answer: for GSM8K, the plain question.
    """
    asked = [message.content for message in item.messages if message.role == "user"]
    if not asked:
        return ()
    whole = asked[-1].strip()
    question = whole.rpartition("\n\n")[0].strip()
    return (whole, question) if question else (whole,)


class _Finder:
    """Looks items up by id and by prompt; holds ids and prompts, never outputs."""

    def __init__(self, suite: Suite) -> None:
        self.ids = {item.id for item in suite.items}
        self.prompts: dict[str, set[str]] = {}
        for item in suite.items:
            for key in prompt_keys(item):
                self.prompts.setdefault(key, set()).add(item.id)

    def item_id(self, row: Row, where: str) -> str:
        """The item that a row names; raises ProctorError starting with `where`."""
        if "id" not in row and "prompt" not in row:
            raise ProctorError(
                f"{where}: a row needs a column 'id' or 'prompt' beside 'output'; "
                f"it has columns {', '.join(map(repr, row)) or 'none'}"
            )
        named = self._by_prompt(row["prompt"], where) if "prompt" in row else set()
        if "id" not in row:
            return self._one(named, row["prompt"], where)
        item = row["id"]
        if isinstance(item, int) and not isinstance(item, bool):
            item = str(item)
        if not isinstance(item, str):
            raise ProctorError(f"{where}: 'id' must be a text or an integer, found {row['id']!r:.60}")
        if item not in self.ids:
            known = sorted(self.ids, key=lambda known: (len(known), known))
            raise ProctorError(
                f"{where}: unknown id {item!r:.60}; the suite's ids run from {known[0]!r} to {known[-1]!r}"
            )
        # A prompt filled into someone's own template is unknown to us, which is no contradiction.
        if named and item not in named:
            raise ProctorError(f"{where}: id {item!r} and the prompt, which is that of item {min(named)!r}, disagree")
        return item

    def _by_prompt(self, prompt: object, where: str) -> set[str]:
        if not isinstance(prompt, str):
            raise ProctorError(f"{where}: 'prompt' must be a text, found {type(prompt).__name__}")
        return self.prompts.get(prompt.strip(), set())

    def _one(self, named: set[str], prompt: str, where: str) -> str:
        if not named:
            raise ProctorError(f"{where}: no item has the prompt {prompt.strip()[:60]!r}; name items by 'id' instead")
        if len(named) > 1:
            raise ProctorError(
                f"{where}: {len(named)} items have the prompt {prompt.strip()[:60]!r}; name them by 'id'"
            )
        return next(iter(named))


def _score(row: Row, where: str) -> float | None:
    score = row.get("score")
    if score is None:
        return None
    if not isinstance(score, int | float) or not math.isfinite(score):
        raise ProctorError(f"{where}: 'score' must be a finite number, found {score!r:.60}")
    return float(score)
