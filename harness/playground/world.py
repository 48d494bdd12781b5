"""The world: shop-arithmetic and store-rule questions whose answers are known, one to three steps each.

A problem is a question text and a chain of steps; everything else (the worked solution, flawed ones, other answers)
is computed from the chain. Questions depend on (VERSION, split, index) alone, and the splits divide the space of
question texts by hash, so that no dev or test question can occur in training.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from harness.playground import VERSION
from harness.playground.language import GOODS, NAMES

SPLITS: Mapping[str, tuple[int, ...]] = {"test": (0, 1, 2), "dev": (3, 4), "train": (5, 6, 7, 8), "stream": (9, 10, 11)}
SIZES: Mapping[str, int] = {"train": 6000, "dev": 1000, "test": 2000}
_BUCKETS = 12


@dataclass(frozen=True, slots=True)
class Ref:
    """An operand that is the result of an earlier step."""

    step: int


Operand = int | Ref


@dataclass(frozen=True, slots=True)
class Step:
    """`left op right`; op is + - * / or `within`, which asks whether left is at most right and ends the chain."""

    op: str
    left: Operand
    right: Operand


Chain = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """A question, its kind, and the chain of steps that answers it."""

    kind: str
    question: str
    steps: Chain

    @property
    def answer(self) -> str:
        """The true final answer: a number, yes or no."""
        return final(self.steps, results(self.steps))

    @property
    def solution(self) -> str:
        """The full worked solution, ending in the final answer."""
        return work(self.steps)


def value(operand: Operand, done: list[int]) -> int:
    """The number an operand stands for, given the results of the steps before it."""
    return done[operand.step] if isinstance(operand, Ref) else operand


def results(steps: Chain, errors: Mapping[int, int] | None = None) -> list[int]:
    """Result of each step (1 or 0 for `within`), with `errors[i]` added to step i and carried to those that follow.

    Raises ValueError where a result would be negative or a division would leave a remainder.
    """
    done: list[int] = []
    for index, step in enumerate(steps):
        left, right = value(step.left, done), value(step.right, done)
        if step.op == "within":
            done.append(int(left <= right))
            continue
        if step.op == "/" and (right == 0 or left % right):
            raise ValueError(f"{left} / {right} is not a whole number")
        exact = {"+": left + right, "-": left - right, "*": left * right, "/": left // right if right else 0}[step.op]
        result = exact + (errors or {}).get(index, 0)
        if result < 0:
            raise ValueError(f"{left} {step.op} {right} would be {result}")
        done.append(result)
    return done


def final(steps: Chain, done: list[int]) -> str:
    """The final answer in words, given the results of the steps."""
    return ("no", "yes")[done[-1]] if steps[-1].op == "within" else str(done[-1])


def work(steps: Chain, errors: Mapping[int, int] | None = None) -> str:
    """The steps written out, then `answer : X .`; `errors` as in `results`."""
    done = results(steps, errors)
    clauses = []
    for step, result in zip(steps, done, strict=True):
        left, right = value(step.left, done), value(step.right, done)
        if step.op == "within":
            clauses.append(f"{left} is {'within' if result else 'over'} {right} .")
        else:
            clauses.append(f"{left} {step.op} {right} = {result} .")
    return " ".join([*clauses, f"answer : {final(steps, done)} ."])


_ANSWER = re.compile(r"answer\s*:\s*(\S*)")
_VALUE = re.compile(r"(yes|no|\d{1,9})[.]?")


def parse_answer(text: str) -> str | None:
    """The final answer of a text: what follows its last `answer :`; None if there is none or it is no answer."""
    claims = _ANSWER.findall(text)
    match = _VALUE.fullmatch(claims[-1]) if claims else None
    return None if match is None else match[1] if match[1] in ("yes", "no") else str(int(match[1]))


Maker = Callable[[random.Random], tuple[str, Chain]]


def _total(rng: random.Random) -> tuple[str, Chain]:
    name, (first, second) = rng.choice(NAMES), rng.sample(GOODS, 2)
    n, price, m, other, fee = (rng.randint(2, 9) for _ in range(5))
    start = f"{name} buys {n} {first[1]} at {price} coins each"
    ask = f"how many coins does {name} pay in all ?"
    form = rng.random()
    if form < 0.2:
        return f"{start} . {ask}", (Step("*", n, price),)
    if form < 0.5:
        text = f"{start} . the delivery costs {fee} coins more . {ask}"
        return text, (Step("*", n, price), Step("+", Ref(0), fee))
    text = f"{start} and {m} {second[1]} at {other} coins each . {ask}"
    return text, (Step("*", n, price), Step("*", m, other), Step("+", Ref(0), Ref(1)))


def _change(rng: random.Random) -> tuple[str, Chain]:
    name, (first, second) = rng.choice(NAMES), rng.sample(GOODS, 2)
    n, price, other = (rng.randint(2, 9) for _ in range(3))
    cost, form = n * price, rng.random()
    if form < 0.3:
        coins = max(1, cost + rng.choice((-1, 1)) * rng.randint(1, 15))
        text = f"{name} has {coins} coins and wants {n} {first[1]} at {price} coins each . are the coins enough ?"
        return text, (Step("*", n, price), Step("within", Ref(0), coins))
    if form < 0.65:
        coins = cost + rng.randint(1, 30)
        text = f"{name} has {coins} coins and buys {n} {first[1]} at {price} coins each . how many coins are left ?"
        return text, (Step("*", n, price), Step("-", coins, Ref(0)))
    coins = cost + other + rng.randint(1, 30)
    text = (
        f"{name} has {coins} coins and buys {n} {first[1]} at {price} coins each and a {second[0]} at {other} coins . "
        f"how many coins are left ?"
    )
    return text, (Step("*", n, price), Step("+", Ref(0), other), Step("-", coins, Ref(1)))


def _member(rng: random.Random) -> tuple[str, Chain]:
    name, good = rng.choice(NAMES), rng.choice(GOODS)
    n, net, less, fee = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 9), rng.randint(2, 9)
    start = f"a {good[0]} costs {net + less} coins . members pay {less} coins less for each {good[0]} ."
    ask = f"how many coins does {name} pay ?"
    form = rng.random()
    if form < 0.15:
        text = f"{start} {name} is a member and buys a {good[0]} . {ask}"
        return text, (Step("-", net + less, less),)
    if form < 0.35:
        text = f"a {good[0]} costs {net} coins . members pay 1 coin less for each {good[0]} ."
        return f"{text} {name} is not a member and buys {n} {good[1]} . {ask}", (Step("*", n, net),)
    base = (Step("-", net + less, less), Step("*", n, Ref(0)))
    text = f"{start} {name} is a member and buys {n} {good[1]} ."
    if form < 0.7:
        return f"{text} {ask}", base
    return f"{text} the delivery costs {fee} coins more . {ask}", (*base, Step("+", Ref(1), fee))


def _packs(rng: random.Random) -> tuple[str, Chain]:
    name, good = rng.choice(NAMES), rng.choice(GOODS)
    size, packs, price, fee = (rng.randint(2, 9) for _ in range(4))
    text = f"{good[1]} come in packs of {size} . a pack costs {price} coins . {name} wants {size * packs} {good[1]} ."
    form, first = rng.random(), Step("/", size * packs, size)
    if form < 0.15:
        return f"{text} how many packs does {name} pay for ?", (first,)
    base = (first, Step("*", Ref(0), price))
    if form < 0.6:
        return f"{text} how many coins does {name} pay ?", base
    text = f"{text} the delivery costs {fee} coins more . how many coins does {name} pay ?"
    return text, (*base, Step("+", Ref(1), fee))


def _offer(rng: random.Random) -> tuple[str, Chain]:
    name, good = rng.choice(NAMES), rng.choice(GOODS)
    size, free, price = rng.randint(2, 6), rng.randint(2, 7), rng.randint(2, 9)
    start = f"the offer : of every {size} {good[1]} 1 is free ."
    base = (Step("/", size * free, size), Step("-", size * free, Ref(0)))
    if rng.random() < 0.25:
        text = f"{start} {name} wants {size * free} {good[1]} . how many {good[1]} does {name} pay for ?"
        return text, base
    text = f"{start} {name} buys {size * free} {good[1]} at {price} coins each . how many coins does {name} pay ?"
    return text, (*base, Step("*", Ref(1), price))


def _stock(rng: random.Random) -> tuple[str, Chain]:
    good, start = rng.choice(GOODS), rng.randint(20, 70)
    sold, more, packs, size = rng.randint(5, start - 5), rng.randint(5, 30), rng.randint(2, 9), rng.randint(2, 9)
    text, ask = f"the store has {start} {good[1]} and sells {sold} .", f"how many {good[1]} does the store have now ?"
    form, first = rng.random(), Step("-", start, sold)
    if form < 0.15:
        return f"{text} {ask}", (first,)
    if form < 0.6:
        return f"{text} then {more} {good[1]} come in . {ask}", (first, Step("+", Ref(0), more))
    text = f"{text} then {packs} packs of {size} {good[1]} come in . {ask}"
    return text, (first, Step("*", packs, size), Step("+", Ref(0), Ref(1)))


def _returns(rng: random.Random) -> tuple[str, Chain]:
    name, good = rng.choice(NAMES), rng.choice(GOODS)
    limit, bought = rng.randint(10, 40), rng.randint(2, 50)
    start = f"returns are free within {limit} days . {name} buys a {good[0]} on day {bought}"
    if rng.random() < 0.25:
        return f"{start} . what is the last day of free return ?", (Step("+", bought, limit),)
    later = bought + max(1, limit + rng.choice((-1, 1)) * rng.randint(1, 15))
    text = f"{start} and returns it on day {later} . is the return free ?"
    return text, (Step("-", later, bought), Step("within", Ref(0), limit))


def _hours(rng: random.Random) -> tuple[str, Chain]:
    (owner, name), good = rng.sample(NAMES, 2), rng.choice(GOODS)
    opens, span, days = rng.randint(5, 11), rng.randint(3, 9), rng.randint(2, 7)
    closes, form = opens + span, rng.random()
    start = f"{owner} opens the {good[0]} store at {opens} and closes it at {closes}"
    if form < 0.2:
        text = f"{start} . how many hours is it open each day ?"
        return text, (Step("-", closes, opens),)
    if form < 0.65:
        weekly = (Step("-", closes, opens), Step("*", Ref(0), days))
        return f"{start} on {days} days of the week . how many hours is it open in a week ?", weekly
    comes, stay = rng.randint(opens, closes - 1), rng.randint(2, 9)
    text = f"{start} . {name} comes at {comes} and wants to stay {stay} hours . are the hours enough ?"
    return text, (Step("-", closes, comes), Step("within", stay, Ref(0)))


KINDS: Mapping[str, Maker] = {
    "total": _total,
    "change": _change,
    "member": _member,
    "packs": _packs,
    "offer": _offer,
    "stock": _stock,
    "returns": _returns,
    "hours": _hours,
}


def problems(split: str) -> Iterator[Problem]:
    """The endless sequence of problems of a split, the same on every machine; only the stream repeats a question.

    Raises KeyError, naming the splits, for an unknown split.
    """
    if split not in SPLITS:
        raise KeyError(f"the playground has no split {split!r}; it has {', '.join(SPLITS)}")
    rng, seen, mine, kinds = random.Random(f"{VERSION}:{split}"), set[str](), SPLITS[split], list(KINDS.items())
    while True:
        kind, make = kinds[int(rng.random() * len(kinds))]
        question, steps = make(rng)
        if zlib.crc32(question.encode()) % _BUCKETS in mine and question not in seen:
            if split in SIZES:
                seen.add(question)
            yield Problem(kind, question, steps)


def take(split: str, count: int) -> list[Problem]:
    """The first `count` problems of a split."""
    return list(islice(problems(split), count))
