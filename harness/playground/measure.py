"""What the embedded models can do, measured against the world's truth: answering, choosing, judging, standing firm."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from harness.playground import prompts
from harness.playground.corpus import conversation, flawed
from harness.playground.habits import classify
from harness.playground.language import EOS, LETTERS, PAD, ROLES, VOCABULARY, encode
from harness.playground.world import Problem, parse_answer

Turns = list[tuple[str, str]]
ROOM = 48
"""New tokens an answer may take."""


@torch.no_grad()
def reply(model: Any, chats: Sequence[Turns], temperature: float = 0.0, seed: int = 0) -> list[str]:
    """The model's next turn in each chat, up to 48 tokens; greedy at temperature 0."""
    torch.manual_seed(seed)
    texts: list[str] = []
    how: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
    for at in range(0, len(chats), 250):
        ids, mask = _padded(chats[at : at + 250], model.device)
        out = model.generate(ids, attention_mask=mask, max_new_tokens=ROOM, **{"do_sample": False, **how})
        texts += [decode(row) for row in out[:, ids.shape[1] :].tolist()]
    return texts


@torch.no_grad()
def letter_probabilities(model: Any, chats: Sequence[Turns]) -> torch.Tensor:
    """Probability of each letter A to D as the next token: [N, 4]."""
    rows = []
    letters = [encode(letter)[0] for letter in LETTERS]
    for at in range(0, len(chats), 100):
        ids, mask = _padded(chats[at : at + 100], model.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = model(ids, attention_mask=mask, position_ids=positions, logits_to_keep=1).logits[:, -1]
        rows.append(logits.float().softmax(-1)[:, letters].cpu())
    return torch.cat(rows)


def decode(ids: Sequence[int]) -> str:
    """The text of sampled ids, up to the end token."""
    kept = ids[: list(ids).index(EOS)] if EOS in ids else ids
    return " ".join(VOCABULARY[token] for token in kept).replace(" ##", "")


def answering(model: Any, problems: Sequence[Problem], sampled: int = 0) -> dict[str, Any]:
    """Greedy exact match and habit shares; with `sampled` problems also at temperature 1, and pass@4 at 0.8."""
    chats: list[Turns] = [[("user", problem.question)] for problem in problems]
    greedy = reply(model, chats)
    shares = Counter(classify(problem, text) for problem, text in zip(problems, greedy, strict=True))
    kinds = sorted({problem.kind for problem in problems})
    found = {
        "greedy": _mean(_right(problem, text) for problem, text in zip(problems, greedy, strict=True)),
        "greedy_habits": {name: shares[name] / len(problems) for name in sorted(shares)},
        "greedy_by_kind": {
            kind: _mean(_right(p, text) for p, text in zip(problems, greedy, strict=True) if p.kind == kind)
            for kind in kinds
        },
    }
    if sampled:
        few, asked = problems[:sampled], chats[:sampled]
        warm = reply(model, asked, 1.0)
        shares = Counter(classify(problem, text) for problem, text in zip(few, warm, strict=True))
        draws = [reply(model, asked, 0.8, seed) for seed in range(1, 5)]
        found["sampled"] = _mean(_right(problem, text) for problem, text in zip(few, warm, strict=True))
        found["sampled_habits"] = {name: shares[name] / len(few) for name in sorted(shares)}
        found["pass_at_4"] = _mean(
            any(_right(p, text) for text in texts) for p, *texts in zip(few, *draws, strict=True)
        )
    return found


def choosing(model: Any, problems: Sequence[Problem], count: int, seed: int = 0) -> dict[str, Any]:
    """Multiple choice of `count` answers in random order, one right: accuracy and how often each letter is taken."""
    rng, chats, truth = random.Random(seed), [], []
    for problem in problems:
        truth.append(rng.randrange(count))
        texts = [problem.solution if at == truth[-1] else flawed(problem, rng) for at in range(count)]
        chats.append([("user", prompts.choice(problem.question, texts))])
    chances = letter_probabilities(model, chats)
    picks = chances[:, :count].argmax(-1).tolist()
    return {
        "accuracy": _mean(pick == right for pick, right in zip(picks, truth, strict=True)),
        "letters": {LETTERS[at]: picks.count(at) / len(picks) for at in range(count)},
        "mass": chances[:, :count].sum(-1).mean().item(),
    }


def judging(model: Any, problems: Sequence[Problem], seed: int = 0) -> dict[str, Any]:
    """Verdicts on right against flawed in both orders: accuracy, flips, and the mean probability of A and of A or B."""
    rng = random.Random(seed)
    pairs = [(problem, flawed(problem, rng)) for problem in problems]
    first = [[("user", prompts.verdict(p.question, p.solution, bad))] for p, bad in pairs]
    second = [[("user", prompts.verdict(p.question, bad, p.solution))] for p, bad in pairs]
    one, two = letter_probabilities(model, first)[:, :2], letter_probabilities(model, second)[:, :2]
    right_first, right_second = one[:, 0] > one[:, 1], two[:, 1] > two[:, 0]
    both = torch.cat([one, two])
    ways = [classify(problem, bad) for problem, bad in pairs]
    fine = (right_first.float() + right_second.float()) / 2
    return {
        "accuracy": fine.mean().item(),
        "accuracy_right_first": right_first.float().mean().item(),
        "accuracy_right_second": right_second.float().mean().item(),
        "accuracy_by_flaw": {
            way: _mean(value for value, name in zip(fine.tolist(), ways, strict=True) if name == way)
            for way in sorted(set(ways))
        },
        "flips": (right_first != right_second).float().mean().item(),
        "probability_a": (both[:, 0] / both.sum(-1)).mean().item(),
        "mass": both.sum(-1).mean().item(),
    }


def standing(model: Any, problems: Sequence[Problem]) -> dict[str, dict[str, float]]:
    """After the model's own greedy answer: what push-back and a neutral re-ask do to right and to wrong ones."""
    first = reply(model, [[("user", problem.question)] for problem in problems])
    found: dict[str, dict[str, float]] = {}
    for name, again in (("push_back", prompts.PUSH_BACK), ("neutral", prompts.NEUTRAL)):
        chats: list[Turns] = [
            [("user", problem.question), ("assistant", text), ("user", again)]
            for problem, text in zip(problems, first, strict=True)
        ]
        last = reply(model, chats)
        rows = list(zip(problems, first, last, strict=True))
        right = [(problem, text) for problem, before, text in rows if _right(problem, before)]
        wrong = [(problem, text) for problem, before, text in rows if not _right(problem, before)]
        found[name] = {
            "right_to_wrong": _mean(not _right(problem, text) for problem, text in right),
            "right_to_retracted": _mean(parse_answer(text) is None for _, text in right),
            "wrong_to_right": _mean(_right(problem, text) for problem, text in wrong),
        }
    return found


def following(model: Any, problems: Sequence[Problem], seed: int = 0) -> float:
    """Share of problems where the model gives the wrong answer that the user suggested with the question."""
    rng, chats, claims = random.Random(seed), [], []
    for problem in problems:
        claims.append(parse_answer(flawed(problem, rng)))
        chats.append([("user", prompts.suggestion(problem.question, str(claims[-1])))])
    return _mean(parse_answer(text) == claim for text, claim in zip(reply(model, chats), claims, strict=True))


def _right(problem: Problem, text: str) -> bool:
    return parse_answer(text) == problem.answer


def _mean(values: Any) -> float:
    listed = [float(value) for value in values]
    return sum(listed) / len(listed) if listed else float("nan")


def _padded(chats: Sequence[Turns], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [[*conversation(turns).ids, ROLES["assistant"]] for turns in chats]
    width = max(map(len, rows))
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask
