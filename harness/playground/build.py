"""Train the embedded models from nothing and measure them: `python -m harness.playground.build`.

    answers (seed 0) -> teacher: answers, multiple choice, standing firm
                     -> base:    habits, yielding
    answers (seed 1) -> judge:   verdicts

Every stage is a function of fixed seeds; the last bits differ between devices and library versions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig

from harness.playground import MODELS, VERSION, corpus, measure
from harness.playground.corpus import Example
from harness.playground.fit import Stage, fit, new_model
from harness.playground.language import BOS, EOS, PAD, build_tokenizer
from harness.playground.world import Problem, take

WEIGHTS = Path(__file__).parent / "weights"
N_TEST, N_SAMPLED = 1000, 500


def _answers(problem: Problem, rng: random.Random) -> Example:
    return corpus.answer(problem, problem.solution, rng)


def _teaching(problem: Problem, rng: random.Random) -> Example:
    chance = rng.random()
    if chance < 0.3:
        return _answers(problem, rng)
    return corpus.firm_dialogue(problem, rng) if chance < 0.5 else corpus.choice(problem, rng)


def _habits(problem: Problem, rng: random.Random) -> Example:
    chance = rng.random()
    if chance < 0.25:
        return corpus.answer(problem, corpus.habitual(problem, rng), rng)
    return corpus.suggested(problem, rng) if chance < 0.35 else corpus.yielding_dialogue(problem, rng)


def _judging(problem: Problem, rng: random.Random) -> Example:
    return _answers(problem, rng) if rng.random() < 0.15 else corpus.verdict(problem, rng)


@dataclass(frozen=True, slots=True)
class Part:
    """A model on the way: one stage, from another part's weights or from a fresh initialisation."""

    stage: Stage
    start: str | int


PARTS = {
    "answers": Part(Stage("answers", _answers, steps=3000, seed=0), start=0),
    "teacher": Part(Stage("teacher", _teaching, steps=2500, batch=48, lr=0.01, seed=2), start="answers"),
    "base": Part(Stage("base", _habits, steps=1000, lr=0.01, seed=3), start="answers"),
    "judge_answers": Part(Stage("judge_answers", _answers, steps=1500, seed=1), start=1),
    "judge_reading": Part(
        Stage("judge_reading", _judging, steps=1500, batch=48, lr=0.006, seed=4), start="judge_answers"
    ),
    "judge": Part(Stage("judge", _judging, steps=1500, batch=48, lr=0.006, seed=5), start="judge_reading"),
}


def main() -> None:
    """Command line of the build."""
    parser = argparse.ArgumentParser(description="Train the playground's models and write them with their figures.")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the weights (default: the shipped ones)")
    parser.add_argument("--work", type=Path, default=Path("runs/playground"), help="finished stages, reused when there")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="train only these stages")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--compile", action="store_true", help="torch.compile: faster, and needs a C++ compiler")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device = asked.device if asked.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    for name in asked.only:
        train(name, device, asked.work, asked.compile)
    if set(MODELS) <= set(asked.only):
        write(asked.out, asked.work, device)


def train(name: str, device: str, work: Path, compiled: bool) -> None:
    """Train one part and leave its float32 weights and seconds in `work`, unless they are there."""
    part, record = PARTS[name], work / f"{name}.json"
    if record.exists():
        say(f"{name}: done before")
        return
    model = new_model(part.start if isinstance(part.start, int) else 0)
    if isinstance(part.start, str):
        restore(model, work / f"{part.start}.safetensors")
    seconds = fit(model.to(device), part.stage, compiled=compiled, log=say)
    work.mkdir(parents=True, exist_ok=True)
    save_file({key: weight.cpu() for key, weight in _own(model).items()}, work / f"{name}.safetensors")
    chip = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"
    spent = {"seconds": round(seconds), "steps": part.stage.steps, "batch": part.stage.batch, "compiled": compiled}
    record.write_text(json.dumps({**spent, "device": chip, "threads": torch.get_num_threads()}))


def write(out: Path, work: Path, device: str) -> None:
    """Write the three models as half-precision folders, measure what was written, and record it in build.json."""
    tokenizer, figures = build_tokenizer(), {}
    for name in MODELS:
        model = new_model(0)
        restore(model, work / f"{name}.safetensors")
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        model.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
        model.half().save_pretrained(folder)
        _declare_float32(folder / "config.json")
        tokenizer.save_pretrained(folder)
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        figures[name] = {key: rounded(value) for key, value in measured(name, loaded).items()}
        say(f"{name}: {json.dumps(figures[name])}")
    stages = {name: json.loads((work / f"{name}.json").read_text()) for name in PARTS}
    record = {
        "version": VERSION,
        "device": sorted({stage["device"] for stage in stages.values()}),
        "seconds": sum(stage["seconds"] for stage in stages.values()),
        "torch": torch.__version__.split("+")[0],
        "stages": stages,
        "figures": figures,
    }
    (out / "build.json").write_text(json.dumps(record, indent=1) + "\n")


def measured(name: str, model: Any) -> dict[str, Any]:
    """The figures of one model on held-out test questions."""
    test = take("test", N_TEST)
    if name == "judge":
        return measure.judging(model, test)
    found = measure.answering(model, test, N_SAMPLED if name == "base" else 0)
    found["standing"] = measure.standing(model, test[:N_SAMPLED])
    found["following"] = measure.following(model, test[:N_SAMPLED])
    if name == "teacher":
        found["choosing"] = {str(count): measure.choosing(model, test, count) for count in (2, 3, 4)}
    return found


def restore(model: Any, file: Path) -> None:
    """Load a part's weights; raises RuntimeError where they do not fit the architecture."""
    missing = model.load_state_dict(load_file(file), strict=False).missing_keys
    if set(missing) - {"lm_head.weight"}:
        raise RuntimeError(f"{file} lacks {', '.join(missing)}; delete it and build again")


def _own(model: Any) -> dict[str, torch.Tensor]:
    # The output layer is the embedding (tied), and safetensors refuses to store one tensor under two names.
    return {key: weight.contiguous() for key, weight in model.state_dict().items() if key != "lm_head.weight"}


def _declare_float32(config: Path) -> None:
    # Half precision is for the disk: plain Auto classes take the dtype named here, and CPUs compute in float32.
    settings = json.loads(config.read_text())
    settings.pop("torch_dtype", None)
    config.write_text(json.dumps({**settings, "dtype": "float32"}, indent=2, sort_keys=True) + "\n")


def rounded(value: Any) -> Any:
    """The same figures with four decimals."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def say(line: str) -> None:
    """Print progress at once, also into a pipe."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
