"""Which of two answers is better: one letter, asked in both orders, read from log-probabilities where there are any."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.metrics import length_control
from harness.metrics.length_control import LengthControlled
from harness.prompting import fill
from harness.records import Item, Measure, Message, ProctorError, Reply, Row
from harness.stats import Estimate, mean

VERSION = "1"
KIND = "pair"
LABELS = ("A", "B")

PROMPT = Path(__file__).parent / "prompts" / "pairwise.txt"
TOLERANCE = 0.1
# A letter is one token with or without a space before it, which tokenizers spell in these ways.
SPACES = ("", " ", "Ġ", "▁")
# Below this share the first token opens a sentence ("A good answer ...") rather than being the verdict.
MIN_MASS = 0.01
CAPTION = (
    "Bins by the student's own length condition on what training changed and hold different prompts for each student: "
    "read them beside the bins by the baseline's length, which are the same prompts for all."
)

_LETTER = re.compile(r"(?<![^\W_])[AB](?![^\W_])")
_BARE = re.compile(r"[\W_]*([AB])[\W_]*")
_ARTICLE = re.compile(r"(?:^|[.!?:;] )A (?!(?:is|was|wins)\b)[a-z]")


def nonce(*texts: str) -> str:
    """16 hexadecimal digits that depend on `texts` alone and occur in none of them."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    while any(digest.hexdigest()[:16] in text for text in texts):
        digest.update(b"again")
    return digest.hexdigest()[:16]


def prompt(item: Item, a: str, b: str, nonce: str, turn: int = 0, wording: str = "english") -> list[Message]:
    """The messages that show answers `a` and `b` to the item's request at `turn` (0: its own, k: its k-th further one).

    Of earlier turns the judge sees what the user said, not what was answered.
    `wording` is "english" (prompts/pairwise.txt), "playground" (the closed vocabulary of the embedded world, which has
    no room for fences), or the text of a template with {a}, {b} and, if it likes, {question} and {nonce}. Values are
    filled in one pass: nothing in an answer is read as a placeholder.

    Raises:
        ProctorError: a template without {a} or {b}.
        ValueError: a nonce that is empty or occurs in a text; `nonce(...)` of the texts never does.
    """
    if wording == "playground":
        from harness.playground.prompts import verdict

        return [Message("user", verdict(_last_question(item, turn), a, b))]
    template = PROMPT.read_text(encoding="utf-8") if wording == "english" else wording
    missing = [name for name in ("{a}", "{b}") if name not in template]
    if missing:
        raise ProctorError(
            f"the judge's wording {wording[:40]!r} lacks {' and '.join(missing)}; use 'english', 'playground', or a "
            "template text with {question}, {a}, {b} and {nonce}"
        )
    question = _conversation(item, turn)
    if not nonce or any(nonce in text for text in (question, a, b)):
        raise ValueError("the nonce must not be empty or occur in the texts that it fences; derive it from them")
    return [Message("user", fill(template, {"question": question, "a": a, "b": b, "nonce": nonce}).strip())]


def parse(reply: Reply) -> float | None:
    """Preference for the answer shown second, in [0, 1]; None where there is no verdict.

    From the first token's log-probabilities, p_B / (p_A + p_B) over explicit letter tokens, if the letters hold 1% of
    its mass. Else from the text: exactly one distinct letter standing by itself. None for both letters or neither, for
    a lone "A" that opens a sentence as an article, and for a reply cut short that says more than the letter.
    """
    mass = verdict_mass(reply)
    if mass is not None and mass >= MIN_MASS:
        return from_log_probs(reply.top_log_probs[0])
    if bare := _BARE.fullmatch(reply.text):
        return float(bare[1] == LABELS[1])
    letters = _LETTER.findall(reply.text)
    if reply.finish_reason == "length" or len(set(letters)) != 1:
        return None
    if letters[0] == LABELS[0] and len(_ARTICLE.findall(" ".join(reply.text.split()))) == len(letters):
        return None
    return float(letters[0] == LABELS[1])


def verdict_mass(reply: Reply) -> float | None:
    """Probability that the first token is a verdict letter, in [0, 1]; None without log-probabilities."""
    if not reply.top_log_probs:
        return None
    masses = _log_masses(reply.top_log_probs[0], LABELS, SPACES)
    return min(1.0, sum(math.exp(min(mass, 0.0)) for mass in masses))


def from_log_probs(
    first: Mapping[str, float], labels: tuple[str, str] = LABELS, spaces: Sequence[str] = SPACES
) -> float | None:
    """Probability of the second label given either, from one token's top log-probabilities; None if both are absent.

    An absent label has probability 0. AlpacaEval's preference is 1 plus this, with labels m and M and no spaces.
    """
    first_mass, second_mass = _log_masses(first, labels, spaces)
    top = max(first_mass, second_mass)
    if top == -math.inf:
        return None
    weights = math.exp(first_mass - top), math.exp(second_mass - top)
    return weights[1] / (weights[0] + weights[1])


def combine(ab: float | None, ba: float | None) -> float | None:
    """The one verdict of a pair judged in both orders, each a preference for b: their mean, or None without both."""
    return None if ab is None or ba is None else (ab + ba) / 2


