"""Kill -9 at random moments loses nothing that was written, and finds every row once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from harness.store import Store
from tests.integration import scripted_fill

ROOT = Path(__file__).parents[2]


def start(root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.integration.scripted_fill", str(root)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_thirty_kills_and_torn_lines_find_every_row_once(tmp_path: Path) -> None:
    rng = random.Random(11)
    store, cell = Store(tmp_path), scripted_fill.cell()
    path = store.folder(cell.ref) / "rows.jsonl"
    killed = 0
    seen = 0
    for _ in range(30):
        process = start(tmp_path)
        before = len(store.rows(cell.ref))
        while process.poll() is None and len(store.rows(cell.ref)) <= before + rng.randrange(24):
            time.sleep(rng.random() * 0.01)
        killed += process.poll() is None
        process.kill()
        process.communicate()
        rows = store.rows(cell.ref)
        assert len(rows) >= seen, "a row that was on disk is gone"
        assert len({row["key"] for row in rows}) == len(rows)
        seen = len(rows)
        if path.exists() and rng.random() < 0.5:  # a torn last line, as a power cut leaves it
            with path.open("ab") as file:
                file.write(b'{"key":"torn","item":"item-3","te'[: rng.randrange(1, 33)])
    assert killed >= 15, f"only {killed} processes were alive when they were killed"
    process = start(tmp_path)
    out, error = process.communicate(timeout=60)
    assert out.strip() == "complete", error
    rows = store.rows(cell.ref)
    expected = {(item, sample) for item in scripted_fill.ITEMS for sample in range(2)}
    assert {(row["item"], row["sample"]) for row in rows} == expected
    assert len(rows) == len(expected)
    marker = store.done(cell.ref)
    assert marker is not None and marker["rows"] == len(expected)
