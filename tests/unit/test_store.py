"""The store keeps every row once, whatever kills its writer and wherever the file was torn."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.records import ProctorError
from harness.store import CellRef, Store, canonical, digest, parse_row, row_key, whole_rows

SPEC = {"model": "m", "sampling": {"temperature": 0.8}}
REF = CellRef.of("generations", SPEC)


def row(number: int, text: str = "x") -> dict[str, object]:
    return {"key": row_key(REF.key, f"item-{number}", 0), "item": f"item-{number}", "text": text}


def fill(store: Store, numbers: range, finish: bool = True) -> None:
    with store.writer(REF, SPEC) as writer:
        for number in numbers:
            writer.append(row(number))
        writer.sync()
        if finish:
            writer.finish(items=[f"item-{n}" for n in numbers], tokens=3)


def test_the_key_depends_on_content_and_not_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1.0, None]}) == digest({"b": [1.0, None], "a": 1})
    assert CellRef.of("generations", SPEC) != CellRef.of("rollouts", SPEC)
    assert CellRef.of("generations", {**SPEC, "model": "n"}) != REF


def test_not_a_number_never_enters_a_key() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical({"lr": float("nan")})


def test_a_finished_cell_says_what_it_holds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, range(5))
    marker = store.done(REF)
    assert marker is not None
    assert marker["rows"] == 5 and marker["tokens"] == 3 and marker["items"] == [f"item-{n}" for n in range(5)]
    assert json.loads((store.folder(REF) / "spec.json").read_text()) == {"kind": "generations", **SPEC}
    assert [r["item"] for r in store.rows(REF)] == [f"item-{n}" for n in range(5)]


def test_more_items_reopen_append_to_and_replace_the_marker(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, range(3))
    with store.writer(REF, SPEC) as writer:
        assert not writer.append(row(1)), "a row that is there is not written again"
        assert store.done(REF) is not None
        assert writer.append(row(3))
        assert store.done(REF) is None, "while rows are added the cell is not complete"
        writer.finish(items=[f"item-{n}" for n in range(4)])
    assert (store.done(REF) or {})["rows"] == 4


def test_rows_edited_after_completion_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, range(3))
    path = store.folder(REF) / "rows.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"text":"x"', b'"text":"y"', 1))
    with pytest.raises(ProctorError, match="changed after it was complete"):
        store.rows(REF)


def test_a_broken_line_before_whole_rows_is_an_error_with_its_line(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, range(3), finish=False)
    path = store.folder(REF) / "rows.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"key": "torn\n' + lines[2])
    with pytest.raises(ProctorError, match=r"rows\.jsonl:2"):
        store.rows(REF)


@given(cut=st.integers(0, 400), garbage=st.binary(max_size=12).filter(lambda b: b"\n" not in b))
@settings(max_examples=60, deadline=None)
def test_a_file_cut_at_any_byte_loses_at_most_the_row_being_written(
    tmp_path_factory: pytest.TempPathFactory, cut: int, garbage: bytes
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    fill(store, range(6), finish=False)
    path = store.folder(REF) / "rows.jsonl"
    data = path.read_bytes()
    kept = data[: min(cut, len(data))]
    path.write_bytes(kept + garbage)
    whole = kept.count(b"\n")
    assert len(store.rows(REF)) == whole
    fill(store, range(6))
    rows = store.rows(REF)
    assert sorted(str(r["item"]) for r in rows) == [f"item-{n}" for n in range(6)]
    assert len({r["key"] for r in rows}) == 6


VALUES = st.one_of(st.text(), st.integers(), st.none(), st.floats(allow_nan=False, allow_infinity=False))


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
@settings(max_examples=80, deadline=None)
def test_any_row_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    written = {**values, "key": "k"}
    with store.writer(REF, SPEC) as writer:
        writer.append(written)
        writer.finish(items=["i"])
    assert store.rows(REF) == [written]


def test_lone_surrogates_survive(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writer(REF, SPEC) as writer:
        writer.append({"key": "k", "text": "a\ud800b\u2028\n"})
    assert store.rows(REF)[0]["text"] == "a\ud800b\u2028\n"


@given(st.binary(max_size=60))
def test_parse_row_never_raises(data: bytes) -> None:
    found = parse_row(data)
    assert found is None or isinstance(found["key"], str)


@given(st.binary(max_size=120))
def test_whole_rows_never_reports_bytes_it_did_not_parse(data: bytes) -> None:
    try:
        rows, end = whole_rows(data, Path("f"))
    except ProctorError:
        return
    assert 0 <= end <= len(data)
    assert data[:end].count(b"\n") >= len(rows)


def test_a_full_disk_is_one_clear_error_and_leaves_no_torn_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    real = os.write
    with store.writer(REF, SPEC) as writer:
        writer.append(row(0))

        def half(descriptor: int, data: bytes) -> int:
            if len(data) > 10:
                return real(descriptor, bytes(data)[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(ProctorError, match="no disk space left") as caught:
            writer.append(row(1))
        monkeypatch.setattr(os, "write", real)
    assert "rows.jsonl" in str(caught.value)
    assert [r["item"] for r in store.rows(REF)] == ["item-0"]
    fill(store, range(3))
    assert len(store.rows(REF)) == 3


def test_a_second_writer_waits_for_the_first(tmp_path: Path) -> None:
    import threading

    store = Store(tmp_path)
    said: list[str] = []
    with store.writer(REF, SPEC) as writer:
        writer.append(row(0))

        def other() -> None:
            with Store(tmp_path).writer(REF, SPEC, on_wait=said.append) as second:
                assert len(second.keys) == 2
                second.append(row(2))

        thread = threading.Thread(target=other)
        thread.start()
        while not said:
            thread.join(0.01)
        writer.append(row(1))
    thread.join(5)
    assert "waiting" in said[0]
    assert len(store.rows(REF)) == 3


def test_seconds_of_an_interrupted_attempt_are_counted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writer(REF, SPEC) as writer:
        writer.append(row(0))
        writer._before = 100.0
        writer.sync()
    with store.writer(REF, SPEC) as writer:
        writer.finish(items=["item-0"])
    assert (store.done(REF) or {})["seconds"] >= 100.0
