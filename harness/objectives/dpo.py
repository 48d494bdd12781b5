"""Direct preference optimisation (Rafailov et al. 2023, eq. 7), on summed log-probabilities.

With D = [ell(w) - ell_ref(w)] - [ell(l) - ell_ref(l)], ell the summed log-probability of an answer, w chosen and
l rejected: L = -log sigmoid(beta * D), the mean over pairs. At step 0 the policy is the reference: D = 0, L = log 2.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as functional

from harness.records import Term

VERSION = "1"
NEEDS = ("pairs", "reference")
ON_POLICY = "never"
DEFAULTS = {"beta": 0.1}
TRAINING = {"lr": 1e-6}


def denominators(batch: Any) -> dict[str, float]:
    """The number of pairs with at least one scored token on both sides."""
    return {"preference": float((batch.mask.sum(-1) > 0).all(-1).sum())}


def loss(policy: Any, batch: Any, *, beta: float) -> tuple[dict[str, Term], dict[str, float]]:
    """Term `preference` over pairs [B, 2, T]: response 0 is chosen, response 1 rejected."""
    usable = (batch.mask.sum(-1) > 0).all(-1).float()
    ell = policy.log_probs.sum(-1)
    rewards = beta * (ell - (batch.reference_log_probs * batch.mask).sum(-1))
    margins = (rewards[:, 0] - rewards[:, 1]) * usable
    losses = -functional.logsigmoid(margins) * usable
    count = usable.sum().clamp(min=1.0)
    lengths = batch.mask.sum(-1)
    # per token, on answers that the reference gave: r - 1 - log r with r = pi / ref (Schulman's k3) is never negative
    log_ratio = (policy.log_probs - batch.reference_log_probs).detach() * batch.mask
    divergence = (log_ratio.clamp(max=20).exp() - 1 - log_ratio).sum((1, 2)) / batch.mask.sum((1, 2)).clamp(min=1.0)

    def mean(values: Any) -> float:
        return float(((values * usable).sum() / count).detach())

    metrics = {
        "margin": mean(margins),
        "accuracy": mean((margins > 0).float()),
        "chosen_log_prob": mean(ell[:, 0]),
        "rejected_log_prob": mean(ell[:, 1]),
        "chosen_reward": mean(rewards[:, 0]),
        "rejected_reward": mean(rewards[:, 1]),
        "chosen_tokens": mean(lengths[:, 0]),
        "rejected_tokens": mean(lengths[:, 1]),
        "reference_kl": mean(divergence),
    }
    return {"preference": Term(losses.sum())}, metrics
