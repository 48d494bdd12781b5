"""Length: how long the answers are, against the base's and the teacher's, and what the training pairs reward.

Nothing is asked; the student's finished answers are read. A word is what stands between whitespace. The measures,
means over answers with t intervals unless said otherwise:

* `words`: words per answer;
* `words_vs_base`, `words_vs_teacher`: the difference to that model's answer to the same question, paired;
* `log_ratio_vs_base`: the log (nats) of (words + 1) over the base's (words + 1), paired: 0.69 is twice as long, and
  one answer that runs on cannot make the mean;
* `longer_than_base`: the share of answers that are longer, ties counting half: 0.5 is no difference. Beside it, the
  mean difference tells many a little longer from few that run on;
* `distinct_2`: of one answer's pairs of neighbouring words, the share that are distinct, averaged over the answers
  that have a pair. It falls when answers loop. (Li et al. 2016 pool all answers; pooled, it falls with their number.)
* `chosen_minus_rejected`: words that the chosen side of the student's training pairs has more, on average: what the
  pairs reward. A fact about the training data, hence without an interval; `n` is that of the answers;
* `drift_of_gap`: words_vs_base over chosen_minus_rejected, how much of the rewarded gap was learned, with the interval
  of the former. 1 is all of it; undefined for a gap below half a word either way, which rewards no length.

Longer is not worse by itself: read it with the truth metrics and the length-controlled win rate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

from harness import stats
from harness.probing import ProbeContext
from harness.records import Item, Measure, Message, ProctorError, Row

VERSION = "1"
ASKS = False

SMALLEST_GAP = 0.5


def items(context: ProbeContext) -> list[Item]:
    """No items: this probe asks nothing."""
    return []


def follow_up(item: Item, rows: Iterable[Row]) -> tuple[Message, ...] | None:
    """No items, hence no turns."""
    return None


def measure(rows: Iterable[Row]) -> list[Measure]:
    """The measures of the module's docstring, from one row per question; the order of the rows does not matter.

    Rows hold `question`, `text`, `base_text`, `teacher_text` (None where there is none), and the student's
    `chosen_words` and `rejected_words` (means over its training pairs, or None). Where only some rows lack the other
    model's text, these are `unscored`; where all do, there is no such model. Raises ProctorError for a question that
    is there twice, or pairs whose lengths differ between rows.
    """
    listed = sorted(rows, key=lambda row: str(row["question"]))
    questions = [row["question"] for row in listed]
    if len(set(questions)) < len(questions):
        twice = next(question for question in questions if questions.count(question) > 1)
        raise ProctorError(f"length: question {twice!r} is there twice; one answer per question is measured")
    texts = [row["text"] for row in listed]
    base = _both(listed, "base_text")
    drift = _paired("words_vs_base", base, lambda own, other: own - other)
    gap = _gap(listed)
    return [
        _mean("words", [words(text) for text in texts], bounded=False),
        drift,
        _paired("words_vs_teacher", _both(listed, "teacher_text"), lambda own, other: own - other),
        _paired("log_ratio_vs_base", base, lambda own, other: math.log((own + 1) / (other + 1))),
        _mean("longer_than_base", [((own > other) + (own >= other)) / 2 for own, other in base[0]], unscored=base[1]),
        _mean("distinct_2", [share for text in texts if (share := distinct_2(text)) is not None]),
        Measure("chosen_minus_rejected", gap, None, None, 0 if gap is None else len(listed)),
        _drift_of_gap(drift, gap),
    ]


def words(text: str) -> int:
    """Number of words: runs of characters without whitespace."""
    return len(text.split())


def distinct_2(text: str) -> float | None:
    """Distinct pairs of neighbouring words over all of them, in (0, 1]; None below two words. Case counts."""
    listed = text.split()
    pairs = list(itertools.pairwise(listed))
    return len(set(pairs)) / len(pairs) if pairs else None


def _both(rows: Sequence[Row], column: str) -> tuple[list[tuple[int, int]], int]:
    """Words of the student's and of the other model's answer, and how many rows lack the latter (if some have it)."""
    pairs = [(words(row["text"]), words(row[column])) for row in rows if row[column] is not None]
    return pairs, len(rows) - len(pairs) if pairs else 0


def _mean(name: str, values: Sequence[float], *, bounded: bool = True, unscored: int = 0) -> Measure:
    found = stats.mean(values, bounded=bounded)
    return Measure(name, found.value, found.low, found.high, found.n, unscored)


def _paired(name: str, both: tuple[list[tuple[int, int]], int], difference: Callable[[int, int], float]) -> Measure:
    found = stats.paired([difference(own, other) for own, other in both[0]], span=None, check=False)
    return Measure(name, found.value, found.low, found.high, found.n, both[1])


def _gap(rows: Sequence[Row]) -> float | None:
    gaps = {
        float(row["chosen_words"]) - float(row["rejected_words"])
        for row in rows
        if row["chosen_words"] is not None and row["rejected_words"] is not None
    }
    if len(gaps) > 1:
        raise ProctorError(f"length: one student's pairs have one gap in words, but the rows say {sorted(gaps)}")
    return next(iter(gaps), None)


def _drift_of_gap(drift: Measure, gap: float | None) -> Measure:
    name = "drift_of_gap"
    if gap is None or abs(gap) < SMALLEST_GAP or drift.value is None:
        return Measure(name, None, None, None, 0, drift.unscored)
    if drift.low is None or drift.high is None:
        return Measure(name, drift.value / gap, None, None, drift.n, drift.unscored)
    low, high = sorted((drift.low / gap, drift.high / gap))
    return Measure(name, drift.value / gap, low, high, drift.n, drift.unscored)
