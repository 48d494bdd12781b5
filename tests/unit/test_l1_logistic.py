"""The L1 logistic solver against an independent optimiser, and the folds of its cross-validation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from harness.metrics import l1_logistic


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def random_problem(seed: int):
    rng = np.random.default_rng(seed)
    n = 120
    x = np.column_stack([np.tanh(rng.normal(0.5, 1, n)), rng.normal(size=n), np.ones(n)])
    y = np.where(rng.random(n) < 0.3, rng.random(n), (rng.random(n) < 0.4).astype(float))
    return x, y, rng.choice([0.1, 1.0], n)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("c", [0.0464, 0.359, 21.54, 1e4])
def test_the_fit_is_the_optimum_that_scipy_finds(seed: int, c: float) -> None:
    x, y, weights = random_problem(seed)

    def objective(parts):
        w = parts[:3] - parts[3:]
        eta = x @ w
        value = (weights * (np.logaddexp(0, eta) - y * eta)).sum() + parts.sum() / c
        slope = x.T @ (weights * (sigmoid(eta) - y))
        return value, np.concatenate([slope, -slope]) + 1 / c

    found = minimize(
        objective,
        np.zeros(6),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * 6,
        options={"ftol": 0, "gtol": 1e-13, "maxiter": 10_000, "maxls": 100},
    ).x
    ours = l1_logistic.fit(x, y, weights[None], np.full((1, 3), 1 / c))[0]
    np.testing.assert_allclose(ours, found[:3] - found[3:], atol=1e-8)


@pytest.mark.parametrize("c", l1_logistic.GRID)
def test_the_fit_meets_the_optimality_conditions_to_rounding(c: float) -> None:
    x, y, weights = random_problem(9)
    w = l1_logistic.fit(x, y, weights[None], np.full((1, 3), 1 / c))[0]
    slope = x.T @ (weights * (sigmoid(x @ w) - y))
    assert (np.abs(slope) <= 1 / c * (1 + 1e-9) + 1e-11).all()
    np.testing.assert_allclose(slope[w != 0], -np.sign(w[w != 0]) / c, atol=1e-10)


def test_many_fits_at_once_are_the_single_fits() -> None:
    x, y, _ = random_problem(1)
    weights = np.random.default_rng(2).integers(0, 3, (6, len(y))).astype(float)
    together = l1_logistic.fit(x, y, weights, np.full((6, 3), 0.5))
    apart = [l1_logistic.fit(x, y, one[None], np.full((1, 3), 0.5))[0] for one in weights]
    np.testing.assert_allclose(together, apart, atol=1e-12)


def test_stable_folds_go_from_the_last_row_to_the_first() -> None:
    assert l1_logistic.assign_folds(7).tolist() == [1, 0, 4, 3, 2, 1, 0]


def test_legacy_folds_differ_but_are_as_even() -> None:
    legacy = l1_logistic.assign_folds(2415, rule="legacy")
    assert np.bincount(legacy).tolist() == [483] * 5
    assert (legacy != l1_logistic.assign_folds(2415)).mean() > 0.5
    assert (l1_logistic.assign_folds(16, rule="legacy") == l1_logistic.assign_folds(16)).all()


def test_folds_keep_clusters_whole_and_fill_evenly() -> None:
    clusters = [f"c{i % 13}" for i in range(100)]
    folds = l1_logistic.assign_folds(100, clusters)
    assert len({(c, int(f)) for c, f in zip(clusters, folds, strict=True)}) == 13
    assert np.ptp(np.bincount(folds)) <= 8


def test_an_unknown_fold_rule_is_an_error() -> None:
    with pytest.raises(ValueError, match="stable"):
        l1_logistic.assign_folds(10, rule="random")


def test_exactly_collinear_columns_are_fitted_without_crawling() -> None:
    y = np.tile([0.5, 1.0], 20)
    x = np.column_stack([-np.ones(40), np.ones(40)])
    w = l1_logistic.fit(x, y, np.ones((1, 40)), np.array([[1e-4, 0.0]]))[0]
    np.testing.assert_allclose(w, [0.0, np.log(3)], atol=1e-9)
