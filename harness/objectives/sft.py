"""Supervised fine-tuning: the mean negative log-likelihood of demonstrated answers.

L = -(1 / N_tok) * sum over scored tokens of log pi(y_t | x, y_<t), N_tok taken over the whole accumulation window and
all ranks, so long answers weigh more than short ones in proportion to their tokens. On a teacher's answers
(`targets: teacher`) this is response distillation (SeqKD; Kim & Rush 2016).
"""

from __future__ import annotations

from typing import Any

from harness.records import Term

VERSION = "1"
NEEDS = ("targets",)
ON_POLICY = "never"
DEFAULTS: dict[str, Any] = {}
TRAINING = {"lr": 2e-5}


def denominators(batch: Any) -> dict[str, float]:
    """The number of scored tokens."""
    return {"nll": float(batch.mask.sum())}


def loss(policy: Any, batch: Any) -> tuple[dict[str, Term], dict[str, float]]:
    """Term `nll`: minus the summed log-probability [scalar, float32] of the first response of every group."""
    log_probs = policy.log_probs
    lengths = batch.mask.sum(-1)
    total = log_probs.sum()
    tokens = lengths.sum().clamp(min=1.0)
    metrics = {
        "mean_log_prob": float((total / tokens).detach()),
        "mean_tokens": float(lengths.mean()),
    }
    return {"nll": Term(-total)}, metrics
