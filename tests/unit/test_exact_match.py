"""The exact match of Super-NaturalInstructions: facts/metrics_and_probes.md, section b, says its rule."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.exact_match import exact_match, normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("U.S.", "us"),
        ("3.5", "35"),
        ("The  Answer\tis:\nYES!", "the answer is yes"),
        ("a cat", "a cat"),  # SQuAD would drop the article
        ("well-known", "wellknown"),
        ("“quoted”", "“quoted”"),  # Unicode punctuation stays
        ("é\u00a0É", "é é"),
        ("...", ""),
    ],
)
def test_normalise_follows_the_leaderboards_rule(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.text())
def test_normalise_leaves_neither_punctuation_nor_double_spaces_behind(text: str) -> None:
    normal = normalise(text)
    assert not set(normal) & set(string.punctuation)
    assert normal == " ".join(normal.split())


@given(st.text(alphabet=st.characters(codec="ascii")))
def test_normalising_ascii_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_the_best_of_several_references_counts() -> None:
    assert exact_match("entailment.", ["Contradiction", "Entailment"]) == 1.0
    assert exact_match("neutral", ["Contradiction", "Entailment"]) == 0.0


def test_a_single_reference_may_be_a_plain_string() -> None:
    assert exact_match("yes", "Yes.") == 1.0
    assert exact_match("y", "yes") == 0.0


def test_an_article_more_is_a_different_answer() -> None:
    assert exact_match("the cat", "cat") == 0.0


def test_two_empty_strings_match() -> None:
    assert exact_match("", ["..."]) == 1.0
    assert exact_match("", ["x"]) == 0.0


def test_a_question_without_reference_is_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="reference"):
        exact_match("yes", [])