def aggregate(rows: Sequence[Row]) -> list[Measure]:
    """Measures over `rows`, one per item: {item, cluster, preference, ab, ba, length_a, length_b, mass, reason}.

    `ab` and `ba` are preferences for b (the student) in [0, 1] with a or b shown first, None if missing; `preference`
    is their mean, or the only order's where each item is judged once; None is unscored. Where any item was judged in
    both orders, one with half of its verdict missing is unscored, whatever its `preference`.

    win_rate; win_rate_lc (None where not estimable, see `details`); flip_rate (the two orders name different winners);
    first_rate (share won by the answer shown first, over items judged in both orders: 50% without position bias);
    tie_rate (preference exactly one half); mass; length_only (how often the longer answer wins).
    """
    scored = _scored(rows)
    unscored = len(rows) - len(scored)
    both = [row for row in scored if row.get("ab") is not None and row.get("ba") is not None]
    massed = [row for row in scored if row.get("mass") is not None]
    sized = _sized(scored)
    controlled = _controlled(sized)
    estimates = {
        "win_rate": _mean([row["preference"] for row in scored], scored),
        "win_rate_lc": Estimate(controlled.value, controlled.low, controlled.high, None, controlled.n, "")
        if controlled
        else Estimate(None, None, None, None, 0, "no items"),
        "flip_rate": _mean([float((row["ab"] - 0.5) * (row["ba"] - 0.5) < 0) for row in both], both),
        "first_rate": _mean([(1 - _winner(row["ab"]) + _winner(row["ba"])) / 2 for row in both], both),
        "tie_rate": _mean([float(row["preference"] == 0.5) for row in scored], scored),
        "mass": _mean([row["mass"] for row in massed], massed),
        "length_only": length_control.length_only_accuracy(*_columns(sized), _clusters(sized))
        if sized
        else Estimate(None, None, None, None, 0, "no items"),
    }
    return [Measure(name, e.value, e.low, e.high, e.n, unscored) for name, e in estimates.items()]


def details(rows: Sequence[Row], edges: Sequence[float] | int = 4) -> dict[str, Any]:
    """What a report says beside the measures, as plain values; `rows` and what is unscored as in `aggregate`.

    n_rows, n_scored, unscored (count per reason), length_controlled (the `LengthControlled` record with its ranges),
    length_matched (answers within 10% of each other's length), by_base_length and by_student_length (win rate per bin;
    `edges` as in `by_length`) and the caption that belongs to the latter.
    """
    scored = _scored(rows)
    kept = {id(row) for row in scored}
    reasons = Counter(str(row.get("reason") or "half of the verdict is missing") for row in rows if id(row) not in kept)
    found: dict[str, Any] = {"n_rows": len(rows), "n_scored": len(scored), "unscored": dict(sorted(reasons.items()))}
    sized = _sized(scored)
    controlled = _controlled(sized)
    if controlled is None:
        return found
    preferences, length_a, length_b = _columns(sized)
    labels = _clusters(sized)
    matched = length_control.length_matched(preferences, length_a, length_b, TOLERANCE, labels)
    return found | {
        "length_controlled": asdict(controlled)
        | {"penalty_range": controlled.penalty_range, "form_range": controlled.form_range},
        "length_matched": asdict(matched) | {"tolerance": TOLERANCE},
        "by_base_length": [asdict(one) for one in length_control.by_length(preferences, length_a, edges, labels)],
        "by_student_length": [asdict(one) for one in length_control.by_length(preferences, length_b, edges, labels)],
        "caption": CAPTION,
    }


def _log_masses(first: Mapping[str, float], labels: Sequence[str], spaces: Sequence[str]) -> list[float]:
    masses = []
    for label in labels:
        found = [first.get(space + label, -math.inf) for space in spaces]
        found = [value for value in found if value < math.inf]  # also drops what is not a number
        top = max(found, default=-math.inf)
        whole = top == -math.inf
        masses.append(top if whole else top + math.log(sum(math.exp(value - top) for value in found)))
    return masses


def _last_question(item: Item, turn: int) -> str:
    if turn:
        return item.turns[turn - 1]
    return next(message.content for message in reversed(item.messages) if message.role == "user")


def _conversation(item: Item, turn: int) -> str:
    """The request as the judge reads it: the user's words alone where they are the whole conversation."""
    messages = [*item.messages, *(Message("user", text) for text in item.turns[:turn])]
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)


def _scored(rows: Sequence[Row]) -> list[Row]:
    atomic = any(row.get("ab") is not None and row.get("ba") is not None for row in rows)
    whole = [row for row in rows if not atomic or combine(row.get("ab"), row.get("ba")) is not None]
    return [row for row in whole if row.get("preference") is not None]


def _sized(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.get("length_a") is not None and row.get("length_b") is not None]


def _columns(rows: Sequence[Row]) -> tuple[list[float], list[float], list[float]]:
    return [r["preference"] for r in rows], [float(r["length_a"]) for r in rows], [float(r["length_b"]) for r in rows]


def _clusters(rows: Sequence[Row]) -> list[Hashable]:
    return [row["item"] if row.get("cluster") is None else f"cluster {row['cluster']}" for row in rows]


def _winner(preference: float) -> float:
    return 0.5 if preference == 0.5 else float(preference > 0.5)


def _mean(values: Sequence[float], rows: Sequence[Row]) -> Estimate:
    return mean(values, _clusters(rows), binary=all(value in (0.0, 1.0) for value in values))


def _controlled(rows: Sequence[Row]) -> LengthControlled | None:
    return length_control.length_controlled(*_columns(rows), clusters=_clusters(rows)) if rows else None
