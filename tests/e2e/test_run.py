"""A whole run with tiny models: everything from experiment file to report, resumed, repeated and killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import cli
from harness.store import Store, iterate_cells
from tests.unit.tiny import save_tiny

ROOT = Path(__file__).parents[2]
EXPERIMENT = """\
name: small
models:
  base: {path: base}
  teacher: {path: teacher}
data:
  train: {suite: playground, split: train, limit: 24}
rollouts: {n: 3, temperature: 1.0, max_new_tokens: 12}
students:
  sft: {objective: sft, lora: {r: 4}, training: {lr: 1e-1, batch: 8, save_steps: 1}}
  dpo: {objective: dpo, training: {lr: 2e-2, batch: 8, micro_batch: 4}}
  sft_dpo: {objective: dpo, from: sft, lora: {r: 4}, training: {lr: 1e-1, batch: 8}}
  other: {model: {path: teacher}}
suites:
  playground: {limit: 16, max_new_tokens: 12}
compare: {baseline: base, primary: [playground/exact_match]}
gates:
  - {metric: playground/exact_match, student: dpo, rule: not_worse, than: base, margin: 0.9}
  - {metric: playground/truncated, student: sft, rule: max, value: 1.0, level: warn}
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_tiny(folder / "base", seed=0)
    save_tiny(folder / "teacher", seed=1)
    return folder


@pytest.fixture
def place(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("base", "teacher"):
        (tmp_path / name).symlink_to(models / name)
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    for name in ("base", "teacher"):
        (folder / name).symlink_to(models / name)
    (folder / "small.yaml").write_text(EXPERIMENT)
    runs = folder / "runs"
    assert cli.main(["run", str(folder / "small.yaml"), "--runs", str(runs)]) == 0
    return folder


def run_folder(folder: Path) -> Path:
    return next((folder / "runs").glob("small-*"))


def subprocess_run(folder: Path, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code or "import sys; from harness.cli import main; sys.exit(main(sys.argv[1:]))"]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, env=environment())


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_a_run_leaves_report_gates_manifest_and_every_row(finished: Path) -> None:
    folder = run_folder(finished)
    page = (folder / "report" / "report.html").read_text()
    assert "sft_dpo" in page
    assert (folder / "report" / "report.md").exists()
    gate = json.loads((folder / "gate.json").read_text())
    assert [g["outcome"] for g in gate["gates"]] and gate["outcome"] in ("pass", "fail", "inconclusive")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [s["label"] for s in manifest["subjects"]] == ["base", "teacher", "sft", "dpo", "sft_dpo", "other"]
    store = Store(finished / "runs")
    for ref in iterate_cells(finished / "runs"):
        marker = store.done(ref)
        assert marker is not None and marker["rows"] == len(store.rows(ref))
        spec = (store.folder(ref) / "spec.json").read_text()
        assert str(finished) not in spec, "a path must never enter a key"


def test_rollouts_keep_ids_finish_reason_and_seed(finished: Path) -> None:
    store = Store(finished / "runs")
    rollouts = [store.rows(ref) for ref in iterate_cells(finished / "runs") if ref.kind == "rollouts"]
    assert len(rollouts) == 2, "base and sft are each sampled once; dpo shares the base's"
    for rows in rollouts:
        assert len(rows) == 24 * 3
        assert all(
            row.keys() == {"key", "item", "sample", "turn", "text", "token_ids", "finish_reason", "seed"}
            for row in rows
        )
        assert {row["finish_reason"] for row in rows} <= {"stop", "length"}


def test_preferences_say_where_they_came_from(finished: Path) -> None:
    store = Store(finished / "runs")
    rows = [row for ref in iterate_cells(finished / "runs") if ref.kind == "pairs" for row in store.rows(ref)]
    assert rows
    for row in rows:
        assert row["chosen"]["reward"] > row["rejected"]["reward"]
        assert row["preference_source"].startswith("teacher:likelihood:") and "reward" in row["preference_basis"]


def test_every_composition_starts_at_log_2(finished: Path) -> None:
    store = Store(finished / "runs")
    folder = run_folder(finished)
    trained = json.loads((folder / "manifest.json").read_text())["trained"]
    for label in ("dpo", "sft_dpo"):
        ref = next(ref for ref in iterate_cells(finished / "runs") if ref.key == trained[label])
        first = store.rows(ref)[0]
        assert first["loss"] == pytest.approx(0.693147, abs=1e-5), label


def test_a_repeat_is_served_from_the_store_without_torch(finished: Path) -> None:
    code = (
        "import sys; from harness.cli import main; code = main(sys.argv[1:]); "
        "print('HEAVY', sorted({'torch', 'transformers'} & set(sys.modules))); sys.exit(code)"
    )
    before = {p: p.stat().st_mtime_ns for p in (finished / "runs" / "cells").rglob("*.json*")}
    done = subprocess_run(finished, "run", "small.yaml", code=code)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert {p: p.stat().st_mtime_ns for p in (finished / "runs" / "cells").rglob("*.json*")} == before
    lines = done.stdout.splitlines()
    assert any(line.startswith("gate: ") for line in lines)
    assert any(line.endswith("report.html") and Path(finished / line).exists() for line in lines)


