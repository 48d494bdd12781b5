"""The playground: a generated world with known truth, and the tiny models that live in it (see docs/playground.md)."""

from __future__ import annotations

from pathlib import Path

VERSION = 1
"""Version of the world and its models: part of every item's random seed, so a change makes other questions."""

MODELS = ("base", "teacher", "judge")


def path(name: str) -> Path:
    """Folder with the weights of the embedded model `name`; raises KeyError, naming the models there are."""
    if name not in MODELS:
        raise KeyError(f"the playground has no model {name!r}; it has {', '.join(MODELS)}")
    return Path(__file__).parent / "weights" / name
