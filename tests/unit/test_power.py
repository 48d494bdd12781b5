from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from harness import power, stats


def exact_power(n: int, gain: float, loss: float, bound: float = 0.0) -> float:
    """Probability that Tango's lower limit is above `bound`, by enumeration over the discordant pairs."""
    total = 0.0
    for discordant in range(n + 1):
        weight = scipy.stats.binom.pmf(discordant, n, gain + loss)
        if weight < 1e-9:
            continue
        wins = np.arange(discordant + 1)
        share = scipy.stats.binom.pmf(wins, discordant, gain / (gain + loss))
        passes = [stats.tango_statistic(int(w), discordant - int(w), n, bound) > 1.959964 for w in wins]
        total += weight * float(share[np.array(passes, dtype=bool)].sum())
    return total


@pytest.mark.parametrize(("n", "discordance"), [(200, 0.3), (600, 0.15), (400, 0.05)])
def test_a_detectable_difference_passes_four_times_in_five(n: int, discordance: float) -> None:
    effect = power.detectable_difference(n, discordance=discordance)
    assert effect is not None
    share = max(discordance, effect)
    assert exact_power(n, (share + effect) / 2, (share - effect) / 2) == pytest.approx(0.8, abs=0.04)
    assert power.chance_to_pass(n, effect, discordance=discordance) == pytest.approx(0.8, abs=1e-6)


def test_a_detectable_difference_in_a_continuous_metric_matches_the_noncentral_t() -> None:
    n, sd = 50, 0.3
    effect = power.detectable_difference(n, sd=sd)
    assert effect is not None
    quantile = scipy.stats.t.ppf(0.975, n - 1)
    assert scipy.stats.nct.sf(quantile, n - 1, effect / sd * math.sqrt(n)) == pytest.approx(0.8, abs=0.01)


def test_clusters_cost_items_and_few_items_detect_nothing() -> None:
    alone = power.detectable_difference(600, discordance=0.2)
    clustered = power.detectable_difference(600, discordance=0.2, design_effect=4)
    assert alone is not None and clustered is not None
    assert clustered == pytest.approx(power.detectable_difference(150, discordance=0.2))
    assert clustered > 1.8 * alone
    assert power.detectable_difference(3, discordance=0.1) is None
    assert power.detectable_difference(1, sd=1.0) is None


def test_exactly_one_kind_of_spread_is_given() -> None:
    for options in ({}, {"discordance": 0.1, "sd": 0.2}):
        with pytest.raises(ValueError, match="either"):
            power.detectable_difference(100, **options)


@pytest.mark.parametrize(("margin", "expected"), [(0.01, 0.15), (0.02, 0.47), (0.03, 0.80)])
def test_equal_models_pass_a_margin_as_often_as_simulated(margin: float, expected: float) -> None:
    """GSM8K's 1,319 items at 15% discordance: simulated figures of facts on non-inferiority."""
    found = power.chance_to_pass(1319, 0.0, margin=margin, discordance=0.15)
    assert found == pytest.approx(expected, abs=0.01)
    assert exact_power(1319, 0.075, 0.075, -margin) == pytest.approx(found, abs=0.015)


@pytest.mark.parametrize(("n", "value", "rule"), [(300, 0.8, "min"), (600, 0.1, "max")])
def test_a_detectable_rate_passes_four_times_in_five(n: int, value: float, rule: str) -> None:
    rate = power.detectable_rate(n, value, rule)  # type: ignore[arg-type]
    assert rate is not None and (rate > value) == (rule == "min")
    right = np.arange(n + 1)
    passes = [
        stats.wilson(int(k), n)[0] >= value if rule == "min" else stats.wilson(int(k), n)[1] <= value for k in right
    ]
    assert scipy.stats.binom.pmf(right, n, rate)[np.array(passes)].sum() == pytest.approx(0.8, abs=0.04)


def test_no_rate_is_high_enough_for_three_items() -> None:
    assert power.detectable_rate(3, 0.9, "min") is None


def test_the_required_number_of_items_decides_four_times_in_five() -> None:
    """Observed at n: 55 gains, 45 losses of 500. At the required n and these rates, Tango passes with about 80%."""
    observed = stats.tango(55, 45, 500)
    assert observed.value is not None and observed.low is not None and observed.high is not None
    needed = power.required_items(500, observed.value, observed.low, observed.high)
    assert needed is not None and needed > 500
    gains, losses = 0.11, 0.09
    error = math.sqrt((gains + losses) / needed)
    passes = scipy.stats.norm.sf(1.959964 - (gains - losses) / error)
    assert passes == pytest.approx(0.8, abs=0.02)


def test_nothing_decides_what_lies_on_the_threshold() -> None:
    assert power.required_items(100, 0.0, -0.1, 0.1) is None
    assert power.required_items(100, -0.02, -0.1, 0.06, threshold=-0.02) is None
    assert power.required_items(0, 0.1, 0.0, 0.2) is None


def test_a_control_variate_narrows_the_interval_and_matches_the_regression() -> None:
    rng = np.random.default_rng(0)
    everyone = rng.random(2000) < 0.6
    y = np.where(rng.random(300) < 0.85, everyone[:300], ~everyone[:300]).astype(float)
    found = power.control_variate(y, everyone[:300].astype(float), everyone.astype(float))
    plain = stats.t_interval(y)
    fit = scipy.stats.linregress(everyone[:300].astype(float), y)
    assert found.value == pytest.approx(fit.intercept + fit.slope * everyone.mean())
    assert found.low is not None and found.high is not None and plain.low is not None and plain.high is not None
    assert found.high - found.low < 0.85 * (plain.high - plain.low)


def test_a_control_variate_without_a_larger_pool_changes_nothing_much() -> None:
    rng = np.random.default_rng(1)
    x = rng.random(200)
    y = x + rng.normal(0, 0.2, 200)
    found, plain = power.control_variate(y, x, x), stats.t_interval(y)
    assert found.value == pytest.approx(plain.value)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), rel=0.01)


def test_a_control_variate_covers_as_promised() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(1000):
        pool = (rng.random(400) < 0.7).astype(float)
        y = np.where(rng.random(100) < 0.8, pool[:100], 1 - pool[:100])
        found = power.control_variate(y, pool[:100], pool)
        assert found.low is not None and found.high is not None
        hits += found.low <= 0.7 * 0.8 + 0.3 * 0.2 <= found.high
    assert hits >= 925


def test_a_pool_smaller_than_the_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="pool no smaller"):
        power.control_variate([0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 1.0])
