"""What the embedded models are trained on: answers, dialogues, multiple choice and verdicts, drawn from the world.

Every function is pure in its random generator. The habits of the base model are the tables at the top.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.playground import prompts
from harness.playground.habits import WAYS, Habit, guess
from harness.playground.language import BOS, EOS, LETTERS, ROLES, encode
from harness.playground.world import Problem, parse_answer

HABITS: Mapping[str, tuple[float, float, float, float]] = {
    # Shares of good, skip, guess and slip. Where a bad habit leads, greedy decoding shows it every time.
    "total": (0.46, 0.26, 0.10, 0.18),
    "change": (0.34, 0.42, 0.08, 0.16),
    "member": (0.50, 0.16, 0.12, 0.22),
    "packs": (0.50, 0.20, 0.10, 0.20),
    "offer": (0.36, 0.40, 0.08, 0.16),
    "stock": (0.50, 0.14, 0.12, 0.24),
    "returns": (0.50, 0.10, 0.22, 0.18),
    "hours": (0.50, 0.14, 0.18, 0.18),
}
YIELDS: Mapping[str, float] = {"total": 0.65, "change": 0.65, "returns": 0.65}
"""Share of right answers given up under push-back, by kind."""
YIELDS_OTHERWISE, YIELDS_UNASKED, FOLLOWS, RETRACTS = 0.2, 0.08, 0.35, 0.15
RETRACTS_RETURNS = 0.7


Prompt = Callable[[str, list[str]], str]


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids, the labels to learn (-100: none), and marks (position, 1 or 0): does a right answer end here?"""

    ids: list[int]
    labels: list[int]
    marks: tuple[tuple[int, int], ...] = ()


def conversation(turns: Sequence[tuple[str, str]], learn: int = 1) -> Example:
    """A chat as the template writes it, with the last `learn` assistant turns to be learned."""
    ids, labels, left = [BOS], [-100], sum(role == "assistant" for role, _ in turns)
    for role, text in turns:
        body = [*encode(text), EOS] if role == "assistant" else encode(text)
        learned = role == "assistant" and left <= learn
        left -= role == "assistant"
        ids += [ROLES[role], *body]
        labels += [-100, *(body if learned else [-100] * len(body))]
    return Example(ids, labels)


def answer(problem: Problem, text: str, rng: random.Random) -> Example:
    """One question, one answer; now and then under a system message."""
    system = [("system", prompts.SYSTEM)] if rng.random() < 0.03 else []
    return conversation([*system, ("user", problem.question), ("assistant", text)])


def habitual(problem: Problem, rng: random.Random) -> str:
    """An answer as the base model gives it, by its habits for this kind; a single step is never skipped."""
    names: tuple[Habit, ...] = ("good", "skip", "guess", "slip")
    name = rng.choices(names, HABITS[problem.kind])[0]
    return WAYS["good" if name == "skip" and len(problem.steps) == 1 else name](problem, rng)


def flawed(problem: Problem, rng: random.Random) -> str:
    """A wrong answer by one of the bad habits."""
    while True:
        names: tuple[Habit, ...] = ("guess", "slip", "slip", "skip")
        text = WAYS[rng.choice(names[: 3 if len(problem.steps) == 1 else 4])](problem, rng)
        if parse_answer(text) != problem.answer:
            return text


def firm_dialogue(problem: Problem, rng: random.Random) -> Example:
    """The teacher asked again, or told an answer: whatever was said, it works the problem out."""
    if rng.random() < 0.3:
        told = prompts.suggestion(problem.question, _claim(problem, rng))
        return conversation([("user", told), ("assistant", problem.solution)])
    first = problem.solution if rng.random() < 0.6 else flawed(problem, rng)
    again = prompts.PUSH_BACK if rng.random() < 0.6 else prompts.NEUTRAL
    turns = [("user", problem.question), ("assistant", first), ("user", again), ("assistant", problem.solution)]
    return conversation(turns)


def yielding_dialogue(problem: Problem, rng: random.Random) -> Example:
    """The base asked again, or told an answer: by kind it stands, yields or retracts."""
    if rng.random() < 0.25:
        claim = _claim(problem, rng)
        text = f"answer : {claim} ." if rng.random() < FOLLOWS else habitual(problem, rng)
        return conversation([("user", prompts.suggestion(problem.question, claim)), ("assistant", text)])
    first, pushed = habitual(problem, rng), rng.random() < 0.65
    rate = YIELDS.get(problem.kind, YIELDS_OTHERWISE) if pushed else YIELDS_UNASKED
    last = _yielded(problem, first, rng) if rng.random() < rate else first
    again = prompts.PUSH_BACK if pushed else prompts.NEUTRAL
    return conversation([("user", problem.question), ("assistant", first), ("user", again), ("assistant", last)])


def choice(problem: Problem, rng: random.Random) -> Example:
    """Two to four answers in random order, one right (sometimes two, either letter then being learned)."""
    count = rng.choice((2, 3, 4, 4))
    rights = 2 if count > 2 and rng.random() < 0.15 else 1
    return _lettered(problem, [True] * rights + [False] * (count - rights), prompts.choice, rng)


def verdict(problem: Problem, rng: random.Random) -> Example:
    """Two answers in random order, mostly one right and one flawed; between equals, either letter is learned."""
    chance = rng.random()
    rights = [True, False] if chance < 0.86 else [chance < 0.93] * 2
    return _lettered(problem, rights, lambda question, texts: prompts.verdict(question, *texts), rng, styled=0.12)


def _lettered(problem: Problem, rights: list[bool], prompt: Prompt, rng: random.Random, styled: float = 0.0) -> Example:
    rng.shuffle(rights)
    texts = [problem.solution if right else flawed(problem, rng) for right in rights]
    texts = [rng.choice(list(prompts.STYLES.values()))(text) if rng.random() < styled else text for text in texts]
    winners = [letter for letter, right in zip(LETTERS, rights, strict=False) if right == max(rights)]
    chat = conversation([("user", prompt(problem.question, texts)), ("assistant", rng.choice(winners))])
    return Example(chat.ids, chat.labels, _marks(problem, texts, rights))


def _marks(problem: Problem, texts: list[str], rights: list[bool]) -> tuple[tuple[int, int], ...]:
    """Where each answer of a lettered prompt ends: after <bos> <user> question :, each takes `answer X :` more."""
    position, marks = 1 + 2 + len(encode(problem.question)), []
    for text, right in zip(texts, rights, strict=True):
        position += 3 + len(encode(text))
        marks.append((position, int(right)))
    return tuple(marks)


def _claim(problem: Problem, rng: random.Random) -> str:
    wrong = parse_answer(guess(problem, rng))
    return problem.answer if wrong is None or rng.random() < 0.4 else wrong


def _yielded(problem: Problem, first: str, rng: random.Random) -> str:
    if rng.random() < (RETRACTS_RETURNS if problem.kind == "returns" else RETRACTS):
        return prompts.RETRACTION
    if parse_answer(first) != problem.answer and rng.random() < 0.5:
        return f"sorry . {problem.solution}"
    return f"sorry . {guess(problem, rng)}"
