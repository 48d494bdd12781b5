"""The playground: generated shop arithmetic and store rules with known truth (see docs/playground.md)."""

from __future__ import annotations

from harness.metrics.rouge import rouge_l_f
from harness.playground import world
from harness.records import Item, Message, Sampling, Suite

VERSION = "1"


def suite(split: str = "test") -> Suite:
    """The questions of one split (train 6,000, dev 1,000, test 2,000), each with its worked solution as the target.

    Raises KeyError, naming the splits, for an unknown one.
    """
    if split not in world.SIZES:
        raise KeyError(f"the playground has no split {split!r}; it has {', '.join(world.SIZES)}")
    items = tuple(
        Item(
            id=f"{split}-{index:05d}",
            messages=(Message("user", problem.question),),
            target=problem.solution,
            tags=(problem.kind, f"{len(problem.steps)} step{'s' * (len(problem.steps) > 1)}"),
        )
        for index, problem in enumerate(world.take(split, world.SIZES[split]))
    )
    return Suite(
        version=VERSION,
        items=items,
        metrics={"exact_match": exact_match, "format": format_, "rouge_l": rouge},
        primary="exact_match",
        sampling=Sampling(max_new_tokens=48),
        license="Apache-2.0",
    )


def exact_match(output: str, item: Item) -> float:
    """1 if the final answer (after the last `answer :`) equals the target's; no final answer is wrong."""
    answer = world.parse_answer(output)
    return float(answer is not None and answer == world.parse_answer(str(item.target)))


def format_(output: str, item: Item) -> float:
    """1 if a final answer could be parsed from the output, right or wrong."""
    return float(world.parse_answer(output) is not None)


def rouge(output: str, item: Item) -> float:
    """Rouge-L F of the output against the whole worked solution."""
    return rouge_l_f(output, str(item.target))
