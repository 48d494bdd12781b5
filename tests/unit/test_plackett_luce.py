"""Plackett-Luce losses against brute force over all rankings, in float64 and written apart from the library."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.records import ProctorError
from harness.training import plackett_luce
from harness.training.plackett_luce import Divergence, Layout, decomposed_ppd, log_prob_of_ranking, ppd, vpd

log_probs_of_rankings = plackett_luce.log_probs_of_rankings

LOG_2 = math.log(2)


def scores(n: int, groups: int = 3, seed: int = 0, scale: float = 2.0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 100 + n)
    return (torch.randn(groups, n, generator=generator, dtype=torch.float64) * scale).to(dtype)


def by_hand(row: Tensor) -> Tensor:
    """Probabilities of all rankings of one group [n] -> [n!]: a product of exp / sum of exp, from the definition."""
    found = []
    for order in permutations(range(len(row))):
        p = torch.ones((), dtype=torch.float64)
        for i, item in enumerate(order):
            p = p * row[item].exp() / torch.stack([row[j].exp() for j in order[i:]]).sum()
        found.append(p)
    return torch.stack(found)


def divergence_by_hand(student: Tensor, teacher: Tensor, divergence: str) -> Tensor:
    p, q = by_hand(student), by_hand(teacher)
    m = (p + q) / 2

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a * (a / b).log()).sum()

    return {"jsd": (kl(p, m) + kl(q, m)) / 2, "kl": kl(q, p), "released_code": (kl(m, p) + kl(m, q)) / 2}[divergence]


DIVERGENCES: tuple[Divergence, ...] = ("jsd", "kl", "released_code")


def with_gradient(loss: Callable[..., Tensor], student: Tensor, *rest: Any, **params: Any) -> tuple[Tensor, Tensor]:
    student = student.detach().clone().requires_grad_()
    value = loss(student, *rest, **params)
    return value.detach(), torch.autograd.grad(value.sum(), student)[0]


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_values_and_gradients_are_those_of_brute_force(n: int, divergence: Divergence) -> None:
    student, teacher = scores(n, seed=1), scores(n, seed=2)
    hand = partial(divergence_by_hand, divergence=divergence)
    value, gradient = with_gradient(lambda s: torch.stack(list(map(hand, s, teacher))), student)
    for dtype, relative in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        other = teacher.to(dtype)
        got = with_gradient(ppd, student.to(dtype), other, divergence=divergence)
        assert got[0].dtype == dtype
        assert torch.allclose(got[0].double(), value, rtol=relative, atol=0)
        assert float((got[1].double() - gradient).abs().max()) <= relative * float(gradient.abs().max())


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("layout", ["recursion", "gather"])
def test_rankings_have_their_probabilities_in_the_order_of_permutations(n: int, layout: Layout) -> None:
    table = log_probs_of_rankings(scores(n), layout)
    for row, group in zip(table, scores(n), strict=True):
        assert torch.allclose(row.exp(), by_hand(group), rtol=1e-12)
    for k, order in enumerate(permutations(range(n))):
        one = log_prob_of_ranking(scores(n), torch.tensor(order).expand(3, n))
        assert torch.allclose(one, table[:, k], atol=1e-12)


@pytest.mark.parametrize("n", range(2, 9))
def test_the_two_layouts_agree_in_value_and_gradient(n: int) -> None:
    student, teacher = scores(n, seed=3), scores(n, seed=4)
    recursion = with_gradient(ppd, student, teacher, layout="recursion")
    gather = with_gradient(ppd, student, teacher, layout="gather")
    assert torch.allclose(recursion[0], gather[0], rtol=1e-12)
    assert torch.allclose(recursion[1], gather[1], atol=1e-13)
    if n < 8:  # the pull-back over subsets against automatic differentiation through the table
        weights = scores(math.factorial(n), seed=5)
        taped = with_gradient(lambda s: log_probs_of_rankings(s, "gather") * weights, student)[1]
        assert torch.allclose(with_gradient(lambda s: log_probs_of_rankings(s) * weights, student)[1], taped)


def test_nine_responses_are_exact_and_chunks_of_rows_change_nothing() -> None:
    student, teacher = scores(9, 1, seed=6, scale=0.5), scores(9, 1, seed=7, scale=0.5)
    value = ppd(student, teacher)
    p, q = log_probs_of_rankings(student).exp(), log_probs_of_rankings(teacher).exp()
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-12)
    m = (p + q) / 2
    assert float(value) == pytest.approx(float((p * (p / m).log() + q * (q / m).log()).sum() / 2), rel=1e-10)
    seven = with_gradient(ppd, scores(7, 60, seed=6), scores(7, 60, seed=7))  # more rows than one chunk holds
    last = with_gradient(ppd, scores(7, 60, seed=6)[59:], scores(7, 60, seed=7)[59:])
    assert torch.equal(seven[0][59:], last[0]) and torch.equal(seven[1][59:], last[1])


def test_ten_responses_are_refused_with_the_ways_out() -> None:
    student = scores(10)
    with pytest.raises(ValueError, match=r"3628800 rankings of 10 responses.*decompose into rounds.*kl.*vpd") as error:
        ppd(student, student + 1)
    assert isinstance(error.value, ProctorError)
    assert torch.isfinite(ppd(student, scores(10, seed=1), divergence="kl")).all()
    assert torch.isfinite(vpd(student, scores(10, seed=1))).all()
    with pytest.raises(ValueError, match="unknown: use one of jsd, kl, released_code"):
        ppd(student, student, divergence="js")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="never mix groups"):
        ppd(student, student, mix_batch=True)
    with pytest.raises(ValueError, match="differ in shape"):
        ppd(student, student[:, :4])


def test_kl_reaches_beyond_the_rankings_it_could_enumerate() -> None:
    # two blocks so far apart that their order is certain: the KL is the sum of the blocks' own
    left, right = (scores(5, seed=8), scores(5, seed=9)), (scores(5, seed=10), scores(5, seed=11))
    joint = [torch.cat([a + 400.0, b], dim=-1) for a, b in zip(left, right, strict=True)]
    parts = ppd(left[0], left[1], divergence="kl") + ppd(right[0], right[1], divergence="kl")
    assert torch.allclose(ppd(joint[0], joint[1], divergence="kl"), parts, rtol=1e-10)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_renaming_the_responses_renames_the_gradient(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 5))
    values = st.lists(st.floats(-20, 20), min_size=n, max_size=n)
    student = torch.tensor([data.draw(values)], dtype=torch.float64)
    teacher = torch.tensor([data.draw(values)], dtype=torch.float64)
    order = torch.tensor(data.draw(st.permutations(range(n))))
    for divergence in DIVERGENCES:
        value, gradient = with_gradient(ppd, student, teacher, divergence=divergence)
        other = with_gradient(ppd, student[:, order], teacher[:, order], divergence=divergence)
        assert torch.allclose(value, other[0], rtol=1e-9, atol=1e-12)
        assert torch.allclose(gradient[:, order], other[1], rtol=1e-9, atol=1e-12)
        assert float(value) >= -1e-12 and (divergence != "jsd" or float(value) <= LOG_2)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_shift_of_all_scores_changes_nothing_and_gradients_sum_to_zero(divergence: Divergence) -> None:
    student, teacher = scores(5, seed=1), scores(5, seed=2)
    value, gradient = with_gradient(ppd, student, teacher, divergence=divergence)
    shifted = with_gradient(ppd, student + 300.0, teacher - 41.0, divergence=divergence)
    assert torch.allclose(value, shifted[0], rtol=1e-10) and torch.allclose(gradient, shifted[1], atol=1e-10)
    assert float(gradient.sum(-1).abs().max()) < 1e-12


@pytest.mark.parametrize("n", [2, 4, 7])
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_distributions_have_no_loss_and_no_gradient(n: int, divergence: Divergence, dtype: torch.dtype) -> None:
    teacher = scores(n, dtype=dtype)
    value, gradient = with_gradient(ppd, teacher, teacher, divergence=divergence)
    rounding = 2e-6 if dtype == torch.float32 else 1e-14
    assert float(value.abs().max()) <= (rounding if divergence == "released_code" else 0.0)
    assert float(gradient.abs().max()) <= (0.0 if divergence == "jsd" else rounding)


def test_jsd_is_symmetric_and_bounded_and_kl_is_not() -> None:
    student, teacher = scores(4, seed=1, scale=50.0), scores(4, seed=2, scale=50.0)
    assert torch.allclose(ppd(student, teacher), ppd(teacher, student), rtol=1e-12)
    assert float(ppd(student, teacher).max()) <= LOG_2
    forth, back = ppd(student, teacher, divergence="kl"), ppd(teacher, student, divergence="kl")
    assert float(forth.max()) > LOG_2 and not torch.allclose(forth, back)


def test_two_responses_are_a_bernoulli_jsd() -> None:
    student, teacher = scores(2, seed=1), scores(2, seed=2)
    p, q = torch.sigmoid(student[:, 0] - student[:, 1]), torch.sigmoid(teacher[:, 0] - teacher[:, 1])
    mixed, of_p, of_q = (-(x * x.log() + (1 - x) * (1 - x).log()) for x in ((p + q) / 2, p, q))
    assert torch.allclose(ppd(student, teacher), mixed - (of_p + of_q) / 2, rtol=1e-12)


@pytest.mark.parametrize("loss", [ppd, vpd])
def test_one_response_has_nothing_to_rank(loss: Callable[..., Tensor]) -> None:
    value, gradient = with_gradient(loss, scores(1), scores(1, seed=1))
    assert value.tolist() == [0, 0, 0] and gradient.abs().max() == 0


def test_ties_are_ranked_by_index_and_share_their_probability() -> None:
    student, teacher = scores(4), torch.tensor([[1.0, 2.0, 1.0, 2.0]], dtype=torch.float64)
    order = torch.tensor([[1, 3, 0, 2]])
    assert torch.equal(vpd(student[:1], teacher), -log_prob_of_ranking(student[:1], order))
    level = torch.zeros(1, 4, dtype=torch.float64)
    assert torch.allclose(log_probs_of_rankings(level).exp(), torch.full((1, 24), 1 / 24, dtype=torch.float64))
    assert float(vpd(level, level)) == pytest.approx(math.log(24))
    assert with_gradient(ppd, student[:1], teacher)[1].isfinite().all()


@pytest.mark.parametrize("n", [2, 4, 6, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_of_a_thousand_are_finite_in_value_and_gradient(n: int, dtype: torch.dtype) -> None:
    near = torch.tensor([[1.0, 1.0 + 1e-3, -1.0, 0.5, 0.25, -1.0, 0.9][:n]], dtype=dtype) * 1e3
    rows = torch.cat([torch.linspace(-1e3, 1e3, n, dtype=dtype)[None], near, scores(n, 2, dtype=dtype) * 500])
    for student, teacher in ((rows, rows.flip(-1)), (rows, rows * 0), (rows * 0, rows)):
        results = [with_gradient(ppd, student, teacher, divergence=divergence) for divergence in DIVERGENCES]
        for value, gradient in (*results, with_gradient(vpd, student, teacher)):
            assert value.isfinite().all() and gradient.isfinite().all()
    assert float(ppd(rows[:1], rows[:1].flip(-1))) == pytest.approx(LOG_2, rel=1e-6)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_the_gradients_are_those_of_finite_differences(n: int) -> None:
    student, teacher = scores(n, 2, seed=1).requires_grad_(), scores(n, 2, seed=2)
    for divergence in DIVERGENCES:
        assert torch.autograd.gradcheck(partial(ppd, teacher=teacher, divergence=divergence), (student,))
    assert torch.autograd.gradcheck(partial(vpd, teacher=teacher), (student,))


def test_vpd_is_the_negative_log_likelihood_of_the_teachers_order() -> None:
    student, teacher = scores(4, seed=1), scores(4, seed=2)
    rankings = list(permutations(range(4)))
    for row, (group, rewards) in enumerate(zip(student, teacher, strict=True)):
        order = tuple(rewards.argsort(descending=True).tolist())
        expected = -float(by_hand(group)[rankings.index(order)].log())
        assert float(vpd(student, teacher)[row]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_no_group_depends_on_the_rest_of_its_micro_batch(divergence: Divergence) -> None:
    student, teacher = scores(4, seed=1), scores(4, seed=2)
    value, gradient = with_gradient(ppd, student, teacher, divergence=divergence)
    for part in (slice(0, 1), slice(1, 2), slice(2, 3)):
        alone = with_gradient(ppd, student[part], teacher[part], divergence=divergence)
        assert torch.equal(alone[0], value[part]) and torch.equal(alone[1], gradient[part])


def test_the_released_code_mixes_the_prompts_of_a_micro_batch() -> None:
    student, teacher = scores(4, 2, seed=1), scores(4, 2, seed=2)
    alone = ppd(student[:1], teacher[:1], divergence="released_code", mix_batch=True)
    assert torch.allclose(alone, ppd(student[:1], teacher[:1], divergence="released_code"), rtol=1e-12)
    p, q = torch.stack([by_hand(s) for s in student]), torch.stack([by_hand(t) for t in teacher])
    m = (p + q).sum(0) / 2  # of mass 2
    expected = ((m * (m / p).log()).sum(-1) + (m * (m / q).log()).sum(-1)) / 2
    mixed = ppd(student, teacher, divergence="released_code", mix_batch=True)
    assert torch.allclose(mixed, expected, rtol=1e-12)
    assert float(mixed[0]) > float(alone) + 0.1


def test_absent_responses_are_as_if_they_had_never_been_sampled() -> None:
    student, teacher = scores(5, 6, seed=1), scores(5, 6, seed=2)
    present = torch.tensor(
        [[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [1, 0, 1, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]]
    ).bool()
    for loss in (ppd, vpd, partial(ppd, divergence="kl")):
        value, gradient = with_gradient(loss, student, teacher, present)
        for row, mask in enumerate(present):
            alone = with_gradient(loss, student[row : row + 1, mask], teacher[row : row + 1, mask])
            assert mask.sum() >= 2 or float(alone[0]) == 0
            assert torch.allclose(alone[0][0], value[row], rtol=1e-12)
            assert torch.allclose(alone[1][0], gradient[row, mask], atol=1e-14)
            assert (gradient[row, ~mask] == 0).all()


def test_the_teacher_is_a_constant_and_a_first_call_without_gradient_leaves_no_trace() -> None:
    plackett_luce._levels.cache_clear()
    with torch.inference_mode():
        ppd(scores(4), scores(4, seed=1))
    student, teacher = scores(4).requires_grad_(), scores(4, seed=1).requires_grad_()
    for divergence in DIVERGENCES:
        losses = ppd(student, teacher, divergence=divergence)
        gradients = torch.autograd.grad(losses.sum(), (student, teacher), allow_unused=True)
        assert gradients[0] is not None and gradients[1] is None


def test_a_decomposed_loss_is_the_mean_over_subsets_and_not_the_joint_loss() -> None:
    student, teacher = scores(4, seed=1), scores(4, seed=2)
    pairs = ppd(student[:, :2], teacher[:, :2]) + ppd(student[:, 2:], teacher[:, 2:])
    assert torch.allclose(decomposed_ppd(student, teacher, 2), pairs / 2, rtol=1e-12)
    assert torch.allclose(decomposed_ppd(student, teacher, 4), ppd(student, teacher), rtol=1e-12)
    assert float((pairs - ppd(student, teacher)).abs().min()) > 1e-3
    with pytest.raises(ValueError, match="4 responses cannot be split into subsets of 3"):
        decomposed_ppd(student, teacher, 3)
    present = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 0, 0]]).bool()
    masked = decomposed_ppd(student, teacher, 2, present)
    assert torch.allclose(masked[:1], ppd(student[:1, :2], teacher[:1, :2]), rtol=1e-12)
    assert torch.allclose(masked[1], pairs[1] / 2, rtol=1e-12) and float(masked[2]) == 0


def test_kl_of_product_laws_is_additive_and_their_jsd_is_not() -> None:
    # Appendix A of the paper claims both
    student, teacher = scores(4, seed=1, scale=4.0), scores(4, seed=3, scale=4.0)
    p, q = ([by_hand(s[0, :2]), by_hand(s[0, 2:])] for s in (student, teacher))
    joint_p, joint_q = (torch.outer(*x).flatten() for x in (p, q))
    kl = float((joint_q * (joint_q / joint_p).log()).sum())
    assert kl == pytest.approx(2 * float(decomposed_ppd(student, teacher, 2, divergence="kl")[0]), rel=1e-12)
    m = (joint_p + joint_q) / 2
    jsd = float((joint_p * (joint_p / m).log() + joint_q * (joint_q / m).log()).sum()) / 2
    assert abs(jsd - 2 * float(decomposed_ppd(student, teacher, 2)[0])) > 1e-3
