"""The number rules against the tables of corner cases that were measured with the peers' own code."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.metrics.numbers import (
    flexible,
    flexible_extract,
    gold_number,
    has_format,
    numeric,
    numeric_extract,
    official,
    official_extract,
    strict,
    strict_extract,
    strip_reasoning,
)

# facts/metrics_and_probes.md, section b, "Corner cases": completion, gold, official, strict, flexible as measured
# there with the code of openai/grade-school-math and lm-evaluation-harness; the last column is our own rule.
METRICS_TABLE = [
    ("#### 18.", "18", 0, 1, 1, 1),
    ("#### $18", "18", 0, 0, 1, 1),
    ("#### 18.00", "18", 0, 0, 0, 1),
    ("#### 1,000", "1000", 1, 1, 1, 1),
    ("The answer is $1,000.", "1000", 0, 0, 1, 1),
    ("####18", "18", 0, 0, 1, 1),
    ("#### **18**", "18", 0, 0, 1, 1),
    (r"\boxed{18}", "18", 0, 0, 1, 1),
    ("The answer is 18.", "18", 0, 0, 1, 1),
    ("#### - 10", "-10", 0, 0, 0, 1),
    ("#### \u221210", "-10", 0, 0, 0, 1),
    ("#### 18 dollars", "18", 1, 1, 1, 1),
    ("#### 50%", "50", 1, 1, 1, 1),
    ("#### 1/2", "0.5", 0, 0, 0, 0),
    ("#### 18\n#### 20", "18", 1, 1, 0, 0),
    ("#### 3 hours 20", "3", 1, 1, 0, 0),
    ("#### 18\nQuestion: Tom has 7", "18", 1, 1, 0, 1),
    ("16-3=13", "13", 0, 0, 1, 1),
]

# facts/harnesses.md, section 1.2: the same for lm-evaluation-harness 0.4.13, gold 18 throughout.
HARNESS_TABLE = [
    ("So $18.\n#### 18", 1, 1, 1),
    ("#### $18", 0, 1, 1),
    ("#### 18.00", 0, 0, 1),
    ("The answer is 18...", 0, 0, 1),
    ("it is 18, I think... etc.", 0, 0, 1),
    ("#### 18\n#### 20", 1, 0, 0),
    ("####18", 0, 1, 1),
    (r"\boxed{18}", 0, 1, 1),
    ("**18**", 0, 1, 1),
    ("18 dollars (5-day plan)", 0, 0, 0),
    ("the range is 10-18", 0, 0, 1),
]


@pytest.mark.parametrize(("completion", "gold", "by_official", "by_strict", "by_flexible", "by_numeric"), METRICS_TABLE)
def test_the_measured_corner_cases_of_the_metrics_facts(
    completion: str, gold: str, by_official: int, by_strict: int, by_flexible: int, by_numeric: int
) -> None:
    answer = f"Because 1 + 1 = <<1+1=2>>2.\n#### {gold}"
    assert official(completion, answer) == by_official
    assert strict(completion, answer) == by_strict
    assert flexible(completion, answer) == by_flexible
    assert numeric(completion, answer) == by_numeric


@pytest.mark.parametrize(("completion", "by_strict", "by_flexible", "by_numeric"), HARNESS_TABLE)
def test_the_measured_corner_cases_of_the_harness_facts(
    completion: str, by_strict: int, by_flexible: int, by_numeric: int
) -> None:
    assert strict(completion, "#### 18") == by_strict
    assert flexible(completion, "#### 18") == by_flexible
    assert numeric(completion, "#### 18") == by_numeric


def test_the_extractors_show_what_each_rule_saw() -> None:
    text = "It costs $1,000 for 2.\n#### 1,000."
    assert official_extract(text) == "1000."
    assert strict_extract(text) == "1,000."
    assert flexible_extract(text) == "1,000."
    assert numeric_extract(text) == Decimal(1000)


@pytest.mark.parametrize("extract", [official_extract, strict_extract, flexible_extract, numeric_extract])
@pytest.mark.parametrize("text", ["", "no number", "####", "#### ", "eighteen", "١٨", "½", "\x00\ud800"])
def test_nothing_to_extract_gives_none(extract: object, text: str) -> None:
    assert extract(text) is None  # type: ignore[operator]


def test_official_takes_the_first_mark_and_numeric_the_last() -> None:
    text = "#### 18\nWait, I forgot the muffins.\n#### 20"
    assert official_extract(text) == "18"
    assert numeric_extract(text) == 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**Final answer:** $18", "18"),
        ("Final Answer: The final answer is $18$. I hope it is correct.", "18"),
        ("The answer is:\n\n$$18$$", "18"),
        ("The answer is that she makes $18 a day.", "18"),
        ("#### x = 18", "18"),
        ("#### 9 * 2 = 18", "18"),
        ("The answer is 3 + 15 = 18.", "18"),
        ("#### 18 (20 - 2)", "18"),
        ("#### 18 because 9*2=18", "18"),
        ("#### 18 per 2 days", "18"),
        (r"\boxed{\$1{,}000}", "1000"),
        (r"$\boxed{18\text{ dollars}}$, since 3 eggs are eaten", "18"),
        (r"\boxed{\text{18}}", "18"),
        (r"\boxed{-10}", "-10"),
        ("#### .5", "0.5"),
        ("1,234,567.50 dollars in all", "1234567.5"),
        ("#### 18\nThe answer is correct.", "18"),
        ("#### Step 2: add them up\nIn all 18.", "18"),
        ("#### Answer: eighteen, that is 9 + 9", None),
        ("So 18..20", "20"),
    ],
)
def test_numeric_reads_the_forms_that_chat_models_write(text: str, expected: str | None) -> None:
    assert numeric_extract(text) == (None if expected is None else Decimal(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#### -$10", -10),
        ("#### $-10", -10),
        ("#### \u2212$10", -10),
        ("The profit is - 10", -10),
        ("x = -10", -10),
        ("- 10", -10),
        ("- 3 eggs\n- 18 eggs", 18),
        ("Final answer:\n- 18", 18),
        ("the range is 10-18", 18),
        ("on the COVID-19", 19),
        ("in total--18", 18),
    ],
)
def test_numeric_tells_a_sign_from_a_hyphen_and_a_bullet(text: str, expected: int) -> None:
    assert numeric_extract(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "#### 1/2",
        "She eats 1/2",
        "#### 1 1/2",
        "#### 2½",
        "#### 18²",
        "#### 1８",
        r"\boxed{\frac{1}{2}}",
        r"\boxed{\frac12}",
        r"\boxed{\sqrt{16}}",
        r"\boxed{2^{10}}",
        "#### 18 and a half",
        "So 2 thirds",
        "It takes 3 hours and 20 minutes.",
        "It takes 3 hours 20",
        "#### 3h20m",
        r"\boxed{3\text{ hours }20\text{ minutes}}",
        "#### 5'3",
        "#### 3 boxes 2",
        "It leaves at 3:20",
        "#### 1e5",
        "#### 3**2",
        "#### 18, 20",
        "#### 18 or 20",
        "#### 18-20",
        "#### 20 - 2",
        "#### 10,00",
        "0,5",
        "The answer is 1.5.2",
    ],
)
def test_numeric_never_takes_half_of_a_quantity_for_the_whole(text: str) -> None:
    assert numeric_extract(text) is None


def test_numeric_does_not_mistake_neighbouring_numbers_for_mixed_units() -> None:
    assert numeric_extract("After 5 days 18 cookies are left") == 18
    assert numeric_extract("3 plus 15 equals 18") == 18


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>#### 5</think>#### 6", "#### 6"),
        ("#### 6 <THINK>maybe 5</THINK>", "#### 6"),
        ("maybe 5\n</think>\n6", "6"),
        ("<think>maybe 5, no", ""),
        ("<think>a<think>b</think>c</think>6", "6"),
        ("<reasoning>5</reasoning><answer>6</answer>", "<answer>6</answer>"),
        ("[THINK]5[/THINK]6", "6"),
        ("<|channel|>analysis<|message|>5<|end|><|start|>assistant<|channel|>final<|message|>6", "6"),
        ("no tags: 6 < 7", "no tags: 6 < 7"),
    ],
)
def test_reasoning_is_stripped_even_when_a_tag_is_missing(text: str, expected: str) -> None:
    assert strip_reasoning(text).strip() == expected


def test_numeric_reads_neither_reasoning_nor_what_follows_a_stop_string() -> None:
    assert numeric_extract("<think>The answer is 5</think>So 6.<|im_end|>\n#### 7") == 6
    assert numeric_extract("<think>The answer is 5. Question: is it?</think>So 6.") == 6
    assert numeric_extract("6</s></s>7") == 6
    assert numeric_extract("<think>The answer is 5") is None


def test_format_asks_for_the_mark_and_not_for_the_right_number() -> None:
    assert has_format("so\n#### 7") == 1.0
    assert has_format("#### -1,000.") == 1.0
    assert has_format("#### .") == 0.0
    assert has_format("####7") == 0.0
    assert has_format("The answer is 7") == 0.0


def test_gold_answers_without_a_number_are_errors_not_wrong_answers() -> None:
    assert gold_number("x\n#### -1,000") == -1000
    for answer in ("18", "#### 1/2", "#### ", ""):
        with pytest.raises(ValueError, match="####"):
            gold_number(answer)
    with pytest.raises(ValueError, match="####"):
        official("#### 18", "18")


PIECES = [
    *(
        "####",
        "#### ",
        "\\boxed{",
        "answer is ",
        "Final answer:",
        "<think>",
        "</think>",
        "Question:",
        "</s>",
        "18",
        "1,0",
    ),
    *(
        ",",
        ".",
        "-",
        "- ",
        "$",
        "%",
        "**",
        "/",
        "=",
        " ",
        "\n",
        "½",
        "١",
        "８",
        "hours ",
        "and ",
        "\\frac{",
        "}",
        "^",
        "e",
    ),
    "\u2212",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30).map("".join))
@example("#### " + "9" * 5000)
def test_no_text_crashes_a_rule_and_every_score_is_zero_or_one(text: str) -> None:
    for rule in (official, strict, flexible, numeric):
        assert rule(text, "#### 18") in (0.0, 1.0)
    assert has_format(text) in (0.0, 1.0)


@given(st.integers(-(10**9), 10**9), st.sampled_from(["#### {}", "####{}", "The answer is {}.", r"\boxed{{{}}}", "{}"]))
def test_numeric_recovers_every_integer_from_every_form(number: int, form: str) -> None:
    for text in (form.format(number), form.format(f"{number:,}"), form.format(f"{number}.00")):
        assert numeric(text, f"#### {number}") == 1.0
        assert numeric(text, f"#### {number + 1}") == 0.0


HOSTILE = [
    *("#", "#### ", "\\boxed{", "answer ", "answer is ", "final answer ", " ", "\n", "-", "- ", "1", "1,", "1 ", "1/"),
    *("1.", ",", "<think>", "</think>", "<", "1 hours ", "1 and ", "\\frac{", "\\frac{1}{", "\\text{", "1=", "#### 1 "),
    *("1^{", "#### \n- "),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_text_of_100_kilobytes_costs_no_more_than_a_long_honest_one(piece: str) -> None:
    text = (piece * (100_000 // len(piece) + 1))[:100_000] + "x"
    started = time.process_time()
    for rule in (official, strict, flexible, numeric):
        rule(text, "#### 18")
    has_format(text)
    strict("#### 18", text + "#### 18")
    # Linear rules take about 0.1 s; a quadratic one takes minutes.
    assert time.process_time() - started < 2.0
