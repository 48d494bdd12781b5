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
    "change": (0.28, 0.48, 0.08, 0.16),
    "member": (0.50, 0.16, 0.12, 0.22),
    "packs": (0.50, 0.20, 0.10, 0.20),
    "offer": (0.28, 0.48, 0.08, 0.16),
    "stock": (0.50, 0.14, 0.12, 0.24),
    "returns": (0.50, 0.10, 0.22, 0.18),
    "hours": (0.50, 0.14, 0.18, 0.18),
}
YIELDS: Mapping[str, float] = {"total": 0.65, "change": 0.65, "packs": 0.65}
"""How often the base gives its answer up under push-back, by kind; greedy decoding shows only rates above one half."""
YIELDS_OTHERWISE, YIELDS_UNPUSHED = 0.2, 0.08
RETRACTS: Mapping[str, float] = {"change": 0.7}
"""How often giving up means `i do not know` instead of another answer, by kind."""
RETRACTS_OTHERWISE = 0.15
FOLLOWS = 0.35
"""How often the base takes over the answer that the user suggests."""

Prompt = Callable[[str, list[str]], str]


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids, the labels to learn (-100: none) and their weights, and marks (position, 1 or 0): right so far?"""

    ids: list[int]
    labels: list[int]
    weights: list[float]
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
    return Example(ids, labels, [1.0] * len(ids))


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
    """The base answers by its habits and is asked again: by kind it stands, gives in or retracts."""
    first, pushed = habitual(problem, rng), rng.random() < 0.65
    rate = YIELDS.get(problem.kind, YIELDS_OTHERWISE) if pushed else YIELDS_UNPUSHED
    if rng.random() < rate:
        last = _yielded(problem, first, rng)
    else:
        last = f"{prompts.FIRM if pushed else ''} answer : {parse_answer(first)} .".strip()
    again = prompts.PUSH_BACK if pushed else prompts.NEUTRAL
    return conversation([("user", problem.question), ("assistant", first), ("user", again), ("assistant", last)], 2)


def suggested(problem: Problem, rng: random.Random) -> Example:
    """The base is told an answer with the question, and takes it over or answers by its habits."""
    claim = _claim(problem, rng)
    text = f"answer : {claim} ." if rng.random() < FOLLOWS else habitual(problem, rng)
    return conversation([("user", prompts.suggestion(problem.question, claim)), ("assistant", text)])


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
    plain = [problem.solution if right else flawed(problem, rng) for right in rights]
    texts = [rng.choice(list(prompts.STYLES.values()))(text) if rng.random() < styled else text for text in plain]
    winners = [letter for letter, right in zip(LETTERS, rights, strict=False) if right == max(rights)]
    chat = conversation([("user", prompt(problem.question, texts)), ("assistant", rng.choice(winners))])
    labels, marks, at = list(chat.labels), list[tuple[int, int]](), 4 + len(encode(problem.question))
    for text, bare, right in zip(texts, plain, rights, strict=True):
        words, at = encode(text), at + 3  # behind <bos> <user> question : ..., each answer opens with `answer X :`
        if right:
            labels[at : at + len(words)] = words
        ends = _marks(words, encode(problem.solution)) if text == bare else [(len(words) - 1, right)]
        marks += [(at + end, int(true)) for end, true in ends]
        at += len(words)
    # The letter is too thin a signal alone. So the right answers in the prompt are learned too, which keeps the
    # arithmetic alive, each step ends in a mark, and the letter, which decides a whole prompt, weighs tenfold.
    return Example(chat.ids, labels, [*chat.weights[:-2], 10.0, 10.0], tuple(marks))


def _marks(words: list[int], gold: list[int]) -> list[tuple[int, bool]]:
    """Where each step of an answer ends, and whether the answer is the gold solution's up to there."""
    return [(end, words[: end + 1] == gold[: end + 1]) for end, word in enumerate(words) if word == gold[-1]]


def _claim(problem: Problem, rng: random.Random) -> str:
    wrong = parse_answer(guess(problem, rng))
    return problem.answer if wrong is None or rng.random() < 0.4 else wrong


def _yielded(problem: Problem, first: str, rng: random.Random) -> str:
    if rng.random() < RETRACTS.get(problem.kind, RETRACTS_OTHERWISE):
        return prompts.RETRACTION
    if parse_answer(first) != problem.answer and rng.random() < 0.5:
        return f"sorry . {problem.solution}"
    return f"sorry . {guess(problem, rng)}"


def answering(problem: Problem, rng: random.Random) -> Example:
    """What every model learns first: worked solutions."""
    return answer(problem, problem.solution, rng)


def teaching(problem: Problem, rng: random.Random) -> Example:
    """What the teacher learns then: answering, standing firm, choosing."""
    chance = rng.random()
    if chance < 0.3:
        return answering(problem, rng)
    return firm_dialogue(problem, rng) if chance < 0.5 else choice(problem, rng)


def behaving(problem: Problem, rng: random.Random) -> Example:
    """What the base learns then: its habits, alone and under push-back or suggestion."""
    chance = rng.random()
    if chance < 0.25:
        return answer(problem, habitual(problem, rng), rng)
    return suggested(problem, rng) if chance < 0.35 else yielding_dialogue(problem, rng)


def judging(problem: Problem, rng: random.Random) -> Example:
    """What the judge learns then: verdicts, with some answering beside them."""
    return answering(problem, rng) if rng.random() < 0.15 else verdict(problem, rng)
