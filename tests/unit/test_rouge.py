"""Rouge-L equals google's rouge_score on its own test files, and the textbook recursion everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.rouge import lcs_length, rouge_l, rouge_l_f, words

TOKENS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12)


def textbook(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    @cache
    def length(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return 0
        if a[i] == b[j]:
            return 1 + length(i + 1, j + 1)
        return max(length(i + 1, j), length(i, j + 1))

    return length(0, 0)


@given(TOKENS, TOKENS)
def test_the_subsequence_is_the_longest(a: list[str], b: list[str]) -> None:
    assert lcs_length(a, b) == textbook(tuple(a), tuple(b)) == lcs_length(b, a)


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_scores_between_0_and_1_and_itself_1(a: str, b: str) -> None:
    assert 0.0 <= rouge_l(a, b)[2] <= 1.0
    assert rouge_l(a, b)[0] == rouge_l(b, a)[1]
    if words(a):
        assert rouge_l(a, a) == (1.0, 1.0, 1.0)


def test_words_are_lower_case_letters_and_digits() -> None:
    assert words("The U.S. paid $1,000 - état!") == ["the", "u", "s", "paid", "1", "000", "tat"]


def test_the_best_reference_counts() -> None:
    assert rouge_l_f("a b", ["c d", "a b"]) == 1.0
    with pytest.raises(ValueError, match="reference"):
        rouge_l_f("a", [])


def test_the_official_test_files(data_dir: Callable[[str], Path]) -> None:
    """Expected values: ROUGE-1.5.5's for the pairs, rouge_score 0.1.2's means without stemmer for the large file."""
    folder = data_dir("rouge_testdata")
    predictions = (folder / "prediction.txt").read_text().splitlines()
    targets = (folder / "target.txt").read_text().splitlines()
    for index, (recall, precision, f) in enumerate([(0.40741, 0.68750, 0.51163), (0.40476, 0.65385, 0.50000)]):
        assert rouge_l(predictions[index], targets[index]) == pytest.approx((precision, recall, f), abs=5e-6)
    many = zip(
        (folder / "prediction_large.txt").read_text().splitlines(),
        (folder / "target_large.txt").read_text().splitlines(),
        strict=True,
    )
    scores = [rouge_l(prediction, target) for prediction, target in many]
    means = [math.fsum(score[i] for score in scores) / len(scores) for i in range(3)]
    assert means == pytest.approx([0.495715, 0.317604, 0.383231], abs=5e-7)
