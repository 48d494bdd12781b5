"""Win rates with the judge's taste for length taken out: AlpacaEval's formula, and a minimal one for your own prompts.

Preferences are for b (the student, or AlpacaEval's model) over a (the baseline), in [0, 1]; lengths are characters
(code points, as AlpacaEval counts them). The length term is tanh((length_a - length_b) / its standard deviation), so
a judge that likes length has a negative coefficient. docs/judging.md says what this assumes and when it is refused.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from harness.metrics import l1_logistic
from harness.metrics.l1_logistic import Floats
from harness.metrics.length_bins import (
    Bin,
    Overlap,
    by_length,
    checked,
    length_matched,
    length_only_accuracy,
    overlap,
    why_not_estimable,
)
from harness.stats import cluster_totals, cr2

__all__ = [
    "Bin",
    "Gamed",
    "LengthControlled",
    "Overlap",
    "Penalised",
    "WinRate",
    "by_length",
    "length_controlled",
    "length_matched",
    "length_only_accuracy",
    "overlap",
    "win_rate",
]

Values = Sequence[float] | Floats
GAMED_WEIGHT = 0.1  # AlpacaEval's lambda 0.2, shared by its two gamed baselines
DRAWS = 1000


@dataclass(frozen=True, slots=True)
class WinRate:
    """A mean preference in [0, 1] and its standard error (None for one row, or one cluster)."""

    value: float
    standard_error: float | None
    n: int
    n_wins: int
    n_losses: int
    n_draws: int


@dataclass(frozen=True, slots=True)
class Gamed:
    """Judged rows [m] of the baseline prompted to be brief or wordy: they anchor the slope of length.

    `std_delta_length` is (length_a - length_b) over its standard deviation.
    """

    preference: Floats
    std_delta_length: Floats
    difficulty: Floats


@dataclass(frozen=True, slots=True)
class Penalised:
    """The estimate under one penalty C, its cross-validated log-likelihood, and whether the data rule C out.

    `plausible`: no further below the best score than one standard error of the difference between folds.
    """

    penalty: float
    value: float
    score: float
    plausible: bool


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A length-controlled win rate in [0, 1]; None where it is not estimable, and `reason` then says why.

    `low`, `high` and `standard_error` come from refits on resampled items; `official_standard_error` is AlpacaEval's,
    which leaves out the uncertainty of the fit. `forms`: the estimate under other shapes of the length effect.
    """

    formula: Literal["alpaca_eval", "minimal"]
    value: float | None
    low: float | None
    high: float | None
    standard_error: float | None
    official_standard_error: float | None
    penalty: float
    coefficients: dict[str, float]
    n: int
    overlap: Overlap
    penalties: tuple[Penalised, ...] = ()
    forms: dict[str, float] = field(default_factory=dict)
    estimable: bool = True
    reason: str = ""

    @property
    def penalty_range(self) -> tuple[float, float] | None:
        """Lowest and highest estimate over the penalties that the data do not rule out."""
        values = [one.value for one in self.penalties if one.plausible]
        return (min(values), max(values)) if values else None

    @property
    def form_range(self) -> tuple[float, float] | None:
        """Lowest and highest estimate over the shapes of the length effect."""
        return (min(self.forms.values()), max(self.forms.values())) if self.forms else None


def win_rate(preferences: Values, clusters: Sequence[Hashable] | None = None) -> WinRate:
    """Mean of `preferences` [n >= 1] with AlpacaEval's standard error, std(ddof=1) / sqrt(n); CR2 over `clusters`.

    A draw is a preference of exactly one half. Raises ValueError for no rows or values outside [0, 1].
    """
    (y,) = checked(preferences)
    error: float | None = None
    if clusters is not None and len(set(clusters)) < len(y):
        totals, sizes = cluster_totals(y, clusters)
        error = cr2(totals, sizes)[1] if len(totals) > 1 else None
    elif len(y) > 1:
        error = float(y.std(ddof=1) / np.sqrt(len(y)))
    wins, losses = int((y > 0.5).sum()), int((y < 0.5).sum())
    return WinRate(float(y.mean()), error, len(y), wins, losses, len(y) - wins - losses)


