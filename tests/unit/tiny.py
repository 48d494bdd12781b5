"""A tiny random model in the playground's language, for tests that need one but no skill."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.playground.language import build_tokenizer

torch.set_num_threads(1)


def tiny_model(seed: int = 0, layers: int = 2, dtype: torch.dtype = torch.float32, context: int = 512) -> Any:
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).to(dtype)


def save_tiny(folder: Path, seed: int = 0, context: int = 512) -> Path:
    tiny_model(seed, context=context).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder
