"""Training of the embedded models: a small Llama, a loss over examples, one loop for every stage."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from harness.playground.corpus import Example
from harness.playground.language import BOS, CONTEXT_LENGTH, EOS, PAD, VOCABULARY
from harness.playground.world import Problem, problems

Maker = Callable[[Problem, random.Random], Example]


@dataclass(frozen=True, slots=True)
class Stage:
    """One training stage: `steps` batches of `batch` examples from `make`, at learning rate `lr` (for matrices)."""

    name: str
    make: Maker
    steps: int
    batch: int = 64
    lr: float = 0.02
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Ids, labels and their weights [B, T], marks [M, 2] as (row, position) with their truth [M].

    `total` is the weighted number of labels of an average batch, by which the summed loss is divided.
    """

    ids: Tensor
    labels: Tensor
    weights: Tensor
    marks: Tensor
    truth: Tensor
    total: float


def new_model(seed: int) -> Any:
    """An untrained model of 0.8 M parameters: 4 layers, hidden 128, 4 heads, tied embeddings, 512 positions."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        initializer_range=0.05,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    return LlamaForCausalLM(config)


def fit(model: Any, stage: Stage, *, compiled: bool = False, log: Callable[[str], None] = print) -> float:
    """Train `model` in place on one stage and return the seconds it took.

    The loss is the mean cross-entropy of the labels plus, where examples carry marks, that of a throw-away probe that
    tells right answers from wrong ones at their last token: one letter a prompt is too thin a signal to learn from.
    """
    device = next(model.parameters()).device
    probe = nn.Linear(model.config.hidden_size, 1).to(device)
    optimizers = _optimizers(model, probe, stage.lr)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    body = torch.compile(model.model, dynamic=True) if compiled else model.model
    model.train()
    start, shown = time.perf_counter(), 0.0
    for step, batch in enumerate(_batches(stage, device), 1):
        factor = min(1.0, step / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / stage.steps)))
        for optimizer, initial in zip(optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, initial, strict=True):
                group["lr"] = rate * factor
        loss = _loss(model, body, probe, batch)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        shown = loss.item() if step == 1 else 0.98 * shown + 0.02 * loss.item()
        if step % 100 == 0 or step == stage.steps:
            pace = (time.perf_counter() - start) / step
            log(f"{stage.name}: step {step}/{stage.steps}, loss {shown:.3f}, {pace:.3f} s a step")
    model.eval()
    return time.perf_counter() - start


def _optimizers(model: Any, probe: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    # Muon halves the steps that AdamW needs here; it is for the hidden matrices only.
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, momentum=0.95)
    adam = torch.optim.AdamW([*others, *probe.parameters()], lr=lr * 0.15, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adam]


def _loss(model: Any, body: Any, probe: nn.Module, batch: Batch) -> Tensor:
    # Padding sits on the right, where causal attention never looks from a real token: no mask is needed.
    hidden = body(input_ids=batch.ids, use_cache=False).last_hidden_state
    labels = batch.labels[:, 1:]
    learned = labels != -100
    losses = nn.functional.cross_entropy(model.lm_head(hidden[:, :-1][learned]), labels[learned], reduction="none")
    loss = (losses * batch.weights[:, 1:][learned]).sum() / batch.total
    if len(batch.truth):
        logits = probe(hidden[batch.marks[:, 0], batch.marks[:, 1]]).squeeze(-1)
        loss = loss + nn.functional.binary_cross_entropy_with_logits(logits, batch.truth)
    return loss


def _batches(stage: Stage, device: torch.device) -> Iterator[Batch]:
    """Batches of examples of similar length: 32 batches are drawn at a time and sorted."""
    rng, source, done = random.Random(stage.seed), problems("stream"), 0
    next(islice(source, stage.seed * 1000, None))
    while done < stage.steps:
        count = min(32, stage.steps - done)
        drawn = [stage.make(problem, rng) for problem in islice(source, count * stage.batch)]
        # A batch of short answers must not weigh as much as one of long ones: the model would learn to be short.
        total = sum(_weight(example) for example in drawn) / count
        drawn.sort(key=lambda example: len(example.ids))
        groups = [drawn[at : at + stage.batch] for at in range(0, len(drawn), stage.batch)]
        rng.shuffle(groups)
        yield from (collate(group, total, device) for group in groups)
        done += count


def _weight(example: Example) -> float:
    return sum(weight for label, weight in zip(example.labels, example.weights, strict=True) if label != -100)


def collate(examples: list[Example], total: float, device: torch.device) -> Batch:
    """A batch padded on the right."""
    width = max(len(example.ids) for example in examples)
    ids = [example.ids + [PAD] * (width - len(example.ids)) for example in examples]
    labels = [example.labels + [-100] * (width - len(example.labels)) for example in examples]
    weights = [example.weights + [0.0] * (width - len(example.ids)) for example in examples]
    marks = [(row, position) for row, example in enumerate(examples) for position, _ in example.marks]
    truth = [float(right) for example in examples for _, right in example.marks]
    return Batch(
        torch.tensor(ids, device=device),
        torch.tensor(labels, device=device),
        torch.tensor(weights, device=device),
        torch.tensor(marks, device=device, dtype=torch.long).reshape(-1, 2),
        torch.tensor(truth, device=device),
        total,
    )
