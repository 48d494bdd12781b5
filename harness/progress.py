"""What a person sees while work runs: bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any


class Progress:
    """One bar (or one line at the end) per cell. Use as a context manager around a run."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bars: Any = None
        self._task: Any = None
        self._label = ""
        self._done = self._total = 0
        self._since = 0.0

    def __enter__(self) -> Progress:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            columns = (
                TextColumn("{task.description:<44}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bars = Bars(*columns, console=Console(stderr=True))
            self._bars.start()
        return self

    def start(self, label: str, total: int, done: int = 0) -> None:
        """Begin a bar of `total` units of which `done` are there already."""
        self._label, self._total, self._done, self._since = label, total, done, time.monotonic()
        if self._bars is not None:
            self._task = self._bars.add_task(label, total=total, completed=done)

    def advance(self, count: int = 1) -> None:
        """`count` more units are done."""
        self._done += count
        if self._bars is not None:
            self._bars.update(self._task, advance=count)

    def finish(self) -> None:
        """End the bar and leave one line in its place."""
        if self._bars is not None:
            self._bars.remove_task(self._task)
        self.say(f"{self._label}: {self._done:,} in {time.monotonic() - self._since:.1f} s")

    def say(self, text: str) -> None:
        """A line of its own, above the bars."""
        if self.quiet:
            return
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
