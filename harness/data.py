"""Where suites find their files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.records import ProctorError


def find(suite: str, names: str | Sequence[str], path: str | Path | None = None) -> Path:
    """The file that holds a suite's data: the given path, then `$PROCTOR_DATA/<suite>/<name>`.

    `names` are the file names to accept, best first. `path` is a file, or a folder that holds one of them (itself or
    in a folder called `suite`). A given path is never replaced by other data: only that very path is also looked up
    in `$PROCTOR_DATA/<suite>/`. Raises ProctorError that names every place tried.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    root = os.environ.get("PROCTOR_DATA")
    shared = Path(root).expanduser() / suite if root else None
    places: list[Path] = []
    if path is not None:
        given = Path(path).expanduser()
        places.append(given)
        if given.is_dir():
            places += [folder / name for folder in (given, given / suite) for name in names]
        if shared is not None and not given.is_absolute():
            places.append(shared / given)
    elif shared is not None:
        places += [shared / name for name in names]
    for place in places:
        if place.is_file():
            return place
    tried = [str(place) for place in places]
    if shared is None:
        tried.append(f"$PROCTOR_DATA/{suite} (PROCTOR_DATA is not set)")
    raise ProctorError(
        f"the data of suite {suite!r} was not found; tried: {', '.join(tried)}. "
        f"Give the file with --data PATH (in an experiment: `path:`), or set PROCTOR_DATA to a folder "
        f"that holds {suite}/{names[0]}"
    )
