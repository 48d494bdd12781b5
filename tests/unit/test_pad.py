"""PAD through the pieces that the adapter uses: groups, collate, Policy, terms divided by their denominators."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.objectives import pad
from harness.records import ProctorError
from harness.training.batching import Batch, Group, as_batch, collate
from harness.training.logprobs import Policy
from tests.unit.tiny import tiny_model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_groups(count: int = 5, n: int = 4, seed: int = 0) -> list[Group]:
    rng = random.Random(seed)
    groups = []
    for number in range(count):
        rows = tuple(tuple(rng.randrange(7, 100) for _ in range(rng.randrange(1, 12))) for _ in range(n))
        prompt = tuple(rng.randrange(7, 100) for _ in range(rng.randrange(2, 9)))
        rewards = tuple(rng.uniform(-0.5, 0) for _ in range(n))
        groups.append(Group(f"item-{number}", prompt, rows, (True,) * n, rewards=rewards))
    return groups


def value_of(
    parts: list[list[Group]], model: Any = None, **params: Any
) -> tuple[float, Tensor, list[dict[str, float]]]:
    """The loss of a window of micro-batches as the adapter divides it, its gradient, and the metrics of each."""
    model = model or tiny_model(1)
    chosen = {**pad.DEFAULTS, **params}
    batches = [as_batch(collate(part, 0)) for part in parts]
    totals: dict[str, float] = {}
    for batch in batches:
        for name, count in pad.denominators(batch).items():
            totals[name] = totals.get(name, 0.0) + count
    value, rows = 0.0, []
    for batch in batches:
        terms, metrics = pad.loss(Policy(model, batch), batch, **chosen)
        loss = sum(term.weight * term.sum / max(totals[name], 1e-12) for name, term in terms.items())
        torch.autograd.backward(loss)
        value += float(loss.detach())
        rows.append(metrics)
    return value, torch.cat([p.grad.flatten() for p in model.parameters()]), rows


def rewards_by_hand(group: Group, model: Any, mean: bool = True) -> list[float]:
    """Each response alone, unpadded, in float64."""
    found = []
    for response in group.responses:
        ids = torch.tensor([[*group.prompt, *response]])
        with torch.no_grad():
            table = model.double()(ids).logits.log_softmax(-1)[0]
        ell = sum(float(table[len(group.prompt) - 1 + t, token]) for t, token in enumerate(response))
        found.append(ell / len(response) if mean else ell)
    model.float()
    return found


def rankings_by_hand(scores: list[float]) -> list[float]:
    found = []
    for order in permutations(scores):
        p = 1.0
        for i, score in enumerate(order):
            p *= math.exp(score) / sum(math.exp(other) for other in order[i:])
        found.append(p)
    return found


def kl(a: list[float], b: list[float]) -> float:
    return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))


def by_hand(group: Group, model: Any, beta: float, beta_teacher: float, mean: bool = True) -> dict[str, float]:
    student = [beta * r for r in rewards_by_hand(group, model, mean)]
    p, q = rankings_by_hand(student), rankings_by_hand([beta_teacher * r for r in group.rewards])
    m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    return {"jsd": (kl(p, m) + kl(q, m)) / 2, "kl": kl(q, p), "vpd": -math.log(p[q.index(max(q))])}


def stub(student: list[list[float]], rewards: list[list[float]], tokens: list[int] | None = None) -> tuple[Any, Any]:
    """A policy with one scored token per response (or `tokens[b]` for group b), so that rewards are log-probs."""
    means = torch.tensor(student, dtype=torch.float64)
    lengths = torch.tensor(tokens or [1] * len(student))
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).double()[:, None].expand(-1, means.shape[1], -1)
    batch = SimpleNamespace(mask=mask, rewards=torch.tensor(rewards, dtype=torch.float64))
    return SimpleNamespace(log_probs=means[:, :, None] * mask), batch


@pytest.mark.parametrize("reward", ["mean", "sum"])
def test_the_losses_are_the_group_means_of_brute_force(reward: str) -> None:
    groups, model, mean = make_groups(), tiny_model(1), reward == "mean"
    beta = 2.0 if mean else 0.2
    hand = [by_hand(group, model, beta, 3.0, mean) for group in groups]
    for name, params in (("jsd", {}), ("kl", {"divergence": "kl"}), ("vpd", {"loss": "vpd"})):
        value, _, _ = value_of([groups], tiny_model(1), beta=beta, beta_teacher=3.0, reward=reward, **params)
        assert value == pytest.approx(sum(row[name] for row in hand) / len(hand), rel=1e-4)


def test_the_teacher_has_the_students_beta_unless_it_has_its_own() -> None:
    groups, model = make_groups(), tiny_model(1)
    hand = [by_hand(group, model, 4.0, 4.0)["jsd"] for group in groups]
    assert value_of([groups], beta=4.0)[0] == pytest.approx(sum(hand) / len(hand), rel=1e-4)
    assert value_of([groups], beta=4.0)[0] == value_of([groups], beta=4.0, beta_teacher=4.0)[0]
    # the order that VPD imitates does not depend on the teacher's temperature
    assert value_of([groups], loss="vpd")[0] == value_of([groups], loss="vpd", beta_teacher=0.1)[0]


def test_a_response_without_tokens_or_reward_is_absent() -> None:
    groups = make_groups(6)
    first, second = groups[0], groups[1]
    empty = dataclasses.replace(first, responses=((), *first.responses[1:]))
    unscored = dataclasses.replace(second, rewards=(*second.rewards[:3], math.nan))
    lone = dataclasses.replace(groups[2], rewards=(math.nan, math.nan, math.inf, -0.1))
    shorter = [
        dataclasses.replace(first, responses=first.responses[1:], rewards=first.rewards[1:], finished=(True,) * 3),
        dataclasses.replace(second, responses=second.responses[:3], rewards=second.rewards[:3], finished=(True,) * 3),
    ]
    batch = as_batch(collate([empty, unscored, lone, *groups[3:]], 0))
    assert pad.denominators(batch)["preference"] == 5
    for params in ({}, {"loss": "vpd"}, {"divergence": "kl"}, {"recipe": "released_code"}):
        value, gradient, rows = value_of([[empty, unscored, lone, *groups[3:]]], **params)
        other = value_of([[*shorter, *groups[3:]]], **params)
        assert value == pytest.approx(other[0], rel=1e-5)
        assert torch.allclose(gradient, other[1], atol=1e-5 * float(gradient.abs().max()))
        assert rows[0] == pytest.approx(other[2][0], rel=1e-4)
        assert all(math.isfinite(metric) for metric in rows[0].values())


@pytest.mark.parametrize("params", [{}, {"loss": "vpd"}, {"divergence": "kl", "reward": "sum", "beta": 0.1}])
def test_no_split_of_a_window_changes_the_paper_recipe_even_with_uneven_groups(params: dict[str, Any]) -> None:
    groups = [*make_groups(4), *make_groups(3, n=2, seed=1), *make_groups(1, n=5, seed=2), *make_groups(1, n=1)]
    value, gradient, _ = value_of([groups], **params)
    for size in (4, 1):
        split = value_of([groups[i : i + size] for i in range(0, len(groups), size)], **params)
        assert split[0] == pytest.approx(value, rel=1e-5)
        assert float((split[1] - gradient).abs().max()) <= 2e-6 * max(1.0, float(gradient.abs().max()))


def test_a_window_without_a_usable_group_has_zero_loss_and_still_a_graph() -> None:
    for params in ({}, {"loss": "vpd"}, {"divergence": "kl"}, {"recipe": "released_code"}):
        value, gradient, rows = value_of([make_groups(2, n=1)], **params)
        assert value == 0.0 and float(gradient.abs().max()) == 0.0
        assert set(rows[0].values()) == {0.0}


def bernoulli(score: float) -> tuple[float, float]:
    p = 1 / (1 + math.exp(-score))
    return p, 1 - p


def test_the_released_code_at_micro_batch_1_is_the_reversed_divergence() -> None:
    # two responses: Bernoulli(sigmoid(beta * gap)); student sure of one order, teacher of the other
    policy, batch = stub([[-0.1, -0.5]], [[-0.6, -0.1]])
    terms, metrics = pad.loss(policy, batch, **{**pad.DEFAULTS, "recipe": "released_code"})
    p, q = bernoulli(4.0), bernoulli(-5.0)
    m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    expected = (kl(m, list(p)) + kl(m, list(q))) / 2
    value = float(terms["preference_by_tokens"].sum) / pad.denominators(batch)["preference_by_tokens"]
    assert value == pytest.approx(expected, rel=1e-9) and value > 1.5
    paper, _ = pad.loss(policy, batch, **pad.DEFAULTS)
    jsd = (kl(list(p), m) + kl(list(q), m)) / 2
    assert float(paper["preference"].sum) == pytest.approx(jsd, rel=1e-9)
    assert metrics["saturation"] == pytest.approx(jsd / math.log(2), rel=1e-9)


def test_the_released_code_at_micro_batch_2_mixes_prompts_and_weighs_by_tokens() -> None:
    student, rewards = [[-0.1, -0.2], [-0.3, -0.2]], [[-0.1, -0.15], [-0.3, -0.1]]
    params = {**pad.DEFAULTS, "recipe": "released_code"}
    policy, batch = stub(student, rewards, [3, 3])
    terms, _ = pad.loss(policy, batch, **params)
    laws = [bernoulli(score) for score in (1.0, -1.0, 0.5, -2.0)]  # two students, two teachers
    m = [sum(law[k] for law in laws) / 2 for k in (0, 1)]  # of mass 2, as in the code
    expected = sum(kl(m, list(law)) for law in laws) / 2 / 2
    assert pad.denominators(batch)["preference_by_tokens"] == 12
    assert float(terms["preference_by_tokens"].sum) / 12 == pytest.approx(expected, rel=1e-9)

    # a window of two micro-batches of one group: each weighs by its tokens, 6 and 2 of 8
    alone, tokens = [], []
    for b, length in ((0, 3), (1, 1)):
        policy, batch = stub(student[b : b + 1], rewards[b : b + 1], [length])
        terms, _ = pad.loss(policy, batch, **params)
        tokens.append(pad.denominators(batch)["preference_by_tokens"])
        alone.append(float(terms["preference_by_tokens"].sum) / tokens[-1])
        assert float(terms["preference_by_tokens"].sum) == pytest.approx(alone[-1] * tokens[-1])
    assert tokens == [6, 2]
    assert expected > 2 * max(alone)


def test_metrics_name_agreement_spread_and_both_ends_of_the_ranking() -> None:
    policy, batch = stub([[-0.1, -0.2, -0.4]], [[-0.5, -0.9, -0.7]], [2])
    _, metrics = pad.loss(policy, batch, **pad.DEFAULTS)
    assert metrics["top1_agreement"] == 1.0
    assert metrics["pair_agreement"] == pytest.approx(2 / 3)
    assert metrics["student_reward"] == pytest.approx(-0.7 / 3)
    spreads_and_ends = [
        metrics[name] for name in ("student_spread", "teacher_spread", "best_log_prob", "worst_log_prob")
    ]
    assert spreads_and_ends == pytest.approx([0.3, 0.4, -0.1, -0.2])
    assert metrics["mean_tokens"] == 2.0
    assert 0 < metrics["saturation"] < 1
    tied = stub([[-0.4, -0.2]], [[-0.5, -0.5]])
    _, metrics = pad.loss(*tied, **pad.DEFAULTS)
    assert metrics["pair_agreement"] == 0.5 and metrics["top1_agreement"] == 1.0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"loss": "pdd"}, "loss is ppd or vpd, not 'pdd'"),
        ({"divergence": "released_code"}, "divergence is jsd or kl"),
        ({"reward": "total"}, "reward is mean or sum"),
        ({"recipe": "code"}, "recipe is paper or released_code"),
        ({"beta": 0}, "above 0, not 0 and None"),
        ({"recipe": "released_code", "divergence": "kl"}, "remove them, or use recipe: paper"),
        ({"recipe": "released_code", "beta_teacher": 1.0}, "remove them, or use recipe: paper"),
    ],
)
def test_parameters_without_a_meaning_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ProctorError, match=message):
        value_of([make_groups(1)], **params)


def test_ten_responses_and_missing_rewards_are_refused_with_a_remedy() -> None:
    with pytest.raises(ProctorError, match="decompose into rounds"):
        value_of([make_groups(1, n=10)])
    assert math.isfinite(value_of([make_groups(1, n=10)], loss="vpd")[0])
    batch: Batch = as_batch(collate([dataclasses.replace(group, rewards=()) for group in make_groups(1)], 0))
    with pytest.raises(ProctorError, match="set `rewards`"):
        pad.denominators(batch)


def test_training_on_ppd_brings_the_students_order_to_the_teachers() -> None:
    torch.manual_seed(0)
    student = torch.nn.Parameter(torch.randn(8, 4) * 0.1 - 1)
    _, batch = stub([[0.0] * 4] * 8, (torch.randn(8, 4) * 0.3 - 1).tolist())
    optimizer = torch.optim.Adam([student], lr=0.2)
    seen = []
    for _ in range(40):
        policy = SimpleNamespace(log_probs=student.unsqueeze(-1))
        terms, metrics = pad.loss(policy, batch, **pad.DEFAULTS)
        optimizer.zero_grad()
        torch.autograd.backward(terms["preference"].sum)
        optimizer.step()
        seen.append(metrics)
    assert seen[0]["pair_agreement"] < 0.8 < seen[-1]["pair_agreement"]
    assert seen[-1]["saturation"] < 0.1 * seen[0]["saturation"]
