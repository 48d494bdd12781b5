"""Groups of responses to one prompt, and the padded batches that objectives see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt with its n responses, as token ids. What an objective does not need stays empty.

    `finished[k]` is True where response k really ended: its last id is then the end token, which is scored; a
    response that was cut has none. `ranking[k]` is the rank of response k (0 is best), `labels[k]` its 0/1 label.
    Per-token log-probabilities (nats) are aligned with `responses`.
    """

    item: str
    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    finished: tuple[bool, ...]
    reference_log_probs: tuple[tuple[float, ...], ...] = ()
    teacher_log_probs: tuple[tuple[float, ...], ...] = ()
    rewards: tuple[float, ...] = ()
    ranking: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """What objectives see: B groups of n responses of at most T tokens.

    `mask` [B, n, T] float32 is 1 at scored tokens (never inferred from ids: a pad id may also be an end token);
    `finished` [B, n] bool; `reference_log_probs`, `teacher_log_probs` [B, n, T] float32, 0 where masked;
    `rewards` [B, n] float32, `ranking` and `labels` [B, n] int64, or None where no group carries them.
    `input_ids`, `attention_mask`, `position_ids` [B * n, P + T]: prompts padded on the left to P columns, responses
    on the right, so that every response begins in column P.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    mask: Tensor
    finished: Tensor
    reference_log_probs: Tensor | None = None
    teacher_log_probs: Tensor | None = None
    teacher_logits: tuple[Tensor, Tensor, Tensor] | None = None
    rewards: Tensor | None = None
    ranking: Tensor | None = None
    labels: Tensor | None = None

    @property
    def prompt_width(self) -> int:
        """P, the number of prompt columns."""
        return int(self.input_ids.shape[1] - self.mask.shape[2])


TENSORS = tuple(name for name in Batch.__dataclass_fields__ if name != "teacher_logits")


def collate(groups: Sequence[Group], pad_id: int) -> dict[str, Tensor]:
    """Groups to the tensors of a Batch (a dict, as Trainer moves it between devices).

    Groups may hold different numbers of responses: missing ones get mask 0 and one column of padding.
    """
    n = max(len(group.responses) for group in groups)
    prompt_width = max(len(group.prompt) for group in groups)
    length = max(1, max((len(ids) for group in groups for ids in group.responses), default=1))
    rows, size = len(groups) * n, (len(groups), n, length)
    input_ids = torch.full((rows, prompt_width + length), pad_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    mask = torch.zeros(size, dtype=torch.float32)
    finished = torch.zeros(size[:2], dtype=torch.bool)
    for b, group in enumerate(groups):
        start = prompt_width - len(group.prompt)
        for k in range(n):
            row = b * n + k
            input_ids[row, start:prompt_width] = torch.tensor(group.prompt, dtype=torch.long)
            attention_mask[row, start:prompt_width] = 1
            if k < len(group.responses):
                ids = group.responses[k]
                input_ids[row, prompt_width : prompt_width + len(ids)] = torch.tensor(ids, dtype=torch.long)
                attention_mask[row, prompt_width : prompt_width + len(ids)] = 1
                mask[b, k, : len(ids)] = 1.0
                finished[b, k] = group.finished[k]
    tensors = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "position_ids": (attention_mask.cumsum(-1) - 1).clamp_(min=0),
        "mask": mask,
        "finished": finished,
    }
    for name in ("reference_log_probs", "teacher_log_probs"):
        if any(getattr(group, name) for group in groups):
            tensors[name] = _per_token(groups, name, size)
    for name, dtype in (("rewards", torch.float32), ("ranking", torch.long), ("labels", torch.long)):
        if any(getattr(group, name) for group in groups):
            values = torch.zeros(size[:2], dtype=dtype)
            for b, group in enumerate(groups):
                row_values = getattr(group, name)
                values[b, : len(row_values)] = torch.tensor(row_values, dtype=dtype)
            tensors[name] = values
    return tensors


def _per_token(groups: Sequence[Group], name: str, size: tuple[int, int, int]) -> Tensor:
    values = torch.zeros(size, dtype=torch.float32)
    for b, group in enumerate(groups):
        for k, row in enumerate(getattr(group, name)):
            if len(row) != len(group.responses[k]):
                raise ValueError(
                    f"item {group.item}: {name} of response {k} has {len(row)} values for "
                    f"{len(group.responses[k])} tokens"
                )
            values[b, k, : len(row)] = torch.tensor(row, dtype=torch.float32)
    return values


def as_batch(tensors: Mapping[str, Any]) -> Batch:
    """The Batch of the tensors that `collate` made."""
    return Batch(**{name: tensors[name] for name in TENSORS if name in tensors})
