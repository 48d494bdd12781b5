"""What a probe is given, and how its items are named.

A probe file has `VERSION` and three functions: `items(context)` gives complete dialogues to be continued greedily,
`follow_up(item, rows)` the messages of a further turn or None, `measure(rows)` the figures. A probe that only reads
finished answers says `ASKS = False`, and its `items` are empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.records import Item, ProctorError


@dataclass(frozen=True, slots=True)
class ProbeContext:
    """One student's finished answers to a suite.

    `items` are the suite's in its order, cut to the probe's limit; by item id: `answers` the student's own first
    answer, `scores` its primary metric (0 or 1; absent if unscored), `parsed` whether an answer could be read from it.
    `language` picks the wordings ("playground": the closed vocabulary of the embedded models, or "english").
    """

    items: tuple[Item, ...]
    answers: Mapping[str, str]
    scores: Mapping[str, float]
    parsed: Mapping[str, bool]
    language: str = "english"
    seed: int = 0


def arm_id(question: str, arm: str) -> str:
    """The id of a probe's item: the question's id, a slash and the arm, as in `test-00012/push`.

    Raises ValueError for an arm that is empty or contains a slash, which could not be read back.
    """
    if not arm or "/" in arm:
        raise ValueError(f"an arm is a word without '/', not {arm!r}")
    return f"{question}/{arm}"


def arm_of(item_id: str) -> str:
    """The arm that a probe's item belongs to: the last part of its id (the question's own may contain slashes).

    Raises ProctorError for an id without an arm.
    """
    question, _, arm = item_id.rpartition("/")
    if not question or not arm:
        raise ProctorError(
            f"the probe's item {item_id!r} names no arm: its id must be the question's, '/', and the arm"
        )
    return arm
