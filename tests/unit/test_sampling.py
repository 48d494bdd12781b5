"""Sampling is an exact draw that only (seed, item, sample, position) decides."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from harness.models._sampling import KeyedSampler, gumbel_noise, keep_top, row_seed

torch.set_num_threads(1)


def test_noise_is_standard_gumbel_and_independent_between_rows_and_positions() -> None:
    seeds = torch.tensor([row_seed(0, f"item-{i}", s) for i in range(40) for s in range(4)])
    noise = torch.cat([gumbel_noise(seeds, position, 97) for position in range(6)])
    assert stats.kstest(noise.flatten().double().numpy()[::7], "gumbel_r").pvalue > 1e-4
    flat = noise.reshape(6, len(seeds), 97)
    for a, b in ((flat[0], flat[1]), (flat[:, ::2], flat[:, 1::2]), (flat[..., :-1], flat[..., 1:])):
        correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        assert abs(float(correlation)) < 5 / len(a.flatten()) ** 0.5


def test_draws_follow_softmax_of_the_scaled_logits() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -3.0])
    seeds = [row_seed(3, f"i{i}", 0) for i in range(40_000)]
    sampler = KeyedSampler(seeds, temperature=0.7, top_p=1.0, top_k=0, prompt_width=2)
    drawn = sampler(torch.zeros(len(seeds), 2, dtype=torch.long), logits.expand(len(seeds), 5)).argmax(-1)
    counts = torch.bincount(drawn, minlength=5).double().numpy()
    expected = (logits / 0.7).softmax(-1).double().numpy() * len(seeds)
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-4


def test_a_draw_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    logits = torch.randn(8, 50)
    seeds = [row_seed(0, f"item-{i}", i % 2) for i in range(8)]
    ids = torch.zeros(8, 7, dtype=torch.long)
    together = KeyedSampler(seeds, 1.0, 0.9, 20, prompt_width=4)(ids, logits)
    for i in range(8):
        alone = KeyedSampler(seeds[i : i + 1], 1.0, 0.9, 20, prompt_width=4)(ids[:1], logits[i : i + 1])
        assert torch.equal(alone[0], together[i])


def test_keys_differ_by_each_of_their_parts() -> None:
    keys = {row_seed(s, i, k, t) for s in (0, 1) for i in ("a", "b", "a1") for k in (0, 1, 11) for t in (0, 1)}
    assert len(keys) == 2 * 3 * 3 * 2


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, 1), (0.5, 1), (0.51, 2), (0.81, 3), (1.0, 4)])
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(top_p: float, kept: int) -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert int(torch.isfinite(keep_top(logits, 0, top_p)).sum()) == kept


def test_top_k_keeps_k() -> None:
    assert int(torch.isfinite(keep_top(torch.randn(1, 30), 5, 1.0)).sum()) == 5
