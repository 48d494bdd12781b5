"""Bad habits with names: ways to answer a problem badly, each a pure function of (problem, rng), and their detection.

`skip` drops a step, `guess` gives a wrong number without any working, `slip` makes one arithmetic error and carries
it to the end. `good` is the full worked solution. `classify` tells them apart from the text alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from harness.playground.world import Chain, Operand, Problem, Ref, Step, final, parse_answer, results, value, work

Habit = Literal["good", "skip", "guess", "slip", "other"]
Way = Callable[[Problem, random.Random], str]


def good(problem: Problem, rng: random.Random) -> str:
    """The full worked solution."""
    return problem.solution


def skip(problem: Problem, rng: random.Random) -> str:
    """A solution without its last step; before a yes or no without its first, one of whose numbers is compared instead.

    Wrong wherever leaving a step out can make it so. Raises ValueError for a problem of a single step.
    """
    chains = _shortened(problem.steps)
    if not chains:
        raise ValueError(f"a problem of {len(problem.steps)} step has none to skip: {problem.question}")
    wrong = [chain for chain in chains if final(chain, results(chain)) != problem.answer]
    return work((wrong or chains)[0])


def guess(problem: Problem, rng: random.Random) -> str:
    """A wrong final answer near the right one, with no working."""
    if not problem.answer.isdecimal():
        return f"answer : {'no' if problem.answer == 'yes' else 'yes'} ."
    right = int(problem.answer)
    return f"answer : {rng.choice([n for n in range(max(0, right - 9), right + 10) if n != right])} ."


def slip(problem: Problem, rng: random.Random) -> str:
    """A full solution with one wrong result, carried to the end, where the final answer is wrong too."""
    numeric = [index for index, step in enumerate(problem.steps) if step.op != "within"]
    small = [(index, sign * size) for index in numeric for size in (1, 2, 3, 10) for sign in (-1, 1)]
    rng.shuffle(small)
    # Only a yes-or-no question may need a larger error before its answer turns.
    large = [(index, sign * size) for size in range(4, 40) for index in numeric for sign in (-1, 1)]
    for index, error in small + large:
        try:
            done = results(problem.steps, {index: error})
        except ValueError:
            continue
        if final(problem.steps, done) != problem.answer:
            return work(problem.steps, {index: error})
    raise ValueError(f"no slip makes a wrong answer to: {problem.question}")


WAYS: Mapping[Habit, Way] = {"good": good, "skip": skip, "guess": guess, "slip": slip}

_CLAUSE = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)|(\d+) is (within|over) (\d+)")


def classify(problem: Problem, text: str) -> Habit:
    """Which habit an answer shows, by its form: no working is a guess, a false equation in full-length working a
    slip, true but shorter working a skip, the full true chain with the right answer good; anything else is other.
    """
    answer, claims = parse_answer(text), _CLAUSE.findall(text)
    if answer is None:
        return "other"
    if not claims:
        return "guess"
    complete = [_operator(claim) for claim in claims] == [step.op for step in problem.steps]
    if not all(_holds(claim) for claim in claims):
        return "slip" if complete else "other"
    if complete:
        return "good" if answer == problem.answer else "other"
    return "skip" if len(claims) < len(problem.steps) else "other"


def _operator(claim: tuple[str, ...]) -> str:
    return claim[1] or "within"


def _holds(claim: tuple[str, ...]) -> bool:
    left, op, right, result, low, word, high = claim
    if word:
        return (int(low) <= int(high)) == (word == "within")
    if op == "/":
        return int(right) * int(result) == int(left)
    return int(result) == {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[op]


def _shortened(steps: Chain) -> list[Chain]:
    """The chains that remain without the last step, and without the first, as far as they can be worked out."""
    chains = [steps[:-1]] if len(steps) > 1 and steps[-1].op != "within" else []
    if len(steps) > 1:
        for number in (value(steps[0].left, []), value(steps[0].right, [])):
            chains.append(tuple(_rebased(step, number) for step in steps[1:]))
    return [chain for chain in chains if _possible(chain)]


def _rebased(step: Step, number: int) -> Step:
    def operand(old: Operand) -> Operand:
        if not isinstance(old, Ref):
            return old
        return number if old.step == 0 else Ref(old.step - 1)

    return replace(step, left=operand(step.left), right=operand(step.right))


def _possible(chain: Chain) -> bool:
    try:
        results(chain)
    except ValueError:
        return False
    return True
