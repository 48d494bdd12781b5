"""JSON lines from other people's files: every error names the file and the line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.records import ProctorError


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based line, object) of a .jsonl or .jsonl.gz file, one line in memory at a time; blanks are skipped.

    Raises ProctorError on a missing or unreadable file, a line that is not JSON, and a line that is no object.
    """
    if not path.is_file():
        raise ProctorError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    opener = gzip.open if path.suffix == ".gz" else open
    line = 0
    try:
        with opener(path, "rb") as file:
            for line, raw in enumerate(file, start=1):
                if not raw.strip():
                    continue
                try:
                    row = json.loads(raw)
                except (ValueError, RecursionError) as error:
                    raise ProctorError(f"{path}:{line}: not valid JSON: {error}") from error
                if not isinstance(row, dict):
                    raise ProctorError(f"{path}:{line}: expected a JSON object, found {type(row).__name__}")
                yield line, row
    except (OSError, EOFError, zlib.error) as error:
        raise ProctorError(f"{path}:{line + 1}: cannot be read: {error}") from error
