"""What training may have taught besides the task: giving in to push-back, and answering at another length."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records import Measure
from harness.results import RunResults, Subject
from reports.blocks import Block, Details, Heading, Plot, Prose
from reports.lookup import difference, metrics, unit
from reports.plots import Dot, Shape, forest
from reports.tables import metric_tables
from reports.text import interval, listed, number

TITLE = "Probes"
ORDER = 38

ROLES: dict[str, Shape] = {"base": "ring", "teacher": "diamond", "student": "circle"}
ABOUT = {
    "are_you_sure": (
        "After its answer the model is told that it may be wrong. Holding on is good where it was right and bad where "
        "it was wrong, so both are shown; asked neutrally to answer again, it shows how much it wavers anyway."
    ),
    "length": "Preference training often teaches length: answers to the same prompts, before any judge sees one.",
}
MEANING = {
    "harm": "Of the answers that were right, how many are wrong after the push-back.",
    "harm_neutral": "Of the answers that were right, how many are wrong after a neutral request to answer again.",
    "net_harm": "Harm less what a neutral request does: what giving in costs. Above zero the model caves in.",
    "retraction": "Of the answers that were right, how many are taken back without giving another.",
    "repair": "Of the answers that were wrong, how many are right after the push-back.",
    "repair_neutral": "Of the answers that were wrong, how many are right after a neutral request to answer again.",
    "net_repair": "Repair less what a neutral request does: what the push-back itself puts right.",
    "discrimination": "Repair less harm: above zero, it gives in more where it was wrong than where it was right.",
    "accuracy_change": "Right answers after the push-back less those before it, over all questions.",
    "words": "Mean number of words per answer.",
    "words_vs_base": "Words more or fewer than the base's answer to the same prompt.",
    "words_vs_teacher": "Words more or fewer than the teacher's answer to the same prompt.",
    "log_ratio_vs_base": "Mean logarithm of the words over the base's: 0.69 is twice as long, −0.69 half as long.",
    "longer_than_base": "How often the answer is longer than the base's, ties counting half; half is no change.",
    "distinct_2": "Of an answer's pairs of neighbouring words, the share that are distinct: low is repetition.",
    "chosen_minus_rejected": "Words that the chosen side of the training pairs has more: what these reward.",
    "drift_of_gap": "The change in words over the gap that the pairs reward: 1 is all of it.",
}


def build(results: RunResults) -> list[Block]:
    """Per probe a sentence, a picture per measure with the base and the teacher, and the table against the baseline."""
    columns = [column for column in metrics(results) if column[0].split("/")[0] == "probes"]
    blocks: list[Block] = []
    for suite in dict.fromkeys(suite for suite, _ in columns):
        name = suite.partition("/")[2]
        found = [metric for s, metric in columns if s == suite]
        blocks.append(Heading(name.replace("_", " ")))
        about = ABOUT.get(name.partition(":")[0])
        blocks += [Prose(about)] if about else []
        blocks += [plot for metric in found if (plot := measure_plot(results, suite, metric, MEANING.get(metric, "")))]
        tables = metric_tables(results, f"{suite}-values", name.replace("_", " "), [(suite, m) for m in found])
        blocks.append(Details(f"Values and differences from {results.baseline}", tuple(tables)))
    if blocks:
        text = "Habits that truth does not show. Ring: base, diamond: teacher, disc: student; 95% intervals."
        blocks.insert(0, Prose(text))
    return blocks


def measure_plot(results: RunResults, suite: str, metric: str, caption: str) -> Plot | None:
    """One measure of every model that has it; measures that are differences against zero, in points or as they are."""
    found = [(s, m) for s in results.subjects if (m := results.measures.get((s.label, suite, metric))) is not None]
    if not found:
        return None
    kind, signed = unit(results, suite, metric), difference(metric)
    title = metric.replace("_", " ") + (", points" if signed else ", %") * (kind == "percent")
    words = "; ".join(
        f"{s.label} {number(m.value, kind, signed)} {interval(m.low, m.high, kind, signed)}" for s, m in found
    )
    dots = [Dot(s.label, m.value, m.low, m.high, shape=ROLES[s.role]) for s, m in found]
    name = f"values-{suite}-{metric}"
    svg = forest(name, title, f"Values with 95% intervals: {words}.", dots, kind, zero=signed)
    header = ("model", "value", "low", "high", "n", "unscored")
    records = tuple((s.label, m.value, m.low, m.high, m.n, m.unscored) for s, m in found)
    return Plot(name, title, f"{caption} {_sizes(found)}".strip(), svg, header, records)


def _sizes(found: Sequence[tuple[Subject, Measure]]) -> str:
    sizes = sorted({m.n for _, m in found})
    return f"n {listed([f'{n:,}' for n in sizes])}." if len(sizes) < 4 else f"n {sizes[0]:,} to {sizes[-1]:,}."
