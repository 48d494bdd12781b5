"""The run of `report_fixture` with a third student, a judge, two probes and a look at the training signal."""

from harness.records import Measure
from harness.results import RunResults, Subject
from tests.unit.report_fixture import RIGHT, SUBJECTS, comparison, comparisons, measure, measures, results, wilson


def judged_details(label: str) -> dict[str, object]:
    """What a pairwise judge says of one student besides its measures."""
    rate = {"sft": 0.52, "dpo": 0.71, "pad": 0.6}[label]
    edges = [None, 61, 84, 120, None] if label == "sft" else [None, 90, 131, 170, None]

    def bins(ends: list[int | None], slope: float) -> list[dict[str, object]]:
        values = [rate + slope * (i - 1.5) for i in range(4)]
        return [
            {"low": a, "high": b, "n": 50, "estimate": {"value": v, "low": v - 0.13, "high": v + 0.13, "n": 50}}
            for a, b, v in zip(ends[:-1], ends[1:], values, strict=True)
        ]

    return {
        "n_rows": 200,
        "n_scored": 198 if label == "pad" else 200,
        "unscored": {"no verdict in the reply": 2} if label == "pad" else {},
        "length_controlled": {
            "overlap": {"n": 200, "longer": 0.81, "shorter": 0.15, "equal": 0.04, "effective_n": 88.2},
            "penalty_range": (rate - 0.09, rate - 0.06),
            "form_range": (rate - 0.12, rate - 0.05),
            "reason": "",
        },
        "length_matched": {"value": rate - 0.1, "low": rate - 0.3, "high": rate + 0.1, "n": 31, "tolerance": 0.1},
        "by_student_length": bins(edges, 0.05),
        "by_base_length": bins([None, 55, 70, 92, None], -0.02),
        "judge": "judge",
        "opponent": "base",
        "suite": "playground",
        "related": "The judge and the teacher share weights." if label == "dpo" else None,
    }


def judged(**changes: object) -> RunResults:
    """The realistic run with a third student, a judge, two probes and a look at the training signal."""
    pad = Subject("pad", "student", "pad", 0, "pad", "sft")
    found, pairs = measures(), list(comparisons())
    for (suite, metric), by in RIGHT.items():
        found["pad", suite, metric] = measure("pad", suite, metric, by["dpo"] + 3)
        pairs.append(comparison("pad", suite, metric, by["dpo"] + 3, by["base"]))
    for i, label in enumerate(("sft", "dpo", "pad")):
        rates = {"win_rate": 0.52 + 0.08 * i, "win_rate_lc": 0.5 + 0.02 * i, "flip_rate": 0.18, "first_rate": 0.57}
        rates |= {"tie_rate": 0.02, "mass": 0.97, "length_only": 0.55 + 0.1 * i}
        for metric, value in rates.items():
            low, high = max(0.0, value - 0.06), min(1.0, value + 0.06)
            found[label, "judges/local", metric] = Measure(metric, value, low, high, 200)
    asked = {"harm": 0.21, "harm_neutral": 0.06, "net_harm": 0.15, "retraction": 0.04, "repair": 0.12}
    asked |= {"repair_neutral": 0.07, "net_repair": 0.05, "discrimination": -0.09, "accuracy_change": -0.13}
    lengths = {"words": 21.4, "words_vs_base": 3.2, "words_vs_teacher": -1.3, "log_ratio_vs_base": 0.14}
    lengths |= {"longer_than_base": 0.63, "distinct_2": 0.91, "chosen_minus_rejected": 2.25, "drift_of_gap": 0.4}
    for i, subject in enumerate((*SUBJECTS, pad)):
        for name, values in (("are_you_sure", asked), ("length", lengths)):
            for metric, value in values.items():
                shown = value * (1 + 0.1 * i)
                half = 0.2 * abs(shown) + 0.01
                one = Measure(metric, shown, shown - half, shown + half, 300)
                found[subject.label, f"probes/{name}", metric] = one
    details = {(label, "judges/local"): judged_details(label) for label in ("sft", "dpo", "pad")}
    extra = {"subjects": (*SUBJECTS, pad), "measures": found, "comparisons": tuple(pairs), "judged": details}
    return results(**{**extra, "signal": signal(), **changes})


def share(value: float | None, n: int = 400) -> dict[str, object]:
    low, high = (None, None) if value is None else wilson(round(value * n), n)
    return {"value": value, "low": low, "high": high, "n": n}


def signal(truth: bool = True) -> dict[str, object]:
    """What harness.signals.trust says, in its own keys (a test compares them)."""
    rows = {"likelihood": (0.61, 0.52, 0.58), "selection": (0.83, 0.71, 0.49), "mix 0.5": (0.86, 0.73, 0.5)}
    found = {}
    for name, (accuracy, top, length) in {**rows, "judge local": (0.7, 0.6, 0.78)}.items():
        style = {
            feature: {
                "auc": 0.51,
                "n_differing": 8,
                "among_differing": 0.6,
                "low": 0.3,
                "high": 0.8,
                "p": None,
                "flagged": False,
            }
            for feature in ("chars", "words", "hedges", "flattery opener", "digits share", "steps")
        }
        style["words"] |= {"n_differing": 380, "among_differing": length, "low": length - 0.05, "high": length + 0.05}
        style["words"] |= {"flagged": length > 0.6, "p": 0.001}
        found[name] = {
            "pair_accuracy": share(accuracy, 900) if truth else None,
            "top_accuracy": share(top) if truth else None,
            "n_pairs": 390,
            "chosen_right": share(top) if truth else None,
            "rejected_right": share(1 - top) if truth else None,
            "length_auc": share(length, 390),
            "length_flagged": length > 0.6,
            "conditional_length_auc": share(length - 0.05, 120) if truth else None,
            "style": style,
            "coverage": 1.0,
        }
    best = {name: row["top_accuracy"] for name, row in found.items()}
    alpha = [{"alpha": a / 4, "pair_accuracy": share(0.61 + 0.06 * a), "top_accuracy": share(0.52)} for a in range(5)]
    lead = {"best": "mix 0.5", "next": "selection", "difference": 0.03, "low": 0.01, "high": 0.05, "clear": True}
    return {
        "n_prompts": 400,
        "n_answers": 1600,
        "n_decidable": 212 if truth else None,
        "candidates": found,
        "headroom": {"pass_at_1": share(0.47), "pass_at_n": share(0.88), "best_by": best} if truth else None,
        "alpha": alpha if truth else None,
        "lead": lead if truth else None,
        "note": "The features are associations." if truth else "No ground truth is known: cannot be separated.",
        "advice": "mix 0.5 orders right and wrong answers best, 86.0 [83.6, 88.1].",
    }
