"""Files of outputs: what matches, what counts as a wrong answer, and what is refused."""

from __future__ import annotations

import gzip
import json
import tempfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.outputs import Output, prompt_keys, read_outputs
from harness.records import Item, Message, ProctorError, Suite


def suite_of(*prompts: str) -> Suite:
    items = tuple(Item(str(n), (Message("user", prompt),), target="4") for n, prompt in enumerate(prompts))
    return Suite(
        version="1", items=items, metrics={"same": lambda text, item: float(text == item.target)}, primary="same"
    )


SUITE = suite_of("How many?\n\nSay a number.", "How much?\n\nSay a number.", "How far?\n\nSay a number.")


def write(path: Path, rows: Sequence[Any]) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "outputs.jsonl"


def full(**replaced: Any) -> list[dict[str, Any]]:
    """Three good rows, with columns of the last one replaced."""
    return [{"id": "0", "output": "4"}, {"id": "1", "output": "5"}, {"id": "2", "output": "6", **replaced}]


@pytest.mark.parametrize("name", ["outputs.jsonl", "outputs.jsonl.gz"])
def test_rows_are_matched_by_id_in_the_order_of_the_file(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, list(reversed(full())))
    assert list(read_outputs(SUITE, path)) == [Output("2", "6"), Output("1", "5"), Output("0", "4")]


def test_rows_are_matched_by_the_plain_question_or_by_the_whole_message(file: Path) -> None:
    rows = [
        {"prompt": "How many?", "output": "4"},
        {"prompt": "How much?\n\nSay a number.\n", "output": "5"},
        {"id": 2, "output": "6"},
    ]
    assert [output.item for output in read_outputs(SUITE, write(file, rows))] == ["0", "1", "2"]


def test_an_integer_id_names_the_item_of_that_position_and_blank_lines_are_skipped(file: Path) -> None:
    rows = [{"id": n, "output": "4"} for n in range(3)]
    assert len(list(read_outputs(SUITE, write(file, [*rows[:2], "", rows[2], "  "])))) == 3
    with pytest.raises(ProctorError, match=r"outputs\.jsonl:4: a second output for item '0'; the first is in line 1"):
        list(read_outputs(SUITE, write(file, [*rows, {"id": "0", "output": "4"}])))


@pytest.mark.parametrize("output", [None, 4, 4.5, True, ["4"], {"text": "4"}])
def test_an_output_that_is_no_text_is_an_answer_not_an_error(file: Path, output: object) -> None:
    *_, last = read_outputs(SUITE, write(file, full(output=output)))
    assert last == Output("2", None)


def test_an_empty_output_is_an_answer_and_a_score_column_is_kept(file: Path) -> None:
    *_, last = read_outputs(SUITE, write(file, full(output="", score=0.5, model="x")))
    assert last == Output("2", "", 0.5)


REFUSED: list[tuple[Any, str]] = [
    ("{", "not valid JSON"),
    ('{"id": "2", "output": "6"', "not valid JSON"),
    ("[" * 100_000, "not valid JSON"),
    ('{"id": ' + "1" * 5000 + ', "output": ""}', "not valid JSON"),
    ("[]", "expected a JSON object, found list"),
    ('"text"', "expected a JSON object, found str"),
    ({"id": "2"}, "no column 'output'; the row has columns 'id'"),
    ({"id": "2", "text": "6"}, "no column 'output'; the row has columns 'id', 'text'"),
    ({"output": "6"}, "a row needs a column 'id' or 'prompt'"),
    ({}, "it has columns none"),
    ({"id": "1", "output": "6"}, "a second output for item '1'; the first is in line 2"),
    ({"prompt": "How much?", "output": "6"}, "a second output for item '1'; the first is in line 2"),
    ({"id": "3", "output": "6"}, "unknown id '3'; the suite's ids run from '0' to '2'"),
    ({"id": -1, "output": "6"}, "unknown id '-1'"),
    ({"id": "02", "output": "6"}, "unknown id '02'"),
    ({"id": 2.0, "output": "6"}, "'id' must be a text or an integer, found 2.0"),
    ({"id": True, "output": "6"}, "'id' must be a text or an integer, found True"),
    ({"id": None, "output": "6"}, "'id' must be a text or an integer, found None"),
    ({"prompt": "How long?", "output": "6"}, "no item has the prompt 'How long?'"),
    ({"prompt": ["How far?"], "output": "6"}, "'prompt' must be a text, found list"),
    ({"id": "2", "prompt": "How many?", "output": "6"}, "id '2' and the prompt, which is that of item '0', disagree"),
    ({"id": "2", "output": "6", "score": "good"}, "'score' must be a finite number, found 'good'"),
    ({"id": "2", "output": "6", "score": float("nan")}, "'score' must be a finite number, found nan"),
]


