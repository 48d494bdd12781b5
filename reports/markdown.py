"""The report as GitHub Markdown: the same blocks as the page, with the pictures and data as files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from harness.results import RunResults
from reports.blocks import Block, Callout, Cell, Code, Column, Details, Heading, Plot, Prose, Section, Table
from reports.text import clean, markdown


def page_markdown(results: RunResults, sections: Iterable[Section]) -> str:
    """The whole page. Every foreign text is escaped: no name can open a tag, a link, a column or a heading."""
    parts = [f"# {markdown(results.name)}", f"Proctor report, run `{_code_span(results.fingerprint)}`"]
    for section in sections:
        parts.append(f"## {markdown(section.title)}")
        for block in section.blocks:
            parts += _block(block)
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Heading(text, level):
            yield f"{'#' * level} {markdown(text)}"
        case Prose(text):
            yield markdown(text, paragraph=True)
        case Callout(title, text, items, _):
            lines = [
                f"**{markdown(title)}.** {markdown(text)}".rstrip(),
                *(f"- {markdown(item, paragraph=True)}" for item in items),
            ]
            yield "\n".join(f"> {line}" for line in lines)
        case Table():
            yield f"**{markdown(block.caption)}** ([CSV](tables/{block.name}.csv))"
            yield _table(block)
            yield from (f"<sub>{markdown(note)}</sub>" for note in block.notes)
        case Plot():
            caption = f"<sub>{markdown(block.caption)}</sub> " if block.caption else ""
            yield f"![{_alternative(block.title)}](plots/{block.name}.svg)"
            yield f"{caption}[CSV](plots/{block.name}.csv)"
        case Code(text, language):
            yield _fenced(text, language)
        case Details(summary, blocks):
            yield f"<details><summary>{markdown(summary)}</summary>"
            for inner in blocks:
                yield from _block(inner)
            yield "</details>"


def _table(table: Table) -> str:
    heads = " | ".join(_head(column) for column in table.columns)
    rules = " | ".join("---:" if column.numeric else ":---" for column in table.columns)
    rows = (" | ".join(_cell(cell) for cell in row) for row in table.rows)
    return "\n".join(f"| {line} |" for line in (heads, rules, *rows))


def _head(column: Column) -> str:
    return "<br>".join(markdown(part) for part in (column.group, column.title, column.sub) if part)


def _cell(cell: Cell) -> str:
    text = markdown(cell.text)
    strong = f"**{text}**" if cell.strong and text.strip() else text
    return "<br>".join((strong, *(markdown(part) for part in cell.sub)))


def _alternative(text: str) -> str:
    return re.sub(r"([\[\]])", r"\\\1", markdown(text))


def _code_span(text: str) -> str:
    return clean(text).replace("`", "'").replace("\n", " ")


def _fenced(text: str, language: str) -> str:
    text = clean(text).rstrip("\n")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
