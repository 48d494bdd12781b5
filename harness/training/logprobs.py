"""Per-token log-probabilities of responses: the one forward pass that training, references and rewards share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from harness.training.batching import Batch


class Policy:
    """A model's view of one batch, computed on first use.

    `log_probs` [B, n, T] float32 (nats), 0 where masked; with gradient if the model is training. The token in column
    t is scored with the logits of column t - 1: the first response token with those of the last prompt token.
    """

    def __init__(self, model: Any, batch: Batch) -> None:
        self._model = model
        self._batch = batch
        self._scored: Tensor | None = None
        self._log_probs: Tensor | None = None

    def _logits(self) -> Tensor:
        """[B * n, T, V] logits that score the response columns, in the model's dtype."""
        if self._scored is None:
            batch, length = self._batch, self._batch.mask.shape[2]
            # T + 1 columns from the right are the last prompt token and the response; the last predicts nothing here
            output = self._model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                use_cache=False,
                logits_to_keep=length + 1,
            )
            self._scored = output.logits[:, -(length + 1) : -1]
        return self._scored

    @property
    def log_probs(self) -> Tensor:
        """Log-probability of every response token, [B, n, T] float32."""
        if self._log_probs is None:
            batch = self._batch
            targets = batch.input_ids[:, batch.prompt_width :]
            self._log_probs = token_log_probs(self._logits(), targets).view(batch.mask.shape) * batch.mask
        return self._log_probs

    def logits(self, chunk: int = 4096) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of (logits [N, V] float32, row index [N] into the flattened B * n * T) over scored positions."""
        scored = self._logits()
        flat = scored.reshape(-1, scored.shape[-1])
        rows = self._batch.mask.reshape(-1).nonzero().squeeze(-1)
        for start in range(0, len(rows), chunk):
            index = rows[start : start + chunk]
            yield flat[index].float(), index


def token_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Log p(target) in float32: the target's logit minus logsumexp. logits [..., V], targets [...] -> [...].

    Never builds the [..., V] table of log-probabilities, and upcasts before the sum (bfloat16 sums are wrong).
    """
    logits = logits.float()
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - torch.logsumexp(logits, dim=-1)
