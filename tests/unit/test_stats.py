from __future__ import annotations

import itertools
import math
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from harness import stats

Z = 1.959963984540054


@st.composite
def pair_counts(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 2000))
    gains = draw(st.integers(0, n))
    return gains, draw(st.integers(0, n - gains)), n


# --- Tango


def brute_force_statistic(gains: int, losses: int, n: int, difference: float) -> float:
    """Tango's statistic with the constrained likelihood maximised numerically, cell by cell."""
    same = n - gains - losses

    def minus_log_likelihood(share: float) -> float:
        cells = ((gains, share + difference), (losses, share), (same, 1 - 2 * share - difference))
        if any(count and p <= 0 for count, p in cells):
            return math.inf
        return -sum(count * math.log(p) for count, p in cells if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    found = scipy.optimize.minimize_scalar(
        minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13}
    )
    share = min([found.x, low, high], key=minus_log_likelihood)
    variance = n * (2 * share + difference - difference**2)
    return (gains - losses - n * difference) / math.sqrt(variance)


CASES = [
    (6, 16, 161),
    (25, 28, 618),
    (12, 2, 50),
    (1, 0, 44),
    (0, 9, 60),
    (3, 3, 7),
    (30, 70, 100),
    (10, 0, 10),
    (2, 0, 3),
]


@pytest.mark.parametrize(("gains", "losses", "n"), CASES)
def test_tango_limits_are_where_the_brute_force_statistic_reaches_the_quantile(gains: int, losses: int, n: int) -> None:
    low, high = stats.tango_interval(gains, losses, n)
    for limit, target in ((low, Z), (high, -Z)):
        if abs(limit) < 1:
            assert brute_force_statistic(gains, losses, n, limit) == pytest.approx(target, abs=2e-4)
            assert stats.tango_statistic(gains, losses, n, limit) == pytest.approx(target, abs=1e-7)


@pytest.mark.parametrize(("gains", "losses", "n"), CASES)
def test_tango_statistic_never_rises_with_the_hypothesis(gains: int, losses: int, n: int) -> None:
    values = [stats.tango_statistic(gains, losses, n, d) for d in np.linspace(-0.999, 0.999, 400)]
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(values))


@pytest.mark.parametrize(
    ("gains", "losses", "n", "level", "low", "high"),
    [
        # Cavo et al. 2012, from Fagerland, Lydersen & Laake's book, as printed by its R package contingencytables
        (6, 16, 161, 0.95, -0.1240, -0.0054),
        # R's PropCIs::scoreci.mp(25, 28, 618, conf.level = 0.90)
        (28, 25, 618, 0.90, -0.0148, 0.0247),
    ],
)
def test_tango_matches_published_r_packages(
    gains: int, losses: int, n: int, level: float, low: float, high: float
) -> None:
    assert stats.tango_interval(gains, losses, n, level) == pytest.approx((low, high), abs=5.1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 60, 1319])
def test_tango_without_discordance_is_the_bound_of_an_event_never_seen(n: int) -> None:
    estimate = stats.tango(0, 0, n)
    bound = Z * Z / (n + Z * Z)
    assert (estimate.low, estimate.high) == pytest.approx((-bound, bound), abs=1e-12)
    assert (estimate.value, estimate.p) == (0.0, 1.0)


@pytest.mark.parametrize("n", [1, 2, 3, 60])
def test_tango_with_every_pair_gained_reaches_one_and_stays_open_below(n: int) -> None:
    low, high = stats.tango_interval(n, 0, n)
    assert high == 1.0
    assert low == pytest.approx(1 - 2 * Z * Z / (n + Z * Z), abs=1e-12)


def test_three_wins_out_of_three_are_no_proof() -> None:
    estimate = stats.paired([1, 1, 1], binary=True)
    assert estimate.low is not None and estimate.low < 0
    assert estimate.p is not None and estimate.p > 0.05


@given(pair_counts())
@settings(max_examples=150, deadline=None)
def test_tango_contains_its_estimate_mirrors_when_swapped_and_agrees_with_its_p(counts: tuple[int, int, int]) -> None:
    gains, losses, n = counts
    estimate, swapped = stats.tango(gains, losses, n), stats.tango(losses, gains, n)
    assert estimate.low is not None and estimate.high is not None and estimate.p is not None
    assert -1 <= estimate.low <= (gains - losses) / n <= estimate.high <= 1
    assert (swapped.low, swapped.high, swapped.p) == (-estimate.high, -estimate.low, estimate.p)
    assert (estimate.p < 0.05) == (not estimate.low <= 0 <= estimate.high)
    if gains + losses:
        mcnemar = (gains - losses) ** 2 / (gains + losses)
        assert estimate.p == pytest.approx(scipy.stats.chi2.sf(mcnemar, 1), abs=1e-12)


