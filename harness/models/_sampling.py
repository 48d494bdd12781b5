"""Sampling that does not depend on the batch: Gumbel noise keyed by (seed, item, sample, position).

argmax(logits / T + Gumbel noise) is an exact draw from softmax(logits / T). With the noise a pure function of its key,
the same answer comes out whatever else is in the batch, and after a resume (in float32, up to rounding).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def row_seed(seed: int, item: str, sample: int, turn: int = 0) -> int:
    """A signed 64-bit key of one answer, from SHA-256."""
    text = f"{seed}\x1f{item}\x1f{sample}\x1f{turn}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little", signed=True)


def _shift_right(values: Tensor, bits: int) -> Tensor:
    # int64 has only an arithmetic shift: mask the sign bits it drags in
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _mix(values: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014), on wrapping int64."""
    values = (values ^ _shift_right(values, 30)) * -4658895280553007687
    values = (values ^ _shift_right(values, 27)) * -7723592293110705685
    return values ^ _shift_right(values, 31)


def gumbel_noise(row_seeds: Tensor, position: int, vocabulary: int) -> Tensor:
    """Standard Gumbel noise [B, V] float32 for the token at `position` (0-based), from row seeds [B] int64."""
    golden = -7046029254386353131
    position_seeds = _mix(row_seeds + _wrap((position + 1) * golden))
    columns = torch.arange(1, vocabulary + 1, dtype=torch.int64, device=row_seeds.device) * golden
    bits = _mix(_mix(position_seeds.unsqueeze(-1) + columns))
    # 53 bits, centred in their cell: strictly inside (0, 1), so that both logarithms are finite
    uniform = (_shift_right(bits, 11).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform)).float()


def _wrap(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def keep_top(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Logits [B, V] with all but the top k, then all outside the top-p nucleus, set to -inf."""
    if 0 < top_k < logits.shape[-1]:
        floor = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < floor, -torch.inf)
    if top_p < 1.0:
        ordered, index = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        ordered = ordered.masked_fill(before >= top_p, -torch.inf)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, index, ordered)
    return logits


class KeyedSampler:
    """A logits processor for `generate(do_sample=False)`: turns its argmax into a draw that only the key decides."""

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float, top_k: int, prompt_width: int) -> None:
        self.seeds = torch.tensor(list(seeds), dtype=torch.int64)
        self.temperature, self.top_p, self.top_k = temperature, top_p, top_k
        self.prompt_width = prompt_width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Perturbed logits [B, V] float32 for the next token."""
        self.seeds = self.seeds.to(scores.device)
        scaled = keep_top(scores.float() / self.temperature, self.top_k, self.top_p)
        return scaled + gumbel_noise(self.seeds, input_ids.shape[1] - self.prompt_width, scores.shape[-1])
