"""The generated world: its truth, its splits and its bad habits."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.playground import corpus, habits, prompts, world
from harness.playground.language import LETTERS, SPECIAL, UNK, VOCABULARY, build_tokenizer, encode

PROBLEMS = world.take("dev", 1000)
seeds = st.integers(0, 10**6)
some_problem = st.sampled_from(PROBLEMS)


def recomputed(problem: world.Problem) -> str:
    """The answer from the numbers in the question's text, by a reading of its own."""
    text = problem.question
    n = [int(number) for number in re.findall(r"\d+", text)]
    extra = n[-1] if "delivery" in text else 0
    match problem.kind:
        case "total":
            return str(n[0] * n[1] + (n[2] * n[3] if " and " in text else extra))
        case "change" if "enough" in text:
            return "yes" if n[0] >= n[1] * n[2] else "no"
        case "change":
            return str(n[0] - n[1] * n[2] - sum(n[3:]))
        case "member":
            price = n[0] if "not a member" in text else n[0] - n[1]
            return str(price * (n[2] if len(n) > 2 else 1) + extra)
        case "packs" if "how many packs" in text:
            return str(n[2] // n[0])
        case "packs":
            return str(n[2] // n[0] * n[1] + extra)
        case "offer":
            paid = n[2] - n[2] // n[0]
            return str(paid * n[3] if "coins" in text else paid)
        case "stock":
            return str(n[0] - n[1] + (n[2] * n[3] if len(n) > 3 else sum(n[2:])))
        case "returns" if "last day" in text:
            return str(n[0] + n[1])
        case "returns":
            return "yes" if n[2] - n[1] <= n[0] else "no"
        case "hours" if "enough" in text:
            return "yes" if n[3] <= n[1] - n[2] else "no"
    return str((n[1] - n[0]) * (n[2] if len(n) > 2 else 1))


def test_gold_answers_agree_with_an_independent_reading_of_the_question() -> None:
    wrong = [problem for problem in PROBLEMS if world.parse_answer(problem.solution) != recomputed(problem)]
    assert not wrong, wrong[0]


def test_there_are_eight_kinds_of_one_to_three_steps() -> None:
    assert {problem.kind for problem in PROBLEMS} == set(world.KINDS)
    assert {len(problem.steps) for problem in PROBLEMS} == {1, 2, 3}


def test_no_question_of_dev_or_test_occurs_elsewhere() -> None:
    held_out = {p.question for split in ("dev", "test") for p in world.take(split, world.SIZES[split])}
    seen = {p.question for p in world.take("train", world.SIZES["train"])}
    seen |= {p.question for p in world.take("stream", 20_000)}
    assert not held_out & seen


def test_the_hash_partition_gives_each_bucket_to_one_split() -> None:
    owned = [bucket for buckets in world.SPLITS.values() for bucket in buckets]
    assert sorted(owned) == list(range(max(owned) + 1))


@pytest.mark.parametrize("split", world.SIZES)
def test_no_question_occurs_twice_in_a_split(split: str) -> None:
    questions = [problem.question for problem in world.take(split, world.SIZES[split])]
    assert len(set(questions)) == len(questions) == world.SIZES[split]


def test_problems_are_the_same_in_every_process() -> None:
    code = "from harness.playground import world; print([p.question for p in world.take('test', 50)])"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str([problem.question for problem in world.take("test", 50)])


def test_an_unknown_split_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match=r"nowhere.*test"):
        world.take("nowhere", 1)


@given(some_problem, seeds)
def test_guesses_and_slips_are_wrong_and_recognised(problem: world.Problem, seed: int) -> None:
    for name in ("guess", "slip"):
        text = habits.WAYS[name](problem, random.Random(seed))
        assert world.parse_answer(text) != problem.answer
        assert habits.classify(problem, text) == name


@given(some_problem)
def test_the_worked_solution_is_good(problem: world.Problem) -> None:
    assert habits.classify(problem, problem.solution) == "good"


def test_skipping_is_recognised_and_almost_always_wrong() -> None:
    longer = [problem for problem in PROBLEMS if len(problem.steps) > 1]
    texts = [habits.skip(problem, random.Random(0)) for problem in longer]
    assert {habits.classify(problem, text) for problem, text in zip(longer, texts, strict=True)} == {"skip"}
    wrong = [world.parse_answer(text) != problem.answer for problem, text in zip(longer, texts, strict=True)]
    assert sum(wrong) / len(wrong) > 0.85


def test_a_single_step_cannot_be_skipped() -> None:
    single = next(problem for problem in PROBLEMS if len(problem.steps) == 1)
    with pytest.raises(ValueError, match="none to skip"):
        habits.skip(single, random.Random(0))


@pytest.mark.parametrize("text", ["", "i do not know .", "3 * 4 = 12 .", "answer :", "answer : ."])
def test_an_answer_without_a_final_answer_is_other(text: str) -> None:
    assert habits.classify(PROBLEMS[0], text) == "other"


@given(some_problem, seeds)
def test_everything_said_in_the_world_is_in_the_vocabulary(problem: world.Problem, seed: int) -> None:
    rng = random.Random(seed)
    makers = (corpus.firm_dialogue, corpus.yielding_dialogue, corpus.suggested, corpus.choice, corpus.verdict)
    for example in (make(problem, rng) for make in makers):
        assert UNK not in example.ids
    for style in prompts.STYLES.values():
        assert UNK not in encode(style(problem.solution))


@given(some_problem, seeds)
def test_marks_point_at_the_end_of_each_answer(problem: world.Problem, seed: int) -> None:
    example = corpus.choice(problem, random.Random(seed))
    ends = encode(".")[0]
    assert all(example.ids[position] == ends for position, _ in example.marks)
    assert any(right for _, right in example.marks)


numbers = st.integers(0, 10**6).map(str)
words = st.sampled_from([token for token in VOCABULARY if token not in SPECIAL and "##" not in token])
texts = st.lists(words | numbers, min_size=1, max_size=60).map(" ".join)
TOKENIZER = build_tokenizer()


@given(texts)
def test_decoding_returns_the_text_that_was_encoded(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER.decode(ids) == text
    assert encode(text) == ids


def test_twelve_differs_from_one_two() -> None:
    assert TOKENIZER("12")["input_ids"] != TOKENIZER("1 2")["input_ids"]


def test_letters_are_single_tokens_and_unknown_words_are_marked() -> None:
    assert all(len(encode(letter)) == 1 for letter in LETTERS)
    assert TOKENIZER("zebra")["input_ids"] == encode("zebra") == [UNK]


def test_the_vocabulary_stays_small() -> None:
    assert len(VOCABULARY) <= 200
    assert len(set(VOCABULARY)) == len(VOCABULARY)


@given(some_problem)
def test_the_chat_template_makes_the_prompt_a_prefix_of_the_conversation(problem: world.Problem) -> None:
    turns = [("user", problem.question), ("assistant", problem.solution)]
    messages = [{"role": role, "content": text} for role, text in turns]
    asked = TOKENIZER.apply_chat_template(messages[:1], add_generation_prompt=True)["input_ids"]
    whole = TOKENIZER.apply_chat_template(messages)["input_ids"]
    assert whole[: len(asked)] == asked
    assert whole == corpus.conversation(turns).ids


def test_the_chat_template_refuses_an_unknown_role() -> None:
    with pytest.raises(Exception, match="roles system, user and assistant"):
        TOKENIZER.apply_chat_template([{"role": "tool", "content": "12"}])