def test_tango_takes_under_two_milliseconds() -> None:
    started = time.process_time()
    for losses in range(100):
        stats.tango(100, losses, 1319)
    assert (time.process_time() - started) / 100 < 0.002


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_tango_rejects_impossible_counts(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="tango needs"):
        stats.tango(*counts)


# --- Wilson


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_matches_statsmodels_and_contains_the_share(counts: tuple[int, int]) -> None:
    successes, n = counts
    low, high = stats.wilson(successes, n)
    assert (low, high) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-10)
    assert 0 <= low <= successes / n <= high <= 1


# --- t and bootstrap


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40).filter(lambda d: np.ptp(d) > 1e-3))
@settings(max_examples=50, deadline=None)
def test_t_matches_scipys_paired_test(differences: list[float]) -> None:
    estimate = stats.t_interval(differences)
    reference = scipy.stats.ttest_rel(differences, [0.0] * len(differences))
    limits = reference.confidence_interval()
    assert estimate.p == pytest.approx(reference.pvalue, rel=1e-6, abs=1e-12)
    assert (estimate.low, estimate.high) == pytest.approx((limits.low, limits.high), abs=1e-9)


def test_bootstrap_agrees_with_scipys_and_repeats_itself() -> None:
    values = np.random.default_rng(4).exponential(size=80)
    reference = scipy.stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    ours = stats.bootstrap(values)
    assert ours == pytest.approx((reference.low, reference.high), abs=0.03)
    assert ours == stats.bootstrap(values[::-1])


def test_continuous_differences_use_t_with_a_bootstrap_as_check() -> None:
    values = np.random.default_rng(1).normal(0.1, 0.2, 60)
    estimate = stats.paired(values)
    assert estimate.method == "paired t"
    assert (estimate.low, estimate.high) == pytest.approx(
        scipy.stats.ttest_1samp(values, 0).confidence_interval(), abs=1e-9
    )
    assert estimate.check == pytest.approx((estimate.low, estimate.high), abs=0.02)


# --- clusters


