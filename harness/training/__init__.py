"""The thin adapter over transformers.Trainer, and what it needs."""
