"""Rouge-L: the longest common subsequence of words, by the rules of google-research's rouge_score (without stemmer).

Text is lower-cased, everything but a-z and 0-9 separates words. P = L / words of the prediction, R = L / words of the
reference, F = 2PR / (P + R), 0 where either side has no word. Several references: the best one counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SEPARATOR = re.compile(r"[^a-z0-9]+")


def words(text: str) -> list[str]:
    """The words that rouge_score compares. Other alphabets have none, so their Rouge is 0 by that rule."""
    return [word for word in _SEPARATOR.split(text.lower()) if word]


def lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, with one bit per word of `a` (Hyyro 2004), O(len(b)) big-int steps."""
    places: dict[str, int] = {}
    for position, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << position
    everything = (1 << len(a)) - 1
    state = everything
    for word in b:
        matched = state & places.get(word, 0)
        state = (state + matched | state - matched) & everything
    return len(a) - state.bit_count()


def rouge_l(prediction: str, reference: str) -> tuple[float, float, float]:
    """Precision, recall and F of one pair."""
    said, wanted = words(prediction), words(reference)
    if not said or not wanted:
        return 0.0, 0.0, 0.0
    length = lcs_length(wanted, said)
    precision, recall = length / len(said), length / len(wanted)
    if precision + recall == 0:
        return 0.0, 0.0, 0.0
    return precision, recall, 2 * precision * recall / (precision + recall)


def rouge_l_f(prediction: str, references: str | Sequence[str]) -> float:
    """The best F over the references, in [0, 1]. Raises ValueError without a reference."""
    several = (references,) if isinstance(references, str) else tuple(references)
    if not several:
        raise ValueError("Rouge-L needs at least one reference")
    return max(rouge_l(prediction, reference)[2] for reference in several)
