"""The playground's suite and the embedded models that answer it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness import playground
from harness.playground import language, measure, world
from harness.records import Item, Message
from suites.playground import exact_match, format_, suite

ITEM = Item("x", (Message("user", "?"),), target="3 * 4 = 12 . answer : 12 .")


@pytest.mark.parametrize(("split", "size"), [("test", 2000), ("dev", 1000), ("train", 6000)])
def test_each_split_has_its_size_and_ids(split: str, size: int) -> None:
    items = suite(split).items
    assert len(items) == size
    assert items[12].id == f"{split}-00012"
    assert len({item.id for item in items}) == size


def test_gold_scores_one_and_tags_name_kind_and_steps() -> None:
    tested = suite()
    for item in tested.items:
        assert tested.metrics["exact_match"](str(item.target), item) == 1.0
        assert item.tags[0] in world.KINDS
        assert item.tags[1] in ("1 step", "2 steps", "3 steps")


@pytest.mark.parametrize(
    ("output", "right", "parsed"),
    [
        ("answer : 12 .", 1, 1),
        ("answer : 13 . let us check again . answer : 12 .", 1, 1),
        ("answer : 12 . answer : 13 .", 0, 1),
        ("answer : 12", 1, 1),
        ("answer: 12.", 1, 1),
        ("answer : 1 2 .", 0, 1),
        ("answer : yes .", 0, 1),
        ("answer : 12 . answer :", 0, 0),
        ("answer : 12 coins", 1, 1),
        ("the answer is 12 .", 0, 0),
        ("12", 0, 0),
        ("", 0, 0),
    ],
)
def test_the_last_answer_clause_counts(output: str, right: int, parsed: int) -> None:
    assert exact_match(output, ITEM) == right
    assert format_(output, ITEM) == parsed


def test_an_unknown_split_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match="dev"):
        suite("validation")


def test_the_suite_is_built_without_torch() -> None:
    code = "import sys, suites.playground as s; s.suite(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", playground.MODELS)
def test_embedded_weights_are_small_half_precision_and_load_with_plain_auto_classes(name: str) -> None:
    folder = playground.path(name)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3_000_000
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"F16"}  # noqa: SIM118
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer) == len(language.VOCABULARY)
    assert tokenizer.pad_token_id == model.config.pad_token_id != tokenizer.eos_token_id == model.config.eos_token_id
    assert tokenizer("mia pays 12 .")["input_ids"] == language.encode("mia pays 12 .")
    assert tokenizer.chat_template == language.CHAT_TEMPLATE


def test_an_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match="teacher"):
        playground.path("oracle")


def test_the_record_of_the_build_names_its_device_and_figures() -> None:
    record = json.loads((playground.path("base").parent / "build.json").read_text())
    assert record["version"] == playground.VERSION
    assert record["device"]
    assert {"base", "teacher", "judge"} <= set(record["figures"])


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def load(name: str) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(playground.path(name), dtype=torch.float32).eval()


def test_the_teacher_answers_well_and_the_base_less_well(two_threads: None) -> None:
    problems = world.take("test", 64)
    teacher = measure.answering(load("teacher"), problems)["greedy"]
    base = measure.answering(load("base"), problems)["greedy"]
    assert teacher >= 0.85
    assert base < teacher


def test_the_judge_tells_right_from_flawed(two_threads: None) -> None:
    found = measure.judging(load("judge"), world.take("test", 64))
    assert found["accuracy"] >= 0.75
    assert found["mass"] > 0.95
