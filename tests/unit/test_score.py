"""Scoring: rows of answers to rows of scores, and a file of outputs to measures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from harness.records import Generation, Item, Message, ProctorError, Score, Suite, Unscored
from harness.stages.score import score_outputs, score_rows


def same(text: str, item: Item) -> float:
    return float(text == item.target)


def judged(text: str, item: Item) -> float | Unscored:
    return Unscored("the judge did not answer") if text == "?" else 1.0


def suite_of(n: int = 4, **metrics: Any) -> Suite:
    items = tuple(Item(str(i), (Message("user", f"Say {i}"),), target=str(i)) for i in range(n))
    return Suite(version="7", items=items, metrics=metrics or {"same": same, "judged": judged}, primary="same")


def answer(item: str, text: str, sample: int = 0) -> Generation:
    return Generation(item, sample, 0, text, (), "stop", 0)


def write(path: Path, outputs: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps({"id": key, "output": text}) + "\n" for key, text in outputs.items()))
    return path


def test_every_answer_gets_every_metric_in_order() -> None:
    rows = list(score_rows(suite_of(), [answer("1", "1", sample=3), answer("0", "?")]))
    assert rows == [
        Score("1", 3, "same", 1.0),
        Score("1", 3, "judged", 1.0),
        Score("0", 0, "same", 0.0),
        Score("0", 0, "judged", None, "the judge did not answer"),
    ]


def test_an_answer_to_an_item_that_the_suite_does_not_have_is_refused() -> None:
    with pytest.raises(ProctorError, match="suite 'toy' has no item '9'"):
        list(score_rows(suite_of(), [answer("9", "9")], name="toy"))


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "1", 1 + 0j])
def test_a_metric_that_gives_no_finite_number_is_a_bug_in_the_suite(value: object) -> None:
    with pytest.raises(ProctorError, match="suite 'toy', metric 'broken', item '0': the metric gave"):
        list(score_rows(suite_of(broken=lambda text, item: value), [answer("0", "")], name="toy"))


def test_a_metric_that_raises_is_a_bug_in_the_suite_not_a_wrong_answer() -> None:
    with pytest.raises(ProctorError, match=r"suite 'toy', metric 'broken', item '2': .*ZeroDivisionError"):
        list(score_rows(suite_of(broken=lambda text, item: 1 / 0), [answer("2", "")], name="toy"))


def test_a_file_of_outputs_becomes_measures_with_intervals(tmp_path: Path) -> None:
    path = write(tmp_path / "o.jsonl", {"0": "0", "1": "1", "2": "wrong", "3": "3"})
    found = score_outputs(suite_of(), path, name="toy")
    assert list(found) == ["suite", "version", "n_items", "coverage", "measures"]
    assert (found["suite"], found["version"], found["n_items"], found["coverage"]) == ("toy", "7", 4, 1.0)
    measure = found["measures"]["same"]
    assert list(measure) == ["value", "low", "high", "n", "unscored"]
    assert (measure["value"], measure["n"], measure["unscored"]) == (0.75, 4, 0)
    assert 0.0 < measure["low"] < 0.75 < measure["high"] < 1.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_empty_outputs_and_outputs_that_are_no_text_are_wrong_under_every_metric(tmp_path: Path) -> None:
    path = write(tmp_path / "o.jsonl", {"0": "", "1": None, "2": 2, "3": "3"})
    measures = score_outputs(suite_of(), path, name="toy")["measures"]
    assert (measures["same"]["value"], measures["same"]["n"]) == (0.25, 4)
    assert (measures["judged"]["value"], measures["judged"]["n"]) == (0.5, 4)


def test_an_unscored_row_is_in_neither_the_mean_nor_its_n(tmp_path: Path) -> None:
    path = write(tmp_path / "o.jsonl", {"0": "?", "1": "1", "2": "2", "3": None})
    measure = score_outputs(suite_of(), path, name="toy")["measures"]["judged"]
    assert (measure["n"], measure["unscored"]) == (3, 1)
    assert measure["value"] == pytest.approx(2 / 3)


def test_a_partial_file_is_scored_on_its_own_items_and_says_its_coverage(tmp_path: Path) -> None:
    path = write(tmp_path / "o.jsonl", {"0": "0", "1": "wrong"})
    with pytest.raises(ProctorError, match="2 of 4 items without an output"):
        score_outputs(suite_of(), path, name="toy")
    found = score_outputs(suite_of(), path, True, name="toy")
    assert (found["n_items"], found["coverage"]) == (4, 0.5)
    measure = found["measures"]["same"]
    assert (measure["value"], measure["n"], measure["unscored"]) == (0.5, 2, 0)