def dense_cr2(values: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Standard error and Satterthwaite df by the matrices of Pustejovsky & Tipton (2018, sections 2 and 3)."""
    n = len(values)
    design = np.ones((n, 1))
    bread = np.linalg.inv(design.T @ design)
    residual_maker = np.eye(n) - design @ bread @ design.T
    residuals = residual_maker @ values
    variance, vectors = 0.0, []
    for label in np.unique(labels):
        chosen = labels == label
        block = residual_maker[np.ix_(chosen, chosen)]
        eigenvalues, basis = np.linalg.eigh(block)
        powers = np.where(eigenvalues > 1e-12, np.abs(eigenvalues) ** -0.5, 0)
        adjusted = bread @ design[chosen].T @ (basis * powers @ basis.T)
        variance += float((adjusted @ residuals[chosen])[0] ** 2)
        vectors.append((adjusted @ residual_maker[chosen])[0])
    products = np.array([[left @ right for right in vectors] for left in vectors])
    return math.sqrt(variance), float(np.trace(products) ** 2 / (products**2).sum())


@pytest.mark.parametrize("sizes", [[5] * 6, [1, 2, 3, 10, 30], [1] * 12, [3, 5, 8, 10, 15, 25, 50]])
def test_cr2_matches_the_dense_matrix_formula(sizes: list[int]) -> None:
    rng = np.random.default_rng(len(sizes))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    values = rng.normal(0.2, 1, len(labels)) + rng.normal(0, 0.5, len(sizes))[labels]
    value, error, df = stats.cr2(*stats.cluster_totals(values, [f"{x:03d}" for x in labels]))
    assert value == pytest.approx(values.mean())
    assert (error, df) == pytest.approx(dense_cr2(values, labels), rel=1e-9)


def test_many_clusters_use_cr2_and_few_use_sign_flips() -> None:
    rng = np.random.default_rng(0)
    for count, method in ((45, "CR2 t over 45 clusters"), (39, "sign-flip permutation over 39 clusters")):
        labels = [f"c{i % count}" for i in range(count * 3)]
        assert stats.paired(rng.normal(size=len(labels)), labels, span=None).method.startswith(method)


def test_k_samples_per_item_make_the_item_the_cluster() -> None:
    values = np.random.default_rng(0).choice([-0.5, -0.25, 0.25, 0.5], 60)
    estimate = stats.paired(values, repeated=True)
    assert estimate.method.startswith("CR2 t over 60 clusters")
    assert (estimate.low, estimate.high) == pytest.approx(
        scipy.stats.ttest_1samp(values, 0).confidence_interval(), abs=1e-9
    )
    assert stats.paired(values[:39], repeated=True).method == "sign-flip permutation over 39 clusters"


def brute_force_sign_flip(values: np.ndarray, labels: np.ndarray, null: float) -> float:
    sums = np.array([(values - null)[labels == label].sum() for label in np.unique(labels)])
    observed = abs(sums.sum())
    flips = [abs(np.dot(signs, sums)) for signs in itertools.product((1, -1), repeat=len(sums))]
    return float(np.mean([flip >= observed - 1e-9 for flip in flips]))


@pytest.mark.parametrize("seed", range(6))
def test_sign_flip_interval_inverts_the_enumerated_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(8), [1, 2, 3, 4, 6, 9, 14, 30])
    values = rng.normal(0.3, 1, len(labels)) + rng.normal(0, 1, 8)[labels]
    estimate = stats.sign_flip(values, [str(x) for x in labels])
    assert estimate.low is not None and estimate.high is not None
    assert estimate.p == pytest.approx(brute_force_sign_flip(values, labels, 0.0))
    assert (estimate.p < 0.05) == (not estimate.low <= 0 <= estimate.high)
    for limit, outward in ((estimate.low, -1e-6), (estimate.high, 1e-6)):
        assert brute_force_sign_flip(values, labels, limit - outward) > 0.05
        assert brute_force_sign_flip(values, labels, limit + outward) <= 0.05


def test_sampled_sign_flips_agree_with_enumerated_ones() -> None:
    rng = np.random.default_rng(2)
    values, labels = rng.normal(0.2, 1, 160), [f"{i % 16:02d}" for i in range(160)]
    exact = stats.sign_flip(values, labels)
    chosen = stats.EXACT_CLUSTERS
    try:
        stats.EXACT_CLUSTERS = 2
        sampled = stats.sign_flip(values, labels)
    finally:
        stats.EXACT_CLUSTERS = chosen
    assert (sampled.low, sampled.high, sampled.p) == pytest.approx((exact.low, exact.high, exact.p), abs=0.02)


@given(
    st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 1.0]), st.integers(0, 11)), min_size=2, max_size=80),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_clustered_differences_mirror_contain_their_estimate_and_agree_with_p(
    rows: list[tuple[float, int]], repeated: bool
) -> None:
    values, labels = [row[0] for row in rows], [str(row[1]) for row in rows]
    estimate = stats.paired(values, labels, repeated=repeated, check=False)
    mirrored = stats.paired([-value for value in values], labels, repeated=repeated, check=False)
    assert estimate.value is not None and estimate.value == pytest.approx(-(mirrored.value or 0.0))
    if estimate.low is None or estimate.high is None or estimate.p is None:
        assert mirrored.low is None
        return
    assert -1 <= estimate.low <= estimate.value + 1e-12 and estimate.value - 1e-12 <= estimate.high <= 1
    assert (mirrored.low, mirrored.high) == pytest.approx((-estimate.high, -estimate.low), abs=1e-9)
    assert mirrored.p == pytest.approx(estimate.p)
    assert (estimate.p < 0.05) == (not estimate.low <= 0 <= estimate.high)


def test_five_clusters_cannot_decide_and_say_so() -> None:
    labels = [str(i % 5) for i in range(500)]
    estimate = stats.paired([1.0] * 500, labels, binary=True)
    assert (estimate.low, estimate.high) == (-1.0, 1.0)
    assert estimate.p == pytest.approx(2 / 32)
    unbounded = stats.paired(np.arange(500) / 7, labels, span=None)
    assert unbounded.low is None and unbounded.value is not None


# --- small and degenerate samples


@pytest.mark.parametrize("options", [{"binary": True}, {}, {"repeated": True}])
def test_no_items_give_nothing_and_one_item_gives_no_interval(options: dict[str, bool]) -> None:
    nothing, single = stats.paired([], **options), stats.paired([1.0], **options)
    assert (nothing.value, nothing.low, nothing.high, nothing.p, nothing.n) == (None, None, None, None, 0)
    assert (single.value, single.low, single.high, single.n) == (1.0, None, None, 1)
    assert stats.mean([], **options).value is None
    assert stats.mean([0.5], **options).low is None


@pytest.mark.parametrize("constant", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("repeated", [False, True])
def test_equal_differences_keep_a_width_that_shrinks_with_n(constant: float, repeated: bool) -> None:
    widths = []
    for n in (3, 50, 600):
        estimate = stats.paired([constant] * n, repeated=repeated)
        assert estimate.low is not None and estimate.high is not None and estimate.p is not None
        assert estimate.low <= constant <= estimate.high and estimate.low < estimate.high
        assert constant in (0.0, 1.0) or estimate.high > constant
        if n == 3:
            assert estimate.low < 0 and estimate.p > 0.05
        widths.append(estimate.high - estimate.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.2


def test_equal_differences_of_an_unknown_range_have_no_interval() -> None:
    estimate = stats.paired([2.0, 2.0, 2.0], span=None)
    assert (estimate.value, estimate.low, estimate.p) == (2.0, None, None)


def test_rare_one_sided_losses_do_not_look_certain() -> None:
    """Two total losses among 100 rouge-like items: t alone would stop near -5 points; unseen ones may be more."""
    values = [0.0] * 98 + [-0.9, -1.0]
    estimate = stats.paired(values)
    assert estimate.low is not None and estimate.low < stats.t_interval(values).low - 0.015  # type: ignore[operator]
    assert "widened" in estimate.method


def test_values_of_one_subject_stay_within_bounds_and_never_become_certain() -> None:
    for options in ({}, {"repeated": True}, {"clusters": [str(i % 10) for i in range(40)]}):
        for value in (0.0, 1.0):
            estimate = stats.mean([value] * 40, **options)
            assert estimate.low is not None and estimate.high is not None
            assert 0 <= estimate.low <= value <= estimate.high <= 1
            assert estimate.high - estimate.low > 0.05


def test_continuous_means_use_t_clipped_to_the_unit_interval() -> None:
    values = [0.01, 0.2, 0.02, 0.05, 0.9]
    estimate = stats.mean(values)
    limits = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    assert estimate.low == 0.0
    assert estimate.high == pytest.approx(limits.high)
    assert stats.mean([10 * v for v in values], bounded=False).low == pytest.approx(10 * limits.low)


# --- several seeds


def test_crossed_variance_is_the_anova_estimate() -> None:
    """Mean squares of the two-way table without replication, combined by hand; the seeds' count double in the df."""
    rng = np.random.default_rng(9)
    d = rng.normal(0.05, 0.3, (6, 50)) + rng.normal(0, 0.2, (1, 50)) + rng.normal(0, 0.1, (6, 1))
    grand, seeds, items = d.mean(), d.mean(1), d.mean(0)
    ms_seeds, ms_items = 50 * seeds.var(ddof=1), 6 * items.var(ddof=1)
    rest = d - seeds[:, None] - items + grand
    ms_rest = (rest**2).sum() / (5 * 49)
    variance = (ms_seeds + ms_items - ms_rest) / 300
    top = (2 * ms_seeds + ms_items - ms_rest) ** 2
    df = top / ((2 * ms_seeds) ** 2 / 5 + ms_items**2 / 49 + ms_rest**2 / (5 * 49))
    estimate = stats.crossed(d, span=None)
    half = scipy.stats.t.ppf(0.975, df) * math.sqrt(variance)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((grand, grand - half, grand + half), rel=1e-9)


def test_fewer_than_five_seeds_support_no_objective_claim() -> None:
    estimate = stats.crossed(np.random.default_rng(0).normal(size=(4, 30)))
    assert estimate.value is not None and estimate.low is None and estimate.p is None
    assert "4 seeds" in estimate.method


def test_the_seeds_of_one_student_widen_the_interval_over_treating_rows_as_independent() -> None:
    rng = np.random.default_rng(3)
    d = rng.normal(0, 0.05, (5, 1)) + rng.normal(0, 0.2, (5, 400))
    crossed = stats.crossed(d)
    naive = stats.t_interval(d.ravel())
    assert crossed.low is not None and naive.low is not None
    assert (crossed.high or 0) - crossed.low > 2 * ((naive.high or 0) - naive.low)


def test_importing_the_statistics_loads_neither_numpy_nor_scipy() -> None:
    code = (
        "import sys, harness.gate, harness.compare, harness.power; "
        "assert not {'numpy', 'scipy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
