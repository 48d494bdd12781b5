"""The sections of the report: the verdict's words, and what each section shows of a run."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

import reports.sections
from harness.records import GateResult, Measure
from reports import page
from reports.blocks import Callout, Plot, Prose, Table
from reports.sections import comparison, cost, ground_truth, training, verdict
from tests.unit.report_fixture import blocks_of, results, rows_by_model, table, wide

SVG = "{http://www.w3.org/2000/svg}"


def html_of(run):
    return page.page_html(run, page.build(run))


def gate(outcome: str, level: str = "block", needed: int | None = None) -> GateResult:
    return GateResult("better", "gsm8k/numeric", "dpo", outcome, "why", level, "base", 0.02, -0.01, 0.05, needed)


@pytest.mark.parametrize(
    ("outcome", "gates", "expected"),
    [
        ("pass", (gate("pass"), gate("pass")), "All 2 deciding gates pass."),
        ("fail", (gate("pass"), gate("fail")), "1 of 2 deciding gates fails: dpo must be better than base on"),
        ("inconclusive", (gate("pass"), gate("inconclusive", needed=900)), "About 900 items would decide."),
        (
            "pass",
            (gate("pass"), gate("fail", "warn")),
            "on gsm8k/numeric. 1 gate set to warn did not pass; that decides nothing.",
        ),
        ("pass", (gate("pass"), gate("fail", "warn")), "The one deciding gate passes:"),
        (None, (), "No gate decides in this run"),
    ],
)
def test_the_verdict_says_the_outcome_in_plain_words(outcome, gates, expected):
    run = results(outcome=outcome, gates=gates)
    first = verdict.build(run)[0]
    assert isinstance(first, Callout)
    assert expected in first.text
    assert (outcome or "no decision") in first.title.lower()


def test_each_gate_is_shown_with_its_reason_and_numbers():
    rows = table(results(), "gates").rows
    assert [row[0].text.split()[1] for row in rows] == ["pass", "pass", "fail", "inconclusive", "inconclusive"]
    assert "the interval holds 0; about 1,240 items would decide" in rows[3][1].sub[0]
    assert (rows[3][2].text, rows[3][2].sub) == ("+4.0", ("[−0.8, +8.8]",))
    assert rows[2][2].text == "39.5"  # a level, not a difference: no sign


def test_the_verdict_says_what_can_be_claimed_and_that_a_maximum_flatters():
    prose = " ".join(block.text for block in verdict.build(results()) if isinstance(block, Prose))
    assert "claims about these checkpoints: the items are the sample" in prose
    assert "playground/exact_match: dpo, 88.5% [85.7, 90.8]" in prose


def test_notes_stand_at_the_top():
    assert verdict.build(results())[1].items == results().notes


def test_gsm8k_shows_its_readings_side_by_side_and_calls_their_gap_format():
    blocks = ground_truth.build(results())
    prose = " ".join(block.text for block in blocks if isinstance(block, Prose))
    assert "A gap between flexible and official is format, not skill; it is widest for base, +21.5 points." in prose
    found = next(block for block in blocks if isinstance(block, Table))
    assert [column.title for column in found.columns[1:]] == [
        *("official", "strict", "flexible", "numeric", "flexible − official", "format", "truncated")
    ]
    assert rows_by_model(found)["base"][4].text == "+21.5"


def test_judges_and_probes_are_not_ground_truth():
    run = results(measures={("dpo", "judges/local", "win_rate"): Measure("win_rate", 0.6, 0.5, 0.7, 100)})
    assert ground_truth.build(run) == []


def test_seeds_of_one_student_share_a_picture_and_a_loss_that_is_not_finite_leaves_a_gap():
    rows = ({"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": 1.0})
    run = wide()
    first = training.build(replace(run, training={**run.training, "pad-ppd-lora seed 0": rows}))[2]
    assert isinstance(first, Plot) and "1 logged step without a finite value" in first.caption
    assert len(list(ElementTree.fromstring(first.svg).iter(f"{SVG}polyline"))) == 10 + 1


def test_a_long_run_is_drawn_thin_but_keeps_its_spike_and_all_its_rows():
    rows = tuple({"step": i, "loss": 50.0 if i == 7777 else 1.0 + i % 3} for i in range(20_000))
    plot = blocks_of(training.build(results(training={"dpo": rows})), Plot)[0]
    assert len(plot.svg) < 20_000
    assert len(plot.records) == 20_000
    points = next(ElementTree.fromstring(plot.svg).iter(f"{SVG}polyline")).get("points").split()
    heights = [float(point.split(",")[1]) for point in points]
    assert min(heights) < 50 < sorted(heights)[1]


def test_the_ledger_adds_up_and_says_what_came_from_the_store():
    run = results()
    found = blocks_of(cost.build(run), Table)[0]
    assert found.rows[-1][2].text == f"{sum(row['rows'] for row in run.ledger):,}"
    assert found.rows[-1][5].text == "1.4 GiB"  # the largest, never a sum
    assert "10 of 20 came from the store" in cost.build(run)[0].text


def test_provenance_shows_licences_hashes_and_seeds_and_blanks_credentials():
    run = results(experiment={"judges": {"gpt": {"endpoint": {"api_key": "sk-123", "api_key_env": "KEY"}}}})
    html = html_of(run)
    for shown in ("Apache-2.0", "3b1f09c2a7d4e5f6", "6f1c2ab9", "5.16.1", "api_key_env: KEY"):
        assert shown in html
    assert "sk-123" not in html
    suites = table(run, "manifest-suites")
    assert "600" in [cell.text for cell in suites.rows[0]]  # 600 ids are a count, not a wall of text


def test_a_not_worse_gate_draws_its_margin():
    svg = comparison.difference_plot(results(), "gsm8k", "numeric").svg
    assert "margin −2.0" in svg
    lines = list(ElementTree.fromstring(svg).iter(f"{SVG}line"))
    margin = [float(line.get("x1")) for line in lines if line.get("class") == "dash"][-1]
    zero = next(float(line.get("x1")) for line in lines if line.get("class") == "zero")
    assert margin < zero


def test_a_new_file_in_the_folder_is_a_new_section(tmp_path, monkeypatch):
    code = "from reports.blocks import Prose\nTITLE, ORDER = 'Weather', 15\nbuild = lambda results: [Prose('dry')]\n"
    (tmp_path / "weather_for_test.py").write_text(code)
    monkeypatch.setattr(reports.sections, "__path__", [*reports.sections.__path__, str(tmp_path)])
    assert [section.title for section in page.build(results())][:3] == ["Verdict", "Weather", "Comparison"]
