"""Exact match by the rule of the Super-NaturalInstructions leaderboard, English track."""

from __future__ import annotations

import string
from collections.abc import Sequence

_DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, ASCII punctuation dropped (joined, not replaced by a space), whitespace collapsed.

    Unlike SQuAD's rule, articles stay; Unicode punctuation stays too. "U.S." becomes "us" and "3.5" becomes "35".
    """
    return " ".join(text.lower().translate(_DROP_PUNCTUATION).split())


def exact_match(prediction: str, references: str | Sequence[str]) -> float:
    """1.0 if the normalised prediction equals any normalised reference, else 0.0. Two empty strings match.

    Raises ValueError without a reference: a question without truth has no exact match.
    """
    if isinstance(references, str):
        references = (references,)
    if not references:
        raise ValueError("exact_match needs at least one reference")
    answer = normalise(prediction)
    return float(any(answer == normalise(reference) for reference in references))