@pytest.mark.parametrize(
    "command", [["plan", "small.yaml"], ["report", "small"], ["gate", "small"], ["list", "runs"], ["compare", "small"]]
)
def test_reading_commands_import_no_torch(finished: Path, command: list[str]) -> None:
    code = (
        "import sys; from harness.cli import main; main(sys.argv[1:]); "
        "print('HEAVY', sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess_run(finished, *command, code=code)
    assert "HEAVY []" in done.stdout, done.stderr


def test_gate_exits_with_the_outcome(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["gate", "small", "--runs", str(finished / "runs"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == {"pass": 0, "fail": 3, "inconclusive": 4}[found["outcome"]]
    assert found["gates"][0].keys() >= {"rule", "metric", "outcome", "reason"}


def test_compare_two_students_is_one_line_of_json(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "small:sft", "small:dpo", "--runs", str(finished / "runs"), "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    row = json.loads(out)["rows"][0]
    assert row["suite"] == "playground" and row["claim"] == "checkpoint" and row["n_items"] == 16


def test_more_items_extend_the_cells_and_retrain_nothing(finished: Path) -> None:
    done = subprocess_run(finished, "run", "small.yaml", "--set", "suites.playground.limit=20")
    assert done.returncode == 0, done.stderr
    assert "train" not in done.stderr and "rollouts" not in done.stderr
    store = Store(finished / "runs")
    counts = [len(store.rows(ref)) for ref in iterate_cells(finished / "runs") if ref.kind == "generations"]
    assert counts == [20] * 5, "the model from elsewhere is the teacher, and shares its answers"


def test_a_users_own_suite_and_objective_stand_where_built_in_names_do(place: Path) -> None:
    (place / "mine.py").write_text(
        "from harness.records import Item, Message, Sampling, Suite\n"
        "VERSION = '1'\n"
        "def suite(count: int = 5):\n"
        "    ask = lambda i: (Message('user', f'is {i} more than 3 ?'),)\n"
        "    items = tuple(Item(str(i), ask(i), target='yes') for i in range(count))\n"
        "    metrics = {'long': lambda out, item: float(len(out) > 9)}\n"
        "    return Suite(VERSION, items, metrics, 'long', Sampling(max_new_tokens=8))\n"
    )
    (place / "half.py").write_text(
        "from harness.records import Term\n"
        "VERSION = '1'\nNEEDS = ('targets',)\nON_POLICY = 'never'\nDEFAULTS = {'share': 0.5}\n"
        "TRAINING = {'lr': 0.3}\n"
        "def denominators(batch): return {'nll': float(batch.mask.sum())}\n"
        "def loss(policy, batch, *, share): return {'nll': Term(-policy.log_probs.sum(), share)}, {}\n"
    )
    text = EXPERIMENT[: EXPERIMENT.index("students:")]
    text += "students:\n  own: {objective: ./half.py, params: {share: 0.25}}\nsuites:\n  ./mine.py: {count: 6}\n"
    (place / "own.yaml").write_text(text)
    assert cli.main(["run", "own.yaml"]) == 0
    manifest = json.loads(next((place / "runs").glob("small-*/manifest.json")).read_text())
    assert len(manifest["suites"]["./mine.py"]["items"]) == 6


def test_three_kills_of_a_real_training_find_every_step_once(place: Path) -> None:
    text = EXPERIMENT.replace("limit: 24", "limit: 64").replace("batch: 8, save_steps: 1", "batch: 4, save_steps: 2")
    text = text[: text.index("  dpo:")] + text[text.index("suites:") : text.index("gates:")]
    (place / "kill.yaml").write_text(text)
    rng = random.Random(5)
    rows = lambda: [p.read_bytes().count(b"\n") for p in (place / "runs/cells/train").rglob("rows.jsonl")]  # noqa: E731
    code = "import sys; from harness.cli import main; sys.exit(main(sys.argv[1:]))"
    for kill in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", code, "run", "kill.yaml"], cwd=place, env=environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        wanted = 2 + 4 * kill
        while process.poll() is None and not (rows() and rows()[0] >= wanted):
            time.sleep(0.02)
        time.sleep(rng.random() * 0.1)
        assert process.poll() is None, "the training ended before it could be killed"
        process.kill()
        process.communicate()
    done = subprocess_run(place, "run", "kill.yaml")
    assert done.returncode == 0, done.stderr
    store = Store(place / "runs")
    (ref,) = [ref for ref in iterate_cells(place / "runs") if ref.kind == "train"]
    steps = [row["step"] for row in store.rows(ref)]
    assert sorted(steps) == list(range(1, 17))
    uninterrupted = subprocess_run(place, "run", "kill.yaml", "--runs", "again")
    assert uninterrupted.returncode == 0
    other = Store(place / "again")
    a = {row["step"]: row["loss"] for row in store.rows(ref)}
    b = {row["step"]: row["loss"] for row in other.rows(ref)}
    assert a == pytest.approx(b, rel=1e-4)
    assert not (store.folder(ref) / "checkpoints").exists()
