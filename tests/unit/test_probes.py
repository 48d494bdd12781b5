"""The contract of a probe, the ids of its items, and what `are_you_sure` asks."""

from __future__ import annotations

import dataclasses
from collections import Counter
from types import ModuleType

import pytest

from harness import registry
from harness.playground import language, prompts
from harness.probing import ProbeContext, arm_id, arm_of
from harness.records import Item, Measure, Message, ProctorError, Sampling
from suites.probes import are_you_sure


def context(language: str = "english", n: int = 40) -> ProbeContext:
    asked = tuple(
        Item(
            f"test-{i:05d}",
            (Message("user", f"what is {i} + 1 ?"),),
            f"answer : {i + 1} .",
            cluster="sums",
            turns=("?",),
        )
        for i in range(n)
    )
    answers = {item.id: f"answer : {i + i % 2} ." for i, item in enumerate(asked)}
    scores = {item.id: float(i % 2) for i, item in enumerate(asked)}
    return ProbeContext(asked, answers, scores, dict.fromkeys(answers, True), language, seed=3)


@pytest.mark.parametrize("name", registry.names("probe"))
def test_a_probe_keeps_its_contract(name: str) -> None:
    file = registry.find("probe", name)
    literals = registry.literals(file)
    assert isinstance(literals["VERSION"], str)
    probe: ModuleType = registry.load(file)
    given_to_it = context()
    asked = probe.items(given_to_it)
    assert asked == probe.items(given_to_it), "same answers, same items"
    assert bool(asked) == literals.get("ASKS", True)
    assert len({item.id for item in asked}) == len(asked)
    for item in asked:
        assert arm_of(item.id) and item.messages[-1].role == "user"
        assert item.cluster in given_to_it.answers, "rows of one question stay together"
        assert probe.follow_up(item, []) is None or isinstance(probe.follow_up(item, [])[0], Message)
    nothing = probe.measure([])
    assert nothing and all(isinstance(measure, Measure) for measure in nothing)
    assert all((m.value, m.low, m.high, m.n, m.unscored) == (None, None, None, 0, 0) for m in nothing)
    assert len({m.name for m in nothing}) == len(nothing)
    assert probe.items(dataclasses.replace(given_to_it, items=(), answers={}, scores={}, parsed={})) == []


def test_an_arm_is_the_last_part_of_an_id_even_where_the_question_has_slashes() -> None:
    assert arm_of(arm_id("a/b/00012", "neutral")) == "neutral"
    for broken in ("test-00012", "/push", "test-00012/", ""):
        with pytest.raises(ProctorError, match="names no arm"):
            arm_of(broken)
    with pytest.raises(ValueError, match="without '/'"):
        arm_id("q", "a/b")


def test_both_arms_continue_the_students_own_answer_to_the_same_question() -> None:
    setting = context("playground")
    asked = are_you_sure.items(setting)
    assert [item.id for item in asked[:4]] == [f"test-0000{i}/{arm}" for i in (0, 1) for arm in ("push", "neutral")]
    for item in asked:
        question, arm = item.id.rsplit("/", 1)
        assert [m.role for m in item.messages] == ["user", "assistant", "user"]
        assert item.messages[1].content == setting.answers[question]
        assert item.messages[2].content == {"push": prompts.PUSH_BACK, "neutral": prompts.NEUTRAL}[arm]
        assert item.target and item.cluster == question and item.turns == ()
        assert language.encode(item.messages[2].content), "in the closed vocabulary"


def test_every_english_style_is_used_and_ends_in_the_words_of_the_neutral_arm() -> None:
    asked = are_you_sure.items(context(n=400))
    used = Counter(item.tags[1] for item in asked if arm_of(item.id) == "push")
    assert set(used) == {"simple", "authoritative", "emotional", "social"} and min(used.values()) > 60
    neutral = {item.messages[-1].content for item in asked if arm_of(item.id) == "neutral"}
    assert len(neutral) == 1
    assert all(item.messages[-1].content.endswith(next(iter(neutral))) for item in asked)


def test_a_style_depends_on_the_question_and_the_seed_alone() -> None:
    styles = [are_you_sure.style_of(f"{i}", "english", 0) for i in range(6)]
    assert styles == ["authoritative", "simple", "authoritative", "simple", "simple", "social"], "wordings decide rates"
    few, many = are_you_sure.items(context(n=5)), are_you_sure.items(context(n=9))
    assert few == many[:10]
    assert {are_you_sure.style_of("7", "english", seed) for seed in range(30)} == set(are_you_sure.STYLES["english"])
    with pytest.raises(ProctorError, match="no wordings in 'klingon'"):
        are_you_sure.items(context("klingon"))


def test_questions_without_an_answer_are_not_asked_and_an_empty_answer_is() -> None:
    setting = dataclasses.replace(context(n=3), answers={"test-00000": "", "test-00002": "no"})
    assert {item.cluster for item in are_you_sure.items(setting)} == {"test-00000", "test-00002"}


def test_items_are_greedy_and_refuse_scores_that_are_not_right_or_wrong() -> None:
    setting = context(n=1)
    hot = dataclasses.replace(setting.items[0], sampling=Sampling(temperature=1.0, n=4, max_new_tokens=7))
    assert [i.sampling for i in are_you_sure.items(dataclasses.replace(setting, items=(hot,)))] == [
        Sampling(max_new_tokens=7)
    ] * 2
    with pytest.raises(ProctorError, match=r"0 or 1, and 'test-00000' scored 0\.4"):
        are_you_sure.items(dataclasses.replace(setting, scores={"test-00000": 0.4}))
