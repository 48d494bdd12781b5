"""What PPD costs: milliseconds forward and backward for n = 2..9, and its share of a training step.

CPU time of one thread, median of 5, alternating. Peers: the gather layout, and plain enumeration (masks for every
ranking and place, differentiated by the tape), written here the way one would from the paper. `--json` prints one line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from harness.objectives import pad
from harness.training.batching import Group, as_batch, collate
from harness.training.logprobs import Policy
from harness.training.plackett_luce import ppd

GROUPS = 32
SIZES = range(2, 10)
LARGEST = {"recursion": 9, "gather": 8, "enumeration": 7, "kl": 9}
"""Beyond these, a peer takes seconds or gigabytes."""


def enumeration(student: Tensor, teacher: Tensor) -> Tensor:
    """PPD from the definition: log-probabilities of all rankings with one mask per ranking and place."""
    n = student.shape[1]
    rankings = torch.tensor(list(itertools.permutations(range(n))))

    def table(scores: Tensor) -> Tensor:
        wide = scores.unsqueeze(1).expand(-1, len(rankings), -1)
        total = torch.zeros(len(scores), len(rankings))
        left = torch.ones(len(rankings), n, dtype=torch.bool)
        for place in range(n):
            item = rankings[:, place]
            total = total + scores[:, item] - wide.masked_fill(~left, -1e8).logsumexp(-1)
            left = left.scatter(1, item.unsqueeze(1), False)
        return total

    log_p, log_q = table(student), table(teacher)
    log_m = torch.logaddexp(log_p, log_q) - torch.tensor(2.0).log()
    return (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(-1) / 2


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "recursion": lambda s, t: ppd(s, t),
    "gather": lambda s, t: ppd(s, t, layout="gather"),
    "enumeration": enumeration,
    "kl": lambda s, t: ppd(s, t, divergence="kl"),
}


def seconds(run: Callable[[], Any], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - start) / repeats


def medians(runs: Mapping[str, Callable[[], Any]], rounds: int = 5, least: float = 0.05) -> dict[str, float]:
    """Median CPU milliseconds of each, the runs taking turns; short ones are repeated for `least` seconds a turn."""
    repeats = {}
    for name, run in runs.items():
        run()  # tables are built once per n
        repeats[name] = max(1, int(least / max(seconds(run, 1), 1e-6)))
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(seconds(run, repeats[name]) * 1e3)
    return {name: statistics.median(values) for name, values in taken.items()}


def by_size() -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {name: {} for name in LOSSES}
    for n in SIZES:
        torch.manual_seed(n)
        student, teacher = torch.randn(GROUPS, n) * 2, torch.randn(GROUPS, n) * 2

        def step(loss: Callable[[Tensor, Tensor], Tensor], s: Tensor = student, t: Tensor = teacher) -> Tensor:
            s = s.clone().requires_grad_()
            value = loss(s, t)
            torch.autograd.backward(value.sum())
            return value.detach()

        names = [name for name in LOSSES if n <= LARGEST[name]]
        exact = step(LOSSES["recursion"])
        for name in set(names) - {"recursion", "kl"}:
            assert torch.allclose(step(LOSSES[name]), exact, atol=1e-5), f"{name} differs at n = {n}"
        for name, value in medians({name: partial(step, LOSSES[name]) for name in names}).items():
            found[name][str(n)] = round(value, 3)
    return found


def step_share() -> dict[str, float]:
    """PPD, and all of pad's loss with its metrics, beside the model's forward and backward: 8 groups of 4."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
    )
    model = LlamaForCausalLM(config).train()
    ids = torch.randint(3, 2048, (8, 64 + 4 * 96)).tolist()
    groups = [
        Group(str(b), tuple(row[:64]), tuple(tuple(row[64 + 96 * k : 160 + 96 * k]) for k in range(4)), (True,) * 4,
              rewards=tuple(-0.1 * k for k in range(4)))
        for b, row in enumerate(ids)
    ]  # fmt: skip
    batch = as_batch(collate(groups, 0))
    table = Policy(model, batch).log_probs.detach()
    rewards = torch.tensor([group.rewards for group in groups])

    def plain() -> None:
        model.zero_grad()
        torch.autograd.backward(-Policy(model, batch).log_probs.sum())

    def objective() -> None:
        terms, _ = pad.loss(SimpleNamespace(log_probs=table.clone().requires_grad_()), batch, **pad.DEFAULTS)
        torch.autograd.backward(terms["preference"].sum)

    def only_ppd() -> None:
        scores = (table.sum(-1) / 9.6).requires_grad_()
        torch.autograd.backward(ppd(scores, rewards * 10).sum())

    found = medians({"step": plain, "pad": objective, "ppd": only_ppd})
    return {
        "model_step_ms": round(found["step"], 1),
        "ppd_ms": round(found["ppd"], 3),
        "pad_with_metrics_ms": round(found["pad"], 3),
        "ppd_share_of_step": round(found["ppd"] / found["step"], 6),
        "pad_share_of_step": round(found["pad"] / found["step"], 6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one line of JSON and nothing else")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = by_size()
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    share = step_share()
    ratios = {
        f"{peer}_over_recursion_n{n}": round(sizes[peer][str(n)] / sizes["recursion"][str(n)], 2)
        for peer in ("gather", "enumeration")
        for n in SIZES
        if str(n) in sizes[peer]
    }
    result = {
        "name": "ppd",
        "ratios": ratios,
        "figures": {"groups": GROUPS, "milliseconds": sizes, "peak_rss_mb": round(peak), **share},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"CPU ms, forward and backward, {GROUPS} groups, one thread (peak memory {peak:.0f} MB)")
    print("n".rjust(3), *(name.rjust(12) for name in sizes))
    for n in SIZES:
        print(str(n).rjust(3), *(str(row.get(str(n), "-")).rjust(12) for row in sizes.values()))
    for name, value in share.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