@pytest.mark.parametrize(("row", "complaint"), REFUSED)
@pytest.mark.parametrize("partial", [False, True])
def test_a_bad_row_is_refused_with_file_and_line(file: Path, row: Any, complaint: str, partial: bool) -> None:
    write(file, [*full()[:2], row])
    with pytest.raises(ProctorError) as error:
        list(read_outputs(SUITE, file, partial=partial))
    assert str(error.value).startswith(f"{file}:3: ")
    assert complaint in str(error.value)


def test_bytes_that_are_not_text_and_a_cut_archive_are_refused_with_file_and_line(tmp_path: Path, file: Path) -> None:
    file.write_bytes(b'{"id": "0", "output": "4"}\n{"id": "1", "output": "\xff"}\n')
    with pytest.raises(ProctorError, match=r"outputs\.jsonl:2: not valid JSON"):
        list(read_outputs(SUITE, file))
    zipped = write(tmp_path / "outputs.jsonl.gz", full())
    zipped.write_bytes(zipped.read_bytes()[:-12])
    with pytest.raises(ProctorError, match=r"outputs\.jsonl\.gz:\d+: cannot be read"):
        list(read_outputs(SUITE, zipped))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.jsonl", tmp_path):
        with pytest.raises(ProctorError, match=str(path)):
            list(read_outputs(SUITE, path))


def test_missing_items_are_named_unless_partial(file: Path) -> None:
    write(file, full()[:1])
    with pytest.raises(
        ProctorError, match=r"outputs\.jsonl:1: .* 2 of 3 items without an output \(id 1, 2\).*--partial"
    ):
        list(read_outputs(SUITE, file))
    assert list(read_outputs(SUITE, file, partial=True)) == [Output("0", "4")]


def test_a_file_without_rows_is_refused_even_when_partial(file: Path) -> None:
    write(file, ["", ""])
    with pytest.raises(ProctorError, match=r"outputs\.jsonl:\d: holds no outputs"):
        list(read_outputs(SUITE, file, partial=True))


def test_a_prompt_that_two_items_share_names_neither(file: Path) -> None:
    twins = suite_of("How many?", "How many?")
    write(file, [{"prompt": "How many?", "output": "4"}])
    with pytest.raises(
        ProctorError, match=r"outputs\.jsonl:1: 2 items have the prompt 'How many\?'; name them by 'id'"
    ):
        list(read_outputs(twins, file))
    write(file, [{"id": n, "prompt": "How many?", "output": "4"} for n in range(2)])
    assert len(list(read_outputs(twins, file))) == 2


def test_a_prompt_in_someones_own_template_does_not_contradict_an_id(file: Path) -> None:
    write(file, full(prompt="<|user|>How far?<|assistant|>"))
    assert len(list(read_outputs(SUITE, file))) == 3


def test_only_the_last_user_message_names_an_item() -> None:
    shots = (Message("user", "1 + 1?\n\nAnswer."), Message("assistant", "2"), Message("user", "1 + 2?\n\nAnswer."))
    assert prompt_keys(Item("0", shots)) == ("1 + 2?\n\nAnswer.", "1 + 2?")
    assert prompt_keys(Item("0", (Message("system", "Be kind."),))) == ()


GOOD = st.builds(
    lambda n, text, by_id: {"id": str(n), "output": text} if by_id else {"prompt": f"How {n}?", "output": text},
    st.integers(0, 3),
    st.text(max_size=5),
    st.booleans(),
)
BAD = st.sampled_from(
    ["{", "null", "3", "[]", '{"id": "9", "output": ""}', '{"id": "0"}', '{"output": "x"}', '{"id": [], "output": ""}']
)


@given(st.lists(GOOD | BAD, max_size=8), st.booleans())
def test_no_mix_of_broken_unknown_or_repeated_rows_is_read_to_its_end(rows: list[Any], partial: bool) -> None:
    suite = suite_of(*(f"How {n}?" for n in range(4)))
    named = [row.get("id") or row["prompt"][4] for row in rows if isinstance(row, dict)]
    clean = len(named) == len(rows) == len(set(named)) and rows
    complete = clean and len(named) == 4
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "outputs.jsonl", rows)
        if complete or (clean and partial):
            assert [output.item for output in read_outputs(suite, path, partial=partial)] == named
            return
        with pytest.raises(ProctorError) as error:
            list(read_outputs(suite, path, partial=partial))
        assert str(error.value).startswith(f"{path}:")
        assert str(error.value).removeprefix(f"{path}:").partition(":")[0].isdigit()


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outputs.jsonl"
        path.write_bytes(content)
        with pytest.raises(ProctorError):
            list(read_outputs(SUITE, path, partial=True))


def test_a_big_file_is_never_held_in_memory(file: Path) -> None:
    n_items, size = 2000, 10_000
    suite = suite_of(*(f"How {n}?" for n in range(n_items)))
    with file.open("w") as out:
        for n in range(n_items):
            out.write(json.dumps({"id": n, "output": "x" * size}) + "\n")
    tracemalloc.start()
    count = sum(1 for _ in read_outputs(suite, file))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == n_items
    assert peak < n_items * size / 10
