"""What a report section is made of. A section returns blocks; `page` writes them as HTML, Markdown, CSV and SVG.

Blocks hold plain text: nobody who writes a section has to think of escaping. The one exception is `Plot.svg`, which
comes from the writers of `reports.plots`; they escape what they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "pass", "fail", "inconclusive", "note"]
Value = str | float | None
"""One field of a CSV file; None is an empty field."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading inside a section, level 3 or 4 (1 is the run's name, 2 the section's title)."""

    text: str
    level: int = 3


@dataclass(frozen=True, slots=True)
class Prose:
    """One paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Callout:
    """A sentence nobody may miss, with an optional list under it."""

    title: str
    text: str = ""
    items: tuple[str, ...] = ()
    tone: Tone = "note"


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a table's column: `sub` is a second, quieter line; equal neighbouring `group`s share one head."""

    title: str
    sub: str = ""
    group: str = ""
    numeric: bool = True


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a table: `text`, and quieter lines under it."""

    text: str
    sub: tuple[str, ...] = ()
    strong: bool = False
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table. The first cell of each row heads it. `notes` stand under the table.

    `header` and `records` are what the CSV file holds, unrounded; left empty, it holds the cells' text.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    records: tuple[tuple[Value, ...], ...] = ()

    def csv_rows(self) -> list[Sequence[Value]]:
        """The lines of the CSV file, the header first."""
        if self.header:
            return [self.header, *self.records]
        head = [" ".join(part for part in (column.group, column.title) if part) for column in self.columns]
        return [head, *([" ".join((cell.text, *cell.sub)) for cell in row] for row in self.rows)]


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture: the SVG, a caption, and the CSV rows behind it. `title` is its alternative text."""

    name: str
    title: str
    caption: str
    svg: str
    header: tuple[str, ...]
    records: tuple[tuple[Value, ...], ...]

    def csv_rows(self) -> list[Sequence[Value]]:
        """The lines of the CSV file, the header first."""
        return [self.header, *self.records]


@dataclass(frozen=True, slots=True)
class Code:
    """Text to be shown as it is: a file, a traceback, an answer of a model."""

    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class Details:
    """Blocks that stay folded until the reader asks for them."""

    summary: str
    blocks: tuple[Block, ...]


Block = Heading | Prose | Callout | Table | Plot | Code | Details


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the page; `name` is its file's name and its anchor."""

    name: str
    title: str
    blocks: tuple[Block, ...]
