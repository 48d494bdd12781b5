"""How numbers and foreign text are printed: rounding, units, and what is taken out or escaped before anyone sees it."""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

from reports.blocks import Value

Unit = Literal["percent", "plain"]
MISSING = "n/a"
MINUS = "\N{MINUS SIGN}"

# Zero-width joiners (Cf) belong to scripts and emoji; every other format character can only hide or reorder text.
_KEPT_FORMAT = frozenset("\u200c\u200d")
# A bracket opens a link only before ( [ or :, and an underscore inside a word means nothing: names stay legible.
_MARKDOWN = re.compile(r"([\\`*|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\](?=[(\[:])|(?<=:)/(?=/))")
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def clean(text: str) -> str:
    """`text` without control, direction and other invisible characters; new lines and tabs stay.

    Lone surrogates, which no file could hold, become U+FFFD.
    """
    kept = []
    for char in text.replace("\r\n", "\n").replace("\u2028", "\n").replace("\u2029", "\n"):
        category = unicodedata.category(char)
        if category == "Cs":
            kept.append("\ufffd")
        elif char in "\n\t" or char in _KEPT_FORMAT or category not in ("Cc", "Cf"):
            kept.append(char)
    return "".join(kept)


def line(text: str) -> str:
    """`clean` text on one line."""
    return " ".join(clean(text).split())


def finite(value: object) -> float | None:
    """`value` as a float, None where it is missing, not a number or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: float | None, unit: Unit = "percent", signed: bool = False) -> str:
    """A rate as percent with one decimal, or a plain number with two; `n/a` when missing.

    A signed number that rounds to zero keeps its sign: an interval from +0.0 lies above zero, one from -0.0 does not.
    """
    value = finite(value)
    if value is None:
        return MISSING
    text = f"{abs(100 * value):.1f}" if unit == "percent" else f"{abs(value):.2f}"
    zero = float(text) == 0 and not signed
    return (MINUS if value < 0 and not zero else "+" if signed and value > 0 else "") + text


def interval(low: float | None, high: float | None, unit: Unit = "percent", signed: bool = False) -> str:
    """`[low, high]`, or `n/a` when both are missing."""
    if finite(low) is None and finite(high) is None:
        return MISSING
    return f"[{number(low, unit, signed)}, {number(high, unit, signed)}]"


def p_value(p: float | None) -> str:
    """Three decimals; below 0.001 only that."""
    p = finite(p)
    if p is None:
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def count(value: object) -> str:
    """A whole number with thousands separators."""
    n = finite(value)
    return MISSING if n is None else f"{n:,.0f}"


def plural(n: int, noun: str) -> str:
    """`1 gate`, `2 gates`."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def duration(seconds: object) -> str:
    """Seconds below two minutes, then minutes with one decimal, then hours and minutes."""
    value = finite(seconds)
    if value is None:
        return MISSING
    if value < 119.95:
        return f"{value:.1f} s"
    if value < 7197:
        return f"{value / 60:.1f} min"
    return f"{round(value / 60) // 60:,} h {round(value / 60) % 60:02d} min"


def memory(mib: object) -> str:
    """MiB, from 1,024 on as GiB."""
    value = finite(mib)
    if value is None:
        return MISSING
    return f"{value / 1024:.1f} GiB" if value >= 1024 else f"{value:.0f} MiB"


def slug(text: str) -> str:
    """A file name or anchor: lower case letters, digits, `_` and `-`."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")[:80] or "x"


def markdown(text: str, paragraph: bool = False) -> str:
    """`text` on one line with everything that Markdown or HTML would read as markup escaped.

    A `paragraph` stands at the start of its line, where `#`, `-` or `1.` would open a heading or a list.
    """
    text = _MARKDOWN.sub(r"\\\1", line(text))
    if paragraph:
        text = re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def csv_text(rows: Iterable[Sequence[Value]]) -> str:
    """Rows as CSV. Numbers keep their digits; text that a spreadsheet would run as a formula gets a leading quote."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_field(value) for value in row] for row in rows)
    return out.getvalue()


def _field(value: Value) -> str | float | None:
    if not isinstance(value, str):
        return value
    text = clean(value)
    try:
        float(text)
    except ValueError:
        return "'" + text if text.lstrip()[:1] in _FORMULA else text
    return text
