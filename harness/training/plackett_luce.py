"""Plackett-Luce: the distribution over the n! rankings of n responses, and divergences between two of them.

p(tau) = prod_i exp(s_tau(i)) / sum_{j >= i} exp(s_tau(j)) for scores s that are already multiplied by beta (PAD, eq. 2
and 6; Luce 1959, Plackett 1975). Every function takes scores [B, n] float32 or float64 and returns a loss per group
[B]; `present` [B, n] bool says which responses exist, and groups of different sizes may share a batch. Groups with
fewer than two present responses have loss 0 and gradient 0. The teacher is a constant: no gradient flows into it.

How all n! log-probabilities are built (`recursion`): with c(R, j) = s_j - logsumexp(s_R), the log-probability that j
is placed first among the set R, T(R) = concat_j(c(R, j) + T(R without j)) grows one level of subsets at a time, which
is e * n! additions on contiguous rows; the pull-back of a gradient walks the levels downwards. `gather` reads the same
values through a static table of (suffix set, next item), n! * (n - 1) look-ups: it loses at every n (benchmarks/ppd.py)
and stays as the independent layout that tests compare with.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from harness.records import ProctorError

Divergence = Literal["jsd", "kl", "released_code"]
Layout = Literal["recursion", "gather"]

LIMITS = {"jsd": 9, "kl": 14, "released_code": 9}
"""The most responses for which each divergence is computed: exact sums beyond are refused, never approximated."""


class TooManyResponses(ProctorError, ValueError):
    """An exact sum over rankings was asked for more responses than `LIMITS` allows."""


def log_prob_of_ranking(scores: Tensor, order: Tensor) -> Tensor:
    """Log-probability (nats, <= 0) of one ranking per group: scores [..., n], order [..., n] (best first) -> [...].

    Eq. 2 and 6. The last factor is 1 and is skipped, so it adds neither value nor rounding.
    """
    ordered = scores.gather(-1, order)
    rest = ordered.flip(-1).logcumsumexp(-1).flip(-1)
    return (ordered - rest)[..., :-1].sum(-1)


def vpd(student: Tensor, teacher: Tensor, present: Tensor | None = None) -> Tensor:
    """Vanilla preference distillation: minus the student's log-probability of the teacher's order, [B].

    Eq. 10, which lacks the minus sign (as printed, it would make the teacher's order *less* likely). Responses to which
    the teacher gives equal scores are ordered by index, lower first, so the target never depends on the machine.
    """

    def of(student: Tensor, teacher: Tensor) -> Tensor:
        return -log_prob_of_ranking(student, teacher.argsort(dim=-1, descending=True, stable=True))

    return _per_size(of, student, teacher, present)


def ppd(
    student: Tensor,
    teacher: Tensor,
    present: Tensor | None = None,
    *,
    divergence: Divergence = "jsd",
    mix_batch: bool = False,
    layout: Layout = "recursion",
) -> Tensor:
    """Probabilistic preference distillation: the divergence between both distributions over all n! rankings, [B].

    * `jsd` (eq. 12): 1/2 KL(T || M) + 1/2 KL(S || M), M = (T + S) / 2; in [0, log 2], symmetric, n <= 9. Its gradient
      vanishes where the student is sure of another order: watch JSD / log 2.
    * `kl`: KL(T || S), unbounded, n <= 14: a sum over the sets that can remain, in O(n 2^n).
    * `released_code`: 1/2 KL(M || S) + 1/2 KL(M || T), which the public code of PAD computes under the name of JSD:
      unbounded. `mix_batch` adds what it does above micro-batch 1: M is half the *sum* over all groups of the
      micro-batch (of one size), so it has mass B and mixes prompts. A reproduction, not to be compared with `jsd`.

    Raises TooManyResponses (a ValueError) above the divergence's limit, ValueError for an unknown divergence.
    """
    if divergence not in LIMITS:
        raise ValueError(f"divergence {divergence!r} is unknown: use one of {', '.join(LIMITS)}")
    if mix_batch and divergence != "released_code":
        raise ValueError("mix_batch belongs to divergence 'released_code': the other two never mix groups")

    def of(student: Tensor, teacher: Tensor) -> Tensor:
        n = student.shape[-1]
        if n > LIMITS[divergence]:
            raise TooManyResponses(
                f"{divergence} over the {math.factorial(n)} rankings of {n} responses is exact up to n = "
                f"{LIMITS[divergence]}: decompose into rounds (rollouts with a smaller n and more rounds), or use "
                f"divergence kl (up to n = {LIMITS['kl']}) or loss vpd (any n)"
            )
        if divergence == "jsd":
            loss: Tensor = _JensenShannon.apply(student, teacher, layout)  # type: ignore[no-untyped-call]
            return loss
        if divergence == "kl":
            return _kl(student, teacher)
        return _released_code(student, teacher, mix_batch)

    return _per_size(of, student, teacher, present)


def decomposed_ppd(
    student: Tensor, teacher: Tensor, size: int, present: Tensor | None = None, *, divergence: Divergence = "jsd"
) -> Tensor:
    """Mean over the k = n / size consecutive subsets of each group of the PPD within the subset, [B].

    The objective of k rounds with `size` responses each. It is *not* the PPD of the n responses: comparisons across
    subsets are lost. Nor is k times its `jsd` the JSD of the product laws, as Appendix A has it: the mixture of two
    products is not a product of mixtures (for `kl`, additivity is exact). A mean, where eq. 14 sums, so that the scale
    does not grow with k. Subsets with fewer than two present responses do not count. ValueError unless size divides n.
    """
    groups, n = student.shape
    if size < 1 or n % size:
        raise ValueError(f"{n} responses cannot be split into subsets of {size}: use a size that divides {n}")
    present = torch.ones_like(student, dtype=torch.bool) if present is None else present
    parts = [values.reshape(-1, size) for values in (student, teacher, present)]
    losses = ppd(*parts, divergence=divergence).view(groups, -1)
    usable = parts[2].sum(-1).view(groups, -1) >= 2
    return losses.sum(-1) / usable.sum(-1).clamp(min=1)


def log_probs_of_rankings(scores: Tensor, layout: Layout = "recursion") -> Tensor:
    """Log-probabilities of all rankings, [B, n] -> [B, n!], in the order of itertools.permutations(range(n))."""
    if scores.shape[-1] < 2:
        return scores * 0.0
    return _gathered(scores) if layout == "gather" else _grown(_choices(scores))


def _per_size(
    loss: Callable[[Tensor, Tensor], Tensor], student: Tensor, teacher: Tensor, present: Tensor | None
) -> Tensor:
    """`loss` over the present responses, one call per group size; 0, still with a graph, below two responses."""
    if student.shape != teacher.shape:
        raise ValueError(f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} scores differ in shape")
    dtype = torch.promote_types(student.dtype, torch.float32)
    student, teacher = student.to(dtype), teacher.detach().to(dtype)
    if present is None:
        present = torch.ones_like(student, dtype=torch.bool)
    counts = present.sum(-1)
    sizes = sorted(set(counts.tolist()))
    if sizes == [student.shape[-1]] and sizes[0] >= 2:
        return loss(student, teacher)
    front = (~present).long().argsort(dim=-1, stable=True)
    total = student.masked_fill(~present, 0.0).sum(-1) * 0.0
    for size in sizes:
        if size >= 2:
            rows = (counts == size).nonzero().squeeze(-1)
            columns = front[rows, :size]
            part = loss(student[rows].gather(-1, columns), teacher[rows].gather(-1, columns))
            total = total.index_add(0, rows, part)
    return total


@dataclass(frozen=True, slots=True)
class _Level:
    """The subsets of one size m, in lexicographic order, as indices. A *place* is a (subset, k-th member) pair.

    `members` [C(n, m), m]; `children` [places]: the number of the (m - 1)-subset left when the member goes;
    `parents`: places sorted by that child, n - m + 1 for each; `by_item`: places sorted by member.
    """

    members: Tensor
    children: Tensor
    parents: Tensor
    by_item: Tensor


@lru_cache(maxsize=64)
def _levels(n: int, device: torch.device) -> tuple[_Level, ...]:
    """The levels m = 2..n. Singletons need none: the last place of a ranking has probability 1."""
    levels = []
    number: dict[tuple[int, ...], int] = {(item,): item for item in range(n)}
    with torch.inference_mode(False):  # cached: an inference tensor could never be saved for a later backward
        for m in range(2, n + 1):
            subsets = list(itertools.combinations(range(n), m))
            members = torch.tensor(subsets)
            children = torch.tensor([number[s[:k] + s[k + 1 :]] for s in subsets for k in range(m)])
            tensors = (members, children, children.argsort(stable=True), members.flatten().argsort(stable=True))
            levels.append(_Level(*(tensor.to(device) for tensor in tensors)))
            number = {subset: index for index, subset in enumerate(subsets)}
    return tuple(levels)


def _choices(scores: Tensor) -> list[Tensor]:
    """c(R, j) per level, [B, C(n, m), m]. log_softmax is relative to each set's own maximum: exact at any offset."""
    levels = _levels(scores.shape[-1], scores.device)
    return [scores[:, level.members].log_softmax(-1) for level in levels]


def _grown(choices: list[Tensor]) -> Tensor:
    levels = _levels(len(choices) + 1, choices[0].device)
    table = choices[0]
    for level, choice in zip(levels[1:], choices[1:], strict=True):
        grown = table.index_select(1, level.children).view(*choice.shape, -1)
        table = grown.add_(choice.unsqueeze(-1)).flatten(2)  # in place: at n = 9 this is the largest buffer
    return table.flatten(1)


def _pulled_back(choices: list[Tensor], gradient: Tensor) -> Tensor:
    """The gradient by scores [B, n] from the one by the log-probabilities of rankings [B, n!]: exact, no atomics."""
    n = len(choices) + 1
    total = gradient.new_zeros(len(gradient), n)
    for level, choice in zip(reversed(_levels(n, gradient.device)), reversed(choices), strict=True):
        m = choice.shape[-1]
        places = gradient.view(*choice.shape, -1)
        weights = places.sum(-1)
        by_score = weights - choice.exp() * weights.sum(-1, keepdim=True)
        total += by_score.flatten(1).index_select(1, level.by_item).view(len(total), n, -1).sum(-1)
        if m > 2:
            by_child = places.flatten(1, 2).index_select(1, level.parents)
            gradient = by_child.view(len(total), -1, n - m + 1, by_child.shape[-1]).sum(2)
    return total


@lru_cache(maxsize=16)
def _suffixes(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Members of every bit mask [2^n, n], and for each place and ranking the entry (suffix set, next item)."""
    with torch.inference_mode(False):
        members = (torch.arange(2**n).unsqueeze(-1) >> torch.arange(n) & 1).bool()
        members[0] = True  # the empty set is never read: any set without NaN will do
        rankings = list(itertools.permutations(range(n)))
        entries = [[sum(1 << j for j in tau[i:]) * n + tau[i] for tau in rankings] for i in range(n - 1)]
        return members.to(device), torch.tensor(entries, device=device)


def _gathered(scores: Tensor) -> Tensor:
    members, entries = _suffixes(scores.shape[-1], scores.device)
    table = scores.unsqueeze(1).masked_fill(~members, -math.inf).log_softmax(-1).flatten(1)
    return table.index_select(1, entries.flatten()).view(len(scores), *entries.shape).sum(1)


class _JensenShannon(torch.autograd.Function):
    """JSD with its exact gradient, d JSD / d log p(tau) = p (log p - log m) / 2, pulled back to scores at once.

    Computed with the value, in chunks of rows that stay in the cache, so nothing of size n! outlives the forward. With
    d = log q - log p, log p - log m = -h(d), h(d) = log((1 + e^d) / 2) = max(d, 0) + log1p(expm1(-|d|) / 2): exactly 0
    at d = 0, finite for every finite d, so p = 0 gives 0 and never 0 * inf.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, layout: Layout) -> Tensor:
        rankings = math.factorial(student.shape[-1])
        rows = max(1, (2**18 if student.device.type == "cpu" else 2**24) // rankings)
        parts = [
            _jensen_shannon(student[i : i + rows], teacher[i : i + rows], layout, ctx.needs_input_grad[0])
            for i in range(0, len(student), rows)
        ]
        values, gradients = (torch.cat(list(tensors)) for tensors in zip(*parts, strict=True))
        ctx.save_for_backward(gradients)
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return gradient.unsqueeze(-1) * gradients, None, None


def _jensen_shannon(student: Tensor, teacher: Tensor, layout: Layout, with_gradient: bool) -> tuple[Tensor, Tensor]:
    """JSD [B] and its gradient by the student's scores [B, n]."""
    groups = len(student)
    both = torch.cat([student, teacher])
    choices = _choices(both)
    table = _gathered(both) if layout == "gather" else _grown(choices)
    log_p, log_q = table[:groups], table[groups:]
    d = log_q - log_p
    shared = torch.log1p(torch.expm1(-d.abs()) / 2)
    weighted = log_p.exp() * (shared + d.clamp(min=0))
    value = -(weighted + log_q.exp() * (shared - d.clamp(max=0))).sum(-1) / 2
    gradient = torch.zeros_like(student)
    if with_gradient:
        gradient = _pulled_back([choice[:groups] for choice in choices], weighted / -2)
    return value.clamp(0.0, math.log(2)), gradient


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(T || S) as a sum over remaining sets R of P_T(R) * KL of the next choice; P_T by a pass over the levels."""
    n = student.shape[-1]
    reached = torch.ones_like(teacher[:, :1])
    total = torch.zeros_like(teacher[:, 0])
    levels = zip(_levels(n, student.device), _choices(student), _choices(teacher), strict=True)
    for level, log_s, log_t in reversed(list(levels)):
        chosen = reached.unsqueeze(-1) * log_t.exp()
        total = total + (chosen * (log_t - log_s)).sum((-1, -2))
        reached = chosen.flatten(1).index_select(1, level.parents).view(len(total), -1, n - log_t.shape[-1] + 1).sum(-1)
    return total


def _released_code(student: Tensor, teacher: Tensor, mix_batch: bool) -> Tensor:
    log_p, log_q = log_probs_of_rankings(student), log_probs_of_rankings(teacher)
    if mix_batch:
        log_m = torch.cat([log_p, log_q]).logsumexp(0, keepdim=True) - math.log(2)
    else:
        log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (log_m.exp() * (2 * log_m - log_p - log_q)).sum(-1) / 2
