"""Preference-aligned distillation (PAD): the student ranks its own samples as the teacher does.

Student score s_k = beta * (1 / |y_k|) * sum_t log pi(y_kt | x, y_k<t) (eq. 7; `reward: sum` drops 1 / |y|), teacher
score t_k = (beta_teacher or beta) * reward_k, with the rewards calibrated beforehand (eq. 9: `rewards: mix`). Both are
Plackett-Luce scores, and L is the mean over groups of

* `loss: ppd`: the Jensen-Shannon divergence between both distributions over all n! rankings (eq. 11, 12), exact;
  `divergence: kl` takes KL(teacher || student) instead, whose gradient does not vanish where the student is sure of
  a wrong order;
* `loss: vpd`: minus the log-probability of the teacher's order under the student (eq. 10 with its missing minus).

A response without scored tokens or with a reward that is not finite is absent; a group counts if two are present.

`recipe: released_code` reproduces the loss of the public code: 1/2 KL(M || S) + 1/2 KL(M || T), which is unbounded and
no JSD, with M half the sum of T and S over *all* groups of the micro-batch (groups of equal size), and each
micro-batch's mean weighted by its share of the window's scored tokens. Value and gradient then depend on `micro_batch`
(1 mixes no prompts), so its figures are not comparable with the paper's recipe. The table of all differences, and of
those that lie before the loss: docs/pad.md.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from harness.records import ProctorError, Term
from harness.training import plackett_luce

VERSION = "1"
NEEDS = ("rollouts", "teacher_rewards")
ON_POLICY = "never"
DEFAULTS: dict[str, Any] = {
    "loss": "ppd",
    "beta": 10.0,
    "beta_teacher": None,
    "divergence": "jsd",
    "reward": "mean",
    "recipe": "paper",
}
TRAINING = {"lr": 1e-6}


def denominators(batch: Any) -> dict[str, float]:
    """`preference`: the number of usable groups; `preference_by_tokens`: their scored tokens (released_code)."""
    present = _present(batch)
    usable = present.sum(-1) >= 2
    tokens = (batch.mask.sum(-1) * present).sum(-1) * usable
    return {"preference": float(usable.sum()), "preference_by_tokens": float(tokens.sum())}


def loss(
    policy: Any,
    batch: Any,
    *,
    loss: str,
    beta: float,
    beta_teacher: float | None,
    divergence: plackett_luce.Divergence,
    reward: str,
    recipe: str,
) -> tuple[dict[str, Term], dict[str, float]]:
    """Term `preference` over groups [B, n, T] (`preference_by_tokens` for released_code).

    Raises ProctorError for a parameter without meaning, without rewards, or for more responses than n! allows.
    """
    _check(loss, beta, beta_teacher, divergence, reward, recipe)
    lengths = batch.mask.sum(-1)
    present = _present(batch)
    usable = present.sum(-1) >= 2
    ell = policy.log_probs.sum(-1)
    means = ell / lengths.clamp(min=1.0)
    student = means if reward == "mean" else ell
    teacher = batch.rewards.masked_fill(~present, 0.0)
    scores = (beta * student, (beta_teacher or beta) * teacher, present)
    metrics = _metrics(student.detach(), teacher, means.detach(), lengths, present, usable)
    if loss == "vpd":
        losses = plackett_luce.vpd(*scores)
    elif recipe == "released_code":
        losses = plackett_luce.ppd(*scores, divergence="released_code", mix_batch=True)
    else:
        losses = plackett_luce.ppd(*scores, divergence=divergence)
    if loss == "ppd" and divergence == "jsd":
        jsd = losses if recipe == "paper" else plackett_luce.ppd(scores[0].detach(), *scores[1:])
        metrics["saturation"] = _mean(jsd.detach() / math.log(2), usable)
    values = torch.stack(list(metrics.values())).tolist()  # one transfer from the device, not one per metric
    terms = {"preference": Term(losses.sum())}
    if recipe == "released_code":
        tokens = (lengths * present).sum(-1) * usable
        terms = {"preference_by_tokens": Term(losses.sum() / usable.sum().clamp(min=1) * tokens.sum())}
    return terms, dict(zip(metrics, values, strict=True))


def _present(batch: Any) -> Tensor:
    """[B, n] bool: the response has a scored token and a reward."""
    if batch.rewards is None:
        raise ProctorError("pad ranks responses by the teacher's rewards, and these groups have none: set `rewards`")
    present: Tensor = (batch.mask.sum(-1) > 0) & torch.isfinite(batch.rewards)
    return present


def _check(loss: str, beta: float, beta_teacher: float | None, divergence: str, reward: str, recipe: str) -> None:
    for name, value, known in (
        ("loss", loss, ("ppd", "vpd")),
        ("divergence", divergence, ("jsd", "kl")),
        ("reward", reward, ("mean", "sum")),
        ("recipe", recipe, ("paper", "released_code")),
    ):
        if value not in known:
            raise ProctorError(f"pad: {name} is {' or '.join(known)}, not {value!r}")
    if beta <= 0 or (beta_teacher is not None and beta_teacher <= 0):
        raise ProctorError(f"pad: beta and beta_teacher are above 0, not {beta} and {beta_teacher}")
    if recipe == "released_code" and (divergence != "jsd" or reward != "mean" or beta_teacher is not None):
        raise ProctorError(
            "pad: recipe released_code reproduces the public code, which has no divergence, reward or beta_teacher "
            "to choose: remove them, or use recipe: paper"
        )


def _mean(values: Tensor, usable: Tensor) -> Tensor:
    """The mean over usable groups; 0 without any."""
    return values.where(usable, 0.0).sum() / usable.sum().clamp(min=1)


def _metrics(
    student: Tensor, teacher: Tensor, means: Tensor, lengths: Tensor, present: Tensor, usable: Tensor
) -> dict[str, Tensor]:
    """Means over usable groups. `pair_agreement`: the share of pairs in the same order, ties as half.

    `*_spread`: best minus worst reward, before beta. `best_log_prob`, `worst_log_prob`: the student's mean
    log-probability per token of the teacher's best and worst response: both may fall while the loss does.
    """
    high, low = teacher.masked_fill(~present, -math.inf), teacher.masked_fill(~present, math.inf)
    best, worst = high.argmax(-1, keepdim=True), low.argmin(-1, keepdim=True)
    student_high, student_low = student.masked_fill(~present, -math.inf), student.masked_fill(~present, math.inf)
    top = teacher.gather(-1, student_high.argmax(-1, keepdim=True)) == teacher.gather(-1, best)
    signs = [(values.unsqueeze(-1) - values.unsqueeze(-2)).sign() for values in (student, teacher)]
    pairs = (present.unsqueeze(-1) & present.unsqueeze(-2)).triu(1)
    agreement = ((signs[0] * signs[1] + 1) / 2 * pairs).sum((-1, -2)) / pairs.sum((-1, -2)).clamp(min=1)
    count = present.sum(-1).clamp(min=1)
    by_group = {
        "top1_agreement": top.squeeze(-1).float(),
        "pair_agreement": agreement,
        "student_reward": (student * present).sum(-1) / count,
        "student_spread": student_high.amax(-1) - student_low.amin(-1),
        "teacher_spread": high.amax(-1) - low.amin(-1),
        "mean_tokens": (lengths * present).sum(-1) / count,
        "best_log_prob": means.gather(-1, best).squeeze(-1),
        "worst_log_prob": means.gather(-1, worst).squeeze(-1),
    }
    return {name: _mean(values, usable) for name, values in by_group.items()}
