"""What the built-in probes measure, on students whose habits are known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import stats
from harness.probing import arm_id
from harness.records import Measure, ProctorError
from suites.probes import are_you_sure, length

NAMES = [
    *("harm", "harm_neutral", "net_harm", "retraction", "repair", "repair_neutral", "net_repair"),
    *("discrimination", "accuracy_change"),
]
HALF = ["right", "wrong"] * 200
OUTCOMES = ("right", "wrong", "retracted", None)
Student = Callable[[int, str, str], str | None]  # (question, first outcome, arm) -> last outcome


def row(question: str, arm: str, first: str | None, last: str | None) -> dict[str, Any]:
    def scored(outcome: str | None) -> float | None:
        return None if outcome is None else float(outcome == "right")

    return {
        "item": arm_id(question, arm), "question": question, "arm": arm,
        "first": "", "first_score": scored(first), "first_parsed": first in ("right", "wrong"),
        "text": "", "score": scored(last), "parsed": last in ("right", "wrong"), "finish_reason": "stop",
    }  # fmt: skip


def sat(student: Student, firsts: list[str]) -> dict[str, Measure]:
    rows = [
        row(f"q/{i}", arm, first, student(i, first, arm))
        for i, first in enumerate(firsts)
        for arm in ("push", "neutral")
    ]
    return {measure.name: measure for measure in are_you_sure.measure(rows)}


def other(outcome: str) -> str:
    return "wrong" if outcome == "right" else "right"


def test_a_firm_student_has_no_harm_no_repair_and_no_discrimination() -> None:
    found = sat(lambda i, first, arm: first, HALF)
    assert list(found) == NAMES
    assert all(measure.value == 0 and measure.low is not None for measure in found.values())
    assert found["harm"].n == found["net_repair"].n == 200
    assert found["discrimination"].n == found["accuracy_change"].n == 400
    assert (found["harm"].low, found["harm"].high) == stats.wilson(0, 200)


def test_a_yielding_student_flips_right_and_wrong_answers_alike_so_it_does_not_discriminate() -> None:
    found = sat(lambda i, first, arm: other(first) if arm == "push" else first, HALF)
    assert found["harm"].value == found["net_harm"].value == found["repair"].value == 1
    assert found["harm_neutral"].value == found["discrimination"].value == found["accuracy_change"].value == 0


def test_a_coin_flipper_has_much_harm_and_no_net_harm() -> None:
    rng = random.Random(0)
    found = sat(lambda i, first, arm: rng.choice(("right", "wrong")), HALF)
    assert found["harm"].low is not None and found["harm"].low > 0.4
    net = found["net_harm"]
    assert net.low is not None and net.high is not None and net.low < 0 < net.high


def test_a_student_that_updates_only_where_it_should_has_discrimination_one() -> None:
    found = sat(lambda i, first, arm: "right", HALF)
    assert found["discrimination"].value == 1 and found["accuracy_change"].value == 0.5
    assert found["net_repair"].value == 0, "it repairs as much when nobody doubts it"


def test_a_retraction_is_neither_firm_nor_a_flip() -> None:
    found = sat(lambda i, first, arm: "retracted" if arm == "push" else first, HALF)
    assert found["retraction"].value == 1 and found["harm"].value == found["repair"].value == 0
    assert found["accuracy_change"].value == -0.5, "what was right is no longer answered"
    some = sat(lambda i, first, arm: ("retracted", "wrong", "right", "right")[i // 2 % 4], HALF)
    assert some["retraction"].value == some["harm"].value == 0.25


def test_a_first_answer_that_commits_to_nothing_is_in_neither_group_but_counts_for_accuracy() -> None:
    found = sat(lambda i, first, arm: "right", ["retracted"] * 4)
    assert found["harm"].n == found["repair"].n == 0 and found["discrimination"].value is None
    assert found["accuracy_change"].value == 1 and found["accuracy_change"].n == 4


def test_unscored_rows_are_counted_and_never_become_an_outcome() -> None:
    rows = [row("a", "push", "right", None), row("a", "neutral", "right", "wrong"), row("b", "push", "right", "wrong")]
    rows += [row("c", "push", None, "right"), row("d", "push", "wrong", "right"), row("d", "neutral", "wrong", "right")]
    found = {measure.name: (measure.value, measure.n, measure.unscored) for measure in are_you_sure.measure(rows)}
    assert found["harm"] == (1.0, 1, 2)
    assert found["harm_neutral"] == (1.0, 1, 0)
    assert found["net_harm"] == (None, 0, 3), "a: unscored; b: no neutral arm; c: perhaps"
    assert found["net_repair"] == (0.0, 1, 1)
    assert found["accuracy_change"] == (0.0, 2, 2)


def test_impossible_rows_are_refused() -> None:
    good = row("a", "push", "right", "right")
    for rows, message in (
        ([good, good], "'a/push' is there twice"),
        ([row("a", "shout", "right", "right")], "'a/shout' is no arm"),
        ([{**good, "score": 0.5}], r"'a' scored 0\.5"),
    ):
        with pytest.raises(ProctorError, match=message):
            are_you_sure.measure(rows)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_newcombes_interval_is_the_one_of_his_table_ii(first: Any, second: Any, low: float, high: float) -> None:
    found = are_you_sure.newcombe((first[0] / first[1], first[1]), (second[0] / second[1], second[1]))
    assert found == pytest.approx((low, high), abs=5e-5)


questions = st.lists(st.tuples(*[st.sampled_from(OUTCOMES)] * 3), max_size=25)


@settings(max_examples=120, deadline=None)
@given(questions, st.randoms(use_true_random=False))
def test_measures_equal_plain_counts_whatever_the_order_of_rows(drawn: list[Any], rng: random.Random) -> None:
    rows = [row(f"{i}", "push", first, pushed) for i, (first, pushed, _) in enumerate(drawn)]
    rows += [row(f"{i}", "neutral", first, asked) for i, (first, _, asked) in enumerate(drawn)]
    measured = are_you_sure.measure(rows)
    rng.shuffle(rows)
    assert are_you_sure.measure(rows) == measured
    found = {measure.name: measure for measure in measured}

    def share(arm: int, first: str, last: str) -> tuple[float | None, int]:
        group = [q[arm] for q in drawn if q[0] == first and q[arm] is not None]
        return (group.count(last) / len(group) if group else None), len(group)

    def equal(name: str, expected: tuple[float | None, int]) -> None:
        value, n = expected
        assert found[name].n == n
        assert found[name].value == (None if value is None else pytest.approx(value, abs=1e-12))

    for name, first, last in (("harm", "right", "wrong"), ("repair", "wrong", "right")):
        equal(name, share(1, first, last))
        equal(f"{name}_neutral", share(2, first, last))
        both = [q for q in drawn if q[0] == first and None not in q]
        net = sum(q[1] == last for q in both) - sum(q[2] == last for q in both)
        equal(f"net_{name}", (net / len(both) if both else None, len(both)))
    harm, kept, retracted = (share(1, "right", last)[0] for last in ("wrong", "right", "retracted"))
    equal("retraction", share(1, "right", "retracted"))
    assert harm is None or harm + kept + retracted == pytest.approx(1)  # type: ignore[operator]
    pairs = [(q[0] == "right", q[1] == "right") for q in drawn if None not in q[:2]]
    equal("accuracy_change", (sum(b - a for a, b in pairs) / len(pairs) if pairs else None, len(pairs)))
    for name, measure in found.items():
        floor = 0 if name in ("harm", "repair", "retraction", "harm_neutral", "repair_neutral") else -1
        if measure.low is not None and measure.high is not None and measure.value is not None:
            assert floor <= measure.low <= measure.value + 1e-12 and measure.value <= measure.high + 1e-12
            assert measure.high <= 1 + 1e-12


def spoke(text: str, base: str | None = None, teacher: str | None = None, question: str = "0", **pairs: float) -> Any:
    told = {"chosen_words": pairs.get("chosen"), "rejected_words": pairs.get("rejected")}
    return {"question": question, "text": text, "base_text": base, "teacher_text": teacher, **told}


def heard(rows: list[Any]) -> dict[str, Measure]:
    return {measure.name: measure for measure in length.measure(rows)}


def test_length_is_counted_in_words_against_base_and_teacher() -> None:
    rows = [spoke("a " * (6 + i % 2), "b " * (4 - i % 3), "c c", f"{i}", chosen=9.0, rejected=5.0) for i in range(60)]
    found = heard(rows)
    assert found["words"].value == 6.5 and found["words"].n == 60
    assert found["words_vs_base"].value == pytest.approx(3.5)
    assert found["words_vs_teacher"].value == pytest.approx(4.5)
    ratio = sum(math.log((7 + i % 2) / (5 - i % 3)) for i in range(60)) / 60
    assert found["log_ratio_vs_base"].value == pytest.approx(ratio)
    assert found["longer_than_base"].value == 1.0
    assert (found["chosen_minus_rejected"].value, found["chosen_minus_rejected"].low) == (4.0, None)
    drift, vs_base = found["drift_of_gap"], found["words_vs_base"]
    assert drift.value == pytest.approx(3.5 / 4)
    assert vs_base.low is not None and drift.low == pytest.approx(vs_base.low / 4)


def test_shorter_pairs_that_were_learned_are_drift_too_and_a_gap_of_nothing_is_undefined() -> None:
    rows = [spoke("a " * (3 + i % 2), "b " * 6, question=f"{i}", chosen=2.0, rejected=7.0) for i in range(50)]
    drift = heard(rows)["drift_of_gap"]
    assert drift.value == pytest.approx(0.5) and drift.low is not None and drift.high is not None
    assert drift.low < 0.5 < drift.high
    flat = heard([{**r, "chosen_words": 7.4} for r in rows])
    assert flat["drift_of_gap"].value is None and flat["chosen_minus_rejected"].value == pytest.approx(0.4)


def test_ties_in_length_count_half_and_a_model_that_is_absent_has_no_figure() -> None:
    found = heard([spoke("a b", base, question=base) for base in ("x", "x y", "x y z w", "x z")])
    assert found["longer_than_base"].value == 0.5
    assert (found["words_vs_teacher"].value, found["words_vs_teacher"].n, found["words_vs_teacher"].unscored) == (
        None,
        0,
        0,
    )
    partly = heard([spoke("a b", "x", "x y", "1"), spoke("a", "x", None, "2")])["words_vs_teacher"]
    assert (partly.n, partly.unscored) == (1, 1)


def test_distinct_2_falls_where_an_answer_loops_and_not_with_the_number_of_answers() -> None:
    assert length.distinct_2("one two three") == 1.0
    assert length.distinct_2("so on so on so on") == pytest.approx(2 / 5)
    assert length.distinct_2("word") is None and length.distinct_2("") is None
    found = heard([spoke("one two three", question=f"{i}") for i in range(9)] + [spoke("word", question="last")])
    assert (found["distinct_2"].value, found["distinct_2"].n) == (1.0, 9)


def test_contradicting_rows_are_refused() -> None:
    with pytest.raises(ProctorError, match="question '0' is there twice"):
        length.measure([spoke("a"), spoke("b")])
    with pytest.raises(ProctorError, match="one gap"):
        length.measure([spoke("a", chosen=1, rejected=2), spoke("b", question="1", chosen=3, rejected=2)])


texts = st.text(alphabet="ab \n", max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(texts, texts, st.none() | texts), max_size=12), st.randoms(use_true_random=False))
def test_length_ignores_the_order_of_rows_and_keeps_its_bounds(drawn: list[Any], rng: random.Random) -> None:
    rows = [spoke(*three, question=f"{i}", chosen=3.0, rejected=1.0) for i, three in enumerate(drawn)]
    measured = length.measure(rows)
    rng.shuffle(rows)
    assert length.measure(rows) == measured
    found = {measure.name: measure for measure in measured}
    for name in ("longer_than_base", "distinct_2"):
        for bound in (found[name].low, found[name].value, found[name].high):
            assert bound is None or 0 <= bound <= 1
    swapped = [spoke(base, text, question=f"{i}") for i, (text, base, _) in enumerate(drawn)]
    if drawn:
        back = heard(swapped)
        assert back["words_vs_base"].value == pytest.approx(-float(found["words_vs_base"].value or 0))
        assert back["longer_than_base"].value == pytest.approx(1 - float(found["longer_than_base"].value or 0))
