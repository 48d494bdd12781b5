"""The style of answers: deterministic features of a text, and which of them the better sides of pairs have more of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.stats import wilson

Features = Mapping[str, float]

TOLERATED = (0.4, 0.6)
"""A feature whose AUC lies within is not worth a warning, however sure it is."""
ENOUGH = 10
"""Pairs that differ in a feature, below which nothing can be said about it."""

_HEDGES = re.compile(r"\b(?:i think|i believe|i guess|maybe|perhaps|possibly|probably|might|could be|not sure)\b", re.I)
_FLATTERY = re.compile(
    r"\s*(?:(?:what an? )?(?:great|good|excellent|wonderful|fantastic|interesting) (?:question|point|idea)"
    r"|you are (?:very |so |absolutely )?(?:good|right|smart|clever)|you're (?:absolutely )?right)\b",
    re.I,
)

STYLE: dict[str, Callable[[str], float]] = {
    "chars": lambda text: float(len(text)),
    "words": lambda text: float(len(text.split())),
    "hedges": lambda text: float(len(_HEDGES.findall(text))),
    "flattery opener": lambda text: float(_FLATTERY.match(text) is not None),
    "digits share": lambda text: sum(char.isdigit() for char in text) / len(text) if text else 0.0,
    "steps": lambda text: float(max(text.count("="), sum(bool(row.strip()) for row in text.splitlines()))),
}
"""Features of an answer's text; `steps` are its equals signs or its lines, whichever are more."""


def style_preferences(pairs: Sequence[tuple[Features, Features]]) -> dict[str, dict[str, Any]]:
    """How often the first of each pair has more of a feature.

    Per feature {auc, n_differing, among_differing, low, high, p, flagged}: `auc` is over all pairs (ties half),
    `among_differing` with its 95% interval over those that differ, as rare features look harmless in the former. `p`
    is the sign test's, Holm-adjusted over the features, None below 10 differing pairs; `flagged`: p below .05 and
    `among_differing` outside of TOLERATED.
    """
    out: dict[str, dict[str, Any]] = {}
    for name in STYLE:
        more = sum(a[name] > b[name] for a, b in pairs)
        less = sum(a[name] < b[name] for a, b in pairs)
        n = more + less
        auc = (more + (len(pairs) - n) / 2) / len(pairs) if pairs else None
        low, high = wilson(more, n) if n else (None, None)
        share = more / n if n else None
        p = _sign_test(more, less) if n >= ENOUGH else None
        out[name] = {"auc": auc, "n_differing": n, "among_differing": share, "low": low, "high": high, "p": p}
    family = sorted((row["p"], name) for name, row in out.items() if row["p"] is not None)
    worst = 0.0
    for i, (p, name) in enumerate(family):
        worst = max(worst, min(1.0, p * (len(family) - i)))
        out[name]["p"] = worst
    for row in out.values():
        sure = row["p"] is not None and row["p"] < 0.05
        row["flagged"] = sure and not TOLERATED[0] <= row["among_differing"] <= TOLERATED[1]
    return out


def _sign_test(more: int, less: int) -> float:
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(more, less), more + less, 0.5)))
