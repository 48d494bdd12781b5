"""The GSM8K suite on small made-up files: its items, and what it refuses."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from harness.data import find
from harness.outputs import prompt_keys
from harness.records import Message, ProctorError
from suites import gsm8k

ROWS = [
    {"question": "Ann has 2 hens.\n\nHow many legs do they have?", "answer": "2 * 2 = <<2*2=4>>4\n#### 4"},
    {"question": "  How many seconds are in 20 minutes? ", "answer": "20 * 60 = <<20*60=1200>>1,200\n#### 1,200"},
    {"question": "Bo owes $10. What is his balance?", "answer": "0 - 10 = -10\n#### -10"},
]
TRAIN = [
    {"question": "What is 1 + 1?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"},
    {"question": "What is 3 + 4?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"},
]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture(autouse=True)
def no_shared_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROCTOR_DATA", raising=False)


@pytest.fixture
def test_file(tmp_path: Path) -> Path:
    return write(tmp_path / "test.jsonl", ROWS)


def test_items_are_numbered_by_their_position_and_keep_the_full_answer(test_file: Path) -> None:
    suite = gsm8k.suite(path=str(test_file))
    assert [item.id for item in suite.items] == ["0", "1", "2"]
    assert [item.target for item in suite.items] == [row["answer"] for row in ROWS]
    assert suite.version == gsm8k.VERSION
    assert suite.primary == "numeric"
    assert list(suite.metrics) == ["official", "strict", "flexible", "numeric", "format", "parsed"]
    assert (suite.sampling.temperature, suite.sampling.max_new_tokens, suite.license) == (0.0, 512, "MIT")


def test_the_question_comes_first_in_the_message_and_can_be_told_from_the_instruction(test_file: Path) -> None:
    for item, row in zip(gsm8k.suite(path=str(test_file)).items, ROWS, strict=True):
        assert item.messages == (Message("user", f"{row['question']}\n\n{gsm8k.INSTRUCTION}"),)
        assert row["question"].strip() in prompt_keys(item)


def test_metrics_score_an_answer_against_the_items_target(test_file: Path) -> None:
    suite = gsm8k.suite(path=str(test_file))
    scores = {name: metric("It is $1,200.", suite.items[1]) for name, metric in suite.metrics.items()}
    assert scores == {"official": 0.0, "strict": 0.0, "flexible": 1.0, "numeric": 1.0, "format": 0.0, "parsed": 1.0}


def test_a_gzipped_file_and_its_folder_give_the_same_items(tmp_path: Path, test_file: Path) -> None:
    zipped = write(tmp_path / "zipped" / "test.jsonl.gz", ROWS)
    expected = gsm8k.suite(path=str(test_file)).items
    assert gsm8k.suite(path=str(zipped)).items == expected
    assert gsm8k.suite(path=str(zipped.parent)).items == expected


def test_the_data_option_comes_before_the_path(tmp_path: Path, test_file: Path) -> None:
    other = write(tmp_path / "other.jsonl", ROWS[:1])
    assert len(gsm8k.suite(path=str(test_file), data=str(other)).items) == 1


def test_shots_are_the_first_train_rows_as_finished_turns(tmp_path: Path, test_file: Path) -> None:
    write(tmp_path / "train.jsonl.gz", TRAIN)
    for item in gsm8k.suite(path=str(test_file), shots=1).items:
        asked, answered, question = item.messages
        assert asked.content == f"What is 1 + 1?\n\n{gsm8k.INSTRUCTION}"
        assert answered == Message("assistant", "1 + 1 = 2\n#### 2")
        assert question == gsm8k.suite(path=str(test_file)).items[int(item.id)].messages[0]


def test_shots_without_enough_or_without_foreign_examples_are_refused(tmp_path: Path, test_file: Path) -> None:
    with pytest.raises(ProctorError, match=r"tried: .*PROCTOR_DATA"):
        gsm8k.suite(path=str(test_file), shots=1)
    train = write(tmp_path / "train.jsonl", TRAIN)
    with pytest.raises(ProctorError, match=r"train\.jsonl: holds 2 examples, but shots is 3"):
        gsm8k.suite(path=str(test_file), shots=3)
    with pytest.raises(ProctorError, match="shots is -1"):
        gsm8k.suite(path=str(test_file), shots=-1)
    with pytest.raises(ProctorError, match="own questions"):
        gsm8k.suite(path=str(train), split="train", shots=1)
    with pytest.raises(ProctorError, match=r"'What is 1 \+ 1\?' is also a question of"):
        gsm8k.suite(path=str(write(tmp_path / "leaking.jsonl", [*ROWS, TRAIN[0]])), shots=1)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not valid JSON"),
        ("[1, 2]", "expected a JSON object"),
        ('{"question": "q?"}', "column 'answer'"),
        ('{"prompt": "q?", "answer": "#### 1"}', "column 'question'; the row has columns prompt, answer"),
        ('{"question": "q?", "answer": 1}', "column 'answer'"),
        ('{"question": " ", "answer": "#### 1"}', "column 'question'"),
        ('{"question": "q?", "answer": "1"}', "#### N"),
        ('{"question": "q?", "answer": "#### 1/2"}', "#### N"),
        (json.dumps(ROWS[0]), "the same question as in line 1"),
    ],
)
def test_rows_that_are_not_gsm8k_are_refused_with_file_and_line(test_file: Path, line: str, complaint: str) -> None:
    test_file.write_text(test_file.read_text() + "\n" + line + "\n")
    with pytest.raises(ProctorError) as error:
        gsm8k.suite(path=str(test_file))
    assert str(error.value).startswith(f"{test_file}:5: ")
    assert complaint in str(error.value)


def test_an_empty_file_and_an_unknown_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProctorError, match="holds no questions"):
        gsm8k.suite(path=str(write(tmp_path / "test.jsonl", [])))
    with pytest.raises(ProctorError, match="no split 'dev'; it has test, train"):
        gsm8k.suite(split="dev")


def test_data_is_found_by_path_then_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = write(tmp_path / "data" / "gsm8k" / "test.jsonl", ROWS)
    own = write(tmp_path / "own.jsonl", ROWS)
    monkeypatch.setenv("PROCTOR_DATA", str(tmp_path / "data"))
    assert find("gsm8k", "test.jsonl") == shared
    assert find("gsm8k", ("nothing.jsonl", "test.jsonl")) == shared
    assert find("gsm8k", "test.jsonl", own) == own
    assert find("gsm8k", "test.jsonl", tmp_path / "data") == shared
    assert find("gsm8k", "other.jsonl", "test.jsonl") == shared


def test_a_given_path_is_never_replaced_by_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data" / "gsm8k" / "test.jsonl", ROWS)
    monkeypatch.setenv("PROCTOR_DATA", str(tmp_path / "data"))
    missing = tmp_path / "missing.jsonl"
    with pytest.raises(ProctorError, match=str(missing)):
        find("gsm8k", "test.jsonl", missing)


def test_missing_data_names_every_place_tried_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProctorError, match=r"PROCTOR_DATA is not set.*--data PATH.*gsm8k/test\.jsonl"):
        gsm8k.suite()
    monkeypatch.setenv("PROCTOR_DATA", str(tmp_path))
    with pytest.raises(ProctorError) as error:
        gsm8k.suite()
    for name in gsm8k.FILES["test"]:
        assert str(tmp_path / "gsm8k" / name) in str(error.value)