def length_controlled(
    preferences: Values,
    length_a: Values,
    length_b: Values,
    difficulty: Values | None = None,
    gamed: Gamed | None = None,
    penalty: Literal["cv"] | float = "cv",
    folds: Literal["stable", "legacy"] = "stable",
    *,
    clusters: Sequence[Hashable] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> LengthControlled:
    """The win rate that is left when both answers are equally long; arrays [n], n >= 1.

    With `difficulty` [n] and `gamed` rows, AlpacaEval 2's formula (Dubois et al. 2024; glm_winrate.py): logit p =
    w_l tanh(length) + w_d difficulty + w_b, every coefficient penalised, averaged over items with the length term at
    zero. Without, the minimal formula logit p = theta + phi tanh(length), value sigmoid(theta); only phi is
    penalised, because a penalty on theta would pull every small sample to 50%. It is refused where the data cannot
    tell length from quality (`why_not_estimable`).

    `penalty` is C, or "cv": the first best of ten by 5-fold cross-validation. `folds`: see `assign_folds`; `clusters`
    [n] stay whole in folds and resamples. The interval is the percentile one of `draws` seeded resamples of items (or
    clusters) refitted at the chosen C with the length's scale kept; 0 draws: none.

    Raises:
        ValueError: no rows, unequal lengths, values out of range, or one of `difficulty` and `gamed` without the other.
    """
    y, a, b = checked(preferences, length_a, length_b)
    if (difficulty is None) != (gamed is None):
        raise ValueError("AlpacaEval's formula needs both difficulty and gamed rows; the minimal one neither")
    if penalty != "cv" and not penalty > 0:
        raise ValueError(f"penalty must be 'cv' or a positive C, not {penalty!r}")
    shared = overlap(a, b)
    if gamed is not None and difficulty is not None:
        model = _official(y, tanh_length(a, b), np.asarray(difficulty, dtype=np.float64), gamed)
        reason = ""
        if (y == 0.5).all() and (a == b).all():
            return LengthControlled("alpaca_eval", 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, {}, len(y), shared)
    else:
        model = _minimal(y, tanh_length(a, b)[:, None])
        reason = why_not_estimable(y, shared)
    labels: Sequence[Hashable] | None = None
    if clusters is not None and len(set(clusters)) < len(y):
        labels = [*(("gamed", i) for i in range(model.anchors)), *clusters]
    grid = model.fits(np.tile(model.weights, (len(l1_logistic.GRID), 1)), l1_logistic.GRID)
    penalties = _penalties(model, grid, l1_logistic.assign_folds(len(model.y), labels, folds))
    chosen = max(penalties, key=lambda one: one.score).penalty if penalty == "cv" else float(penalty)
    w = model.fits(model.weights[None], (chosen,))[0]
    each = l1_logistic.sigmoid(model.at_zero @ w)
    drawn = model.resampled(chosen, clusters, draws, seed) if draws and not reason else np.empty(0)
    low, high = (float(q) for q in np.quantile(drawn, [0.025, 0.975])) if len(drawn) else (None, None)
    official = None
    if gamed is not None and len(y) > 1:
        official = float(each.std(ddof=1) / np.sqrt(len(y)))
    return LengthControlled(
        formula="minimal" if gamed is None else "alpaca_eval",
        value=None if reason else float(each.mean()),
        low=low,
        high=high,
        standard_error=float(drawn.std(ddof=1)) if len(drawn) > 1 else None,
        official_standard_error=official,
        penalty=chosen,
        coefficients=dict(zip(model.names, w.tolist(), strict=True)),
        n=len(y),
        overlap=shared,
        penalties=penalties,
        forms=_forms(y, a, b, chosen) if gamed is None else {},
        estimable=not reason,
        reason=reason,
    )


@dataclass(frozen=True, slots=True)
class _Model:
    """Features [m, p], targets and weights [m] with `anchors` rows of other answers first; rows to predict [n, p]."""

    names: tuple[str, ...]
    x: Floats
    y: Floats
    weights: Floats
    price: Floats
    at_zero: Floats
    anchors: int

    def fits(self, weights: Floats, penalties: Sequence[float]) -> Floats:
        """Coefficients [B, p] under B rows of weights and penalties C."""
        prices = self.price[None, :] / np.array(penalties)[:, None]
        return l1_logistic.fit(self.x, self.y, weights, np.broadcast_to(prices, (len(weights), len(self.price))))

    def resampled(self, penalty: float, clusters: Sequence[Hashable] | None, draws: int, seed: int) -> Floats:
        """Estimates [draws] on resampled items or clusters; the anchors stay."""
        n = len(self.at_zero)
        groups = np.unique([str(c) for c in clusters], return_inverse=True)[1] if clusters is not None else np.arange(n)
        count = int(groups.max()) + 1
        rng, found = np.random.default_rng(seed), []
        for at in range(0, draws, 250):
            times = rng.multinomial(count, np.full(count, 1 / count), size=min(250, draws - at))[:, groups]
            times = times[times.sum(axis=1) > 0].astype(np.float64)
            kept = np.broadcast_to(self.weights[: self.anchors], (len(times), self.anchors))
            w = self.fits(np.hstack([kept, times * self.weights[self.anchors :]]), (penalty,))
            each = l1_logistic.sigmoid(w @ self.at_zero.T)
            found.append((each * times).sum(axis=1) / times.sum(axis=1))
        return np.concatenate(found)


def tanh_length(a: Floats, b: Floats) -> Floats:
    """Tanh of (a - b) over its standard deviation (ddof 1, not centred); unscaled where all differences are equal."""
    delta = a - b
    spread = float(delta.std(ddof=1)) if len(delta) > 1 else 0.0
    return np.asarray(np.tanh(delta / spread if spread > 0 else delta))


def _official(y: Floats, length: Floats, difficulty: Floats, gamed: Gamed) -> _Model:
    if difficulty.shape != y.shape or not np.isfinite(difficulty).all():
        raise ValueError(f"difficulty must be {len(y)} finite numbers, one per row")
    anchors = np.column_stack(
        [np.tanh(gamed.std_delta_length), gamed.difficulty, np.zeros_like(gamed.difficulty, dtype=np.float64)]
    )
    rows = np.column_stack([length, difficulty, np.ones_like(y)])
    m = len(anchors)
    return _Model(
        names=("tanh_length", "difficulty", "not_gamed"),
        x=np.vstack([anchors, rows]),
        y=np.concatenate([np.asarray(gamed.preference, dtype=np.float64), y]),
        weights=np.concatenate([np.full(m, GAMED_WEIGHT), np.ones_like(y)]),
        price=np.ones(3),
        at_zero=rows * np.array([0.0, 1.0, 1.0]),
        anchors=m,
    )


def _minimal(y: Floats, length: Floats) -> _Model:
    x = np.column_stack([length, np.ones_like(y)])
    names = ("tanh_length", "quality") if length.shape[1] == 1 else tuple(f"x{i}" for i in range(x.shape[1]))
    price = np.append(np.ones(length.shape[1]), 0.0)
    at_zero = np.zeros_like(x)
    at_zero[:, -1] = 1.0
    return _Model(names, x, y, np.ones_like(y), price, at_zero, 0)


def _penalties(model: _Model, fits: Floats, folds: l1_logistic.Integers) -> tuple[Penalised, ...]:
    scores = l1_logistic.cross_validate(model.x, model.y, model.weights, model.price, folds)
    means = scores.mean(axis=1)
    behind = scores[int(means.argmax())] - scores
    error = behind.std(axis=1, ddof=1) / np.sqrt(scores.shape[1]) if scores.shape[1] > 1 else np.zeros(len(means))
    values = l1_logistic.sigmoid(fits @ model.at_zero.T).mean(axis=1)
    return tuple(
        Penalised(c, float(values[i]), float(means[i]), bool(behind[i].mean() <= error[i] + 1e-15))
        for i, c in enumerate(l1_logistic.GRID)
    )


def _forms(y: Floats, a: Floats, b: Floats, penalty: float) -> dict[str, float]:
    """The minimal estimate under four shapes of the length effect, each zero at equal lengths and blind to the sides.

    `spline` is piecewise linear in the log ratio, with knots at its median size on either side.
    """
    ratio = np.log((a + 1) / (b + 1))
    spread = float(ratio.std()) or 1.0
    knot = float(np.median(np.abs(ratio)))
    spline = np.column_stack(
        [np.clip(ratio, -knot, knot), np.maximum(ratio - knot, 0), np.minimum(ratio + knot, 0)],
    )
    shapes = {
        "tanh": tanh_length(a, b)[:, None],
        "log_ratio": ratio[:, None] / spread,
        "spline": spline / spread,
        "step": np.sign(ratio)[:, None],
    }
    found = {}
    for name, shape in shapes.items():
        model = _minimal(y, shape)
        w = model.fits(model.weights[None], (penalty,))[0]
        found[name] = float(l1_logistic.sigmoid(w[-1:])[0])
    return found
