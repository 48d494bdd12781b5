"""What a report makes of hostile text: nothing in the records can do anything but be read."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from harness.results import RunResults
from reports import page, tables, text
from reports.blocks import Prose, Section
from reports.markdown import page_markdown
from tests.unit.report_fixture import results

HOSTILE = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def html_of(run: RunResults) -> str:
    return page.page_html(run, page.build(run))


def rename(run: RunResults, old: str, new: str) -> RunResults:
    """The same run with one subject called `new` everywhere."""
    return replace(
        run,
        subjects=tuple(replace(s, label=new, student=new) if s.label == old else s for s in run.subjects),
        measures={(new if label == old else label, s, m): v for (label, s, m), v in run.measures.items()},
        comparisons=tuple(replace(c, b=new) if c.b == old else c for c in run.comparisons),
        gates=tuple(replace(g, student=new, reason=new) for g in run.gates),
        training={new if label == old else label: rows for label, rows in run.training.items()},
        ledger=tuple({**row, "subject": new} if row["subject"] == old else row for row in run.ledger),
        notes=(new,),
        experiment={"students": {new: {"objective": new}}},
        manifest={"models": {new: {"content": new}}},
    )


@pytest.mark.parametrize("name", [HOSTILE, '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "a|b", "[x](javascript:0)"])
def test_a_hostile_name_is_shown_as_text_everywhere(name, tmp_path):
    run = rename(results(), "dpo", name)
    paths = page.write_report(run, tmp_path)
    reader = read(paths["html"].read_text())
    assert not {"script", "img", "iframe", "object"} & set(reader.tags)
    assert not any(key.startswith("on") for key, _ in reader.attributes)
    assert any(name in piece for piece in reader.text)
    for path in paths.values():
        assert path.resolve().is_relative_to(tmp_path.resolve())
        if path.suffix == ".svg":
            ElementTree.fromstring(path.read_text())
    markdown = paths["markdown"].read_text().partition("<details>")[0]
    assert "<script" not in markdown and "<img" not in markdown and not re.search(r"(?<!\\)\]\(javascript", markdown)


def test_control_and_direction_characters_reach_no_output(tmp_path):
    run = rename(results(), "dpo", "d\x1b[31mp\u202eo\u2066\x00\udc80")
    for path in page.write_report(run, tmp_path).values():
        assert not set(path.read_text()) & set("\x1b\x00\u202e\u2066")
    assert not set(tables.console(run)) & set("\x1b\x00\u202e\u2066\udc80")
    assert "d[31mpo\ufffd" in tables.console(run)


def test_the_page_loads_nothing_from_anywhere():
    html = html_of(rename(results(), "dpo", "http://evil.example/x.js"))
    loaders = [value for name, value in read(html).attributes if name in ("src", "href", "srcset", "action", "data")]
    assert loaders and all(value.startswith(("#", "data:")) for value in loaders)
    assert "url(" not in html and "@import" not in html and "<script" not in html
    assert "default-src 'none'" in html


def test_spreadsheet_formulas_are_quoted_and_negative_numbers_are_not():
    rows = [["=1+1", "+x", "-y", "@z", " =2", "-1.5", "plain"], [-1.5, -0.25, None, 3, 0.1, -1, -2]]
    lines = text.csv_text(rows).splitlines()
    assert lines[0] == "'=1+1,'+x,'-y,'@z,' =2,-1.5,plain"
    assert lines[1] == "-1.5,-0.25,,3,0.1,-1,-2"


def test_markdown_tables_keep_their_columns_whatever_the_names():
    markdown = page_markdown(run := rename(results(), "dpo", "a|b\n| c \\| d"), page.build(run))
    width = None
    for row in markdown.splitlines():
        bars = len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) if row.startswith("|") else None
        assert width is None or bars is None or bars == width
        width = bars


def test_markdown_paragraphs_cannot_open_a_heading_or_a_list():
    section = Section("s", "S", (Prose("# not a heading"), Prose("- not a list"), Prose("1. nor this")))
    assert "\n\\# not" in (markdown := page_markdown(results(), [section]))
    assert "\n\\- not" in markdown and "\n1\\. nor" in markdown


def test_the_embedded_csv_is_the_csv_file(tmp_path):
    paths = page.write_report(results(), tmp_path)
    url = re.search(r'download="gates.csv" href="data:text/csv;base64,([^"]+)"', paths["html"].read_text())[1]
    assert base64.b64decode(url) == paths["tables/gates.csv"].read_bytes()


def test_no_path_of_this_machine_is_printed(tmp_path):
    paths = page.write_report(results(folder=tmp_path / "secret-folder"), tmp_path / "report")
    assert not any("secret-folder" in path.read_text() for path in paths.values())
