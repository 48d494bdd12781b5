"""GSM8K's rules on OpenAI's own labelled solutions: 660 test questions x 4 models, each marked right or wrong.

The labels are the independent source: `is_correct` was decided by OpenAI. Solutions end in `A: N`; the official rule
wants `#### N`. The expected figures are those of the data's README, for the half of the questions that is shipped.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.metrics.numbers import flexible, gold_number, has_format, numeric, numeric_extract, official, strict
from suites import gsm8k

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


class Solution(NamedTuple):
    model: str
    text: str
    gold: str
    is_correct: bool

    @property
    def with_mark(self) -> str:
        return re.sub(r"(?m)^A: ", "#### ", self.text)


@pytest.fixture(scope="module")
def solutions(data_dir: Callable[[str], Path]) -> list[Solution]:
    folder = data_dir("gsm8k")
    items = gsm8k.suite(path=str(folder / "test.jsonl")).items
    found = []
    with gzip.open(folder / "example_model_solutions.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            item = items[row["test_index"]]
            assert item.messages[-1].content.startswith(row["question"])
            for model in MODELS:
                found.append(Solution(model, row[model]["solution"], str(item.target), row[model]["is_correct"]))
    return found


def test_the_labels_are_the_ones_the_readme_counts(solutions: list[Solution]) -> None:
    right = Counter(solution.model for solution in solutions if solution.is_correct)
    assert len(solutions) == 2640
    assert [right[model] for model in MODELS] == [133, 259, 248, 372]


def test_official_and_strict_agree_with_every_label_once_the_mark_is_there(solutions: list[Solution]) -> None:
    for solution in solutions:
        assert official(solution.with_mark, solution.gold) == solution.is_correct
        assert strict(solution.with_mark, solution.gold) == solution.is_correct


def test_official_and_strict_find_nothing_without_the_mark(solutions: list[Solution]) -> None:
    for solution in solutions:
        assert official(solution.text, solution.gold) == strict(solution.text, solution.gold) == 0.0
        assert has_format(solution.text) == 0.0


def test_flexible_and_numeric_agree_with_every_label_on_the_raw_text(solutions: list[Solution]) -> None:
    for solution in solutions:
        assert flexible(solution.text, solution.gold) == solution.is_correct
        assert numeric(solution.text, solution.gold) == solution.is_correct


def test_numeric_does_not_depend_on_how_the_answer_is_marked(solutions: list[Solution]) -> None:
    for solution in solutions:
        expected = numeric_extract(solution.text)
        for mark in ("#### ", "#### $", "The answer is ", "**Final answer:** "):
            assert numeric_extract(re.sub(r"(?m)^A: ", mark, solution.text)) == expected


def test_solutions_without_an_answer_line_are_the_only_ones_without_a_format(solutions: list[Solution]) -> None:
    without = [solution for solution in solutions if not has_format(solution.with_mark)]
    assert len(without) == sum("A:" not in solution.text for solution in solutions) == 6
    assert not any(solution.is_correct for solution in without)


@pytest.mark.parametrize(("split", "n_items", "with_comma"), [("test", 1319, 14), ("train", 7473, 79)])
def test_every_gold_answer_is_right_under_every_rule(
    data_dir: Callable[[str], Path], split: str, n_items: int, with_comma: int
) -> None:
    suite = gsm8k.suite(path=str(data_dir("gsm8k")), split=split)
    assert len(suite.items) == n_items
    golds = [str(item.target) for item in suite.items]
    assert sum("," in gold.rpartition("#### ")[2] for gold in golds) == with_comma
    for gold in golds:
        assert gold_number(gold) == int(gold_number(gold))
        assert official(gold, gold) == strict(gold, gold) == flexible(gold, gold) == numeric(gold, gold) == 1.0


def test_a_neighbours_gold_answer_is_right_only_where_the_numbers_are_equal(data_dir: Callable[[str], Path]) -> None:
    items = gsm8k.suite(path=str(data_dir("gsm8k"))).items
    for item, neighbour in itertools.pairwise(items):
        gold, other = str(item.target), str(neighbour.target)
        equal = float(gold_number(gold) == gold_number(other))
        assert official(other, gold) == strict(other, gold) == flexible(other, gold) == numeric(other, gold) == equal


def test_few_shot_examples_are_the_first_of_the_train_file_without_calculator_marks(
    data_dir: Callable[[str], Path],
) -> None:
    messages = gsm8k.suite(path=str(data_dir("gsm8k") / "test.jsonl"), shots=5).items[0].messages
    assert [message.role for message in messages] == ["user", "assistant"] * 5 + ["user"]
    assert messages[0].content.startswith("Natalia sold clips to 48 of her friends in April")
    assert messages[1].content.endswith("#### 72")
    assert not any("<<" in message.content for message in messages)
