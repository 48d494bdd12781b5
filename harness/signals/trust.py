"""Can the training signal be trusted? Which answers each reward prefers, how right they are, and what they share.

Computed on the rollouts alone, before anything is trained. Pure functions of values.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness import stats
from harness.signals.style import ENOUGH, STYLE, TOLERATED, style_preferences

Where = tuple[str, int]
Rewards = Mapping[Where, float | None]
Ranked = Mapping[str, Sequence[tuple[int, float]]]
"""Per prompt the scored answers as (sample, reward), in the order of their samples."""

NO_TRUTH = (
    "No ground truth is known for these prompts: whether the signal prefers right answers, and whether a preference "
    "for length or style is a preference for quality, cannot be separated here."
)
SIDE_BY_SIDE = "The features are associations: where right answers are longer, a good signal prefers longer ones too."


def trust(
    answers: Mapping[str, Sequence[Mapping[str, Any]]],
    truth: Mapping[Where, float],
    candidates: Mapping[str, Rewards],
    alphas: Sequence[float] = (),
) -> dict[str, Any]:
    """How right each candidate reward is about the rollouts, and what its preferences go along with: JSON values.

    `answers`: per prompt its rollouts {sample, text, tokens} (token ids, or their number); `truth`: 1 right, 0 wrong,
    empty if unknown; `candidates`: a reward per rollout, None where it has none. `alphas` mix the candidates
    `likelihood` and `selection`, both on a log scale, as PAD's eq. 9 does: (1 - alpha) likelihood + alpha selection.
    Shares are in [0, 1] as {value, low, high, n} with 95% intervals: `n` counts pairs for `pair_accuracy` (clustered by
    prompt) and prompts elsewhere. `pair_accuracy` and `top_accuracy` split ties; the implied pairs are those of
    `best_against_worst`. `style`: see `style_preferences`; `lead`: the candidate that orders best against the next.
    """
    known = {where: float(value > 0.5) for where, value in truth.items()}
    lengths: dict[Where, int] = {}
    features: dict[Where, dict[str, float]] = {}
    texts: dict[Where, str] = {}
    for item, rollouts in answers.items():
        for answer in rollouts:
            where, tokens = (item, int(answer["sample"])), answer["tokens"]
            lengths[where] = tokens if isinstance(tokens, int) else len(tokens)
            texts[where] = str(answer["text"])
            features[where] = {name: feature(texts[where]) for name, feature in STYLE.items()}
    ordered = sorted(lengths)
    judged = {where: known[where] for where in ordered if where in known}
    ranked = {name: _ranked(ordered, rewards) for name, rewards in candidates.items()}
    found = {}
    for name, by_item in ranked.items():
        pairs = [pair for item in by_item if (pair := _implied(item, by_item[item], lengths, texts))]
        found[name] = {
            "pair_accuracy": _share(_orders(by_item, judged)) if judged else None,
            "top_accuracy": _share(_tops(by_item, judged)) if judged else None,
            **_pair_numbers(pairs, judged, lengths, features),
            "coverage": sum(len(rows) for rows in by_item.values()) / len(ordered) if ordered else None,
        }
    out: dict[str, Any] = {
        "n_prompts": len(answers),
        "n_answers": len(ordered),
        "n_decidable": sum(len(values) > 1 for values in _by_item(judged).values()) if judged else None,
        "candidates": found,
        "headroom": _headroom(judged, found) if judged else None,
        "alpha": None,
        "lead": _lead(ranked, judged) if judged else None,
        "note": SIDE_BY_SIDE if judged else NO_TRUTH,
    }
    if judged and {"likelihood", "selection"} <= set(candidates):
        likelihood, selected = candidates["likelihood"], candidates["selection"]
        out["alpha"] = []
        for alpha in alphas:
            mix = {where: _mixed(likelihood.get(where), selected.get(where), alpha) for where in ordered}
            by_item = _ranked(ordered, mix)
            accuracy, top = _share(_orders(by_item, judged)), _share(_tops(by_item, judged))
            out["alpha"].append({"alpha": alpha, "pair_accuracy": accuracy, "top_accuracy": top})
    return {**out, "advice": advice(out)}


def lines(trust: Mapping[str, Any]) -> str:
    """The result of `trust` as text for a terminal: at most 80 columns, the last paragraph being the advice."""
    head = ["signal", "orders right", "best right", "longer preferred"]
    rows = [head]
    for name, found in trust["candidates"].items():
        keys = ("pair_accuracy", "top_accuracy", "length_auc")
        rows.append(["".join(filter(str.isprintable, name)), *(_printed(found[key]) for key in keys)])
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    widths[0] = min(widths[0], 80 - sum(widths[1:]) - 6)
    table = []
    for row in rows:
        name = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 1] + "…"
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        table.append("  ".join([name.ljust(widths[0]), *cells]).rstrip())
    about = f"Training signal, %: {trust['n_prompts']:,} prompts, {trust['n_answers']:,} answers"
    if trust["n_decidable"] is not None:
        about += f", {trust['n_decidable']:,} prompts with right and wrong ones"
    room = trust["headroom"]
    if room:
        about += f". An answer at random is right {_printed(room['pass_at_1'])}, one or more of a prompt's"
        about += f" {_printed(room['pass_at_n'])}"
    return "\n".join([textwrap.fill(about + ".", 80), *table, textwrap.fill(advice(trust), 80)])


def advice(trust: Mapping[str, Any]) -> str:
    """In plain words: which candidate orders best and how surely, and whether its pairs prefer length or a style."""
    found, lead = trust["candidates"], trust.get("lead")
    if not found:
        return "There is no signal to look at."
    said = []
    if lead is None:
        said.append(trust["note"] if not trust["headroom"] else "No prompt has a right and a wrong answer to order.")
        names = [name for name in found if flagged(found[name]["length_auc"])][:3] or list(found)[:1]
    else:
        names = [lead["best"]]
        accuracy = found[lead["best"]]["pair_accuracy"]
        text = f"{lead['best']} orders right and wrong answers best, {_printed(accuracy)}"
        if accuracy["low"] is not None and accuracy["low"] <= 0.5:
            text += ", which chance could do too"
        elif lead["next"] is not None and not lead["clear"]:
            text += f", but not clearly better than {lead['next']}"
        said.append(text + ".")
    for name in names:
        said += _preferences(name, found[name])
    low = [f"{name} ({100 * c['coverage']:.0f}%)" for name, c in found.items() if c["coverage"] and c["coverage"] < 1]
    if low:
        said.append(f"Not every answer has a value: {', '.join(low)}.")
    return " ".join(said)


def flagged(share: Mapping[str, Any] | None) -> bool:
    """Whether an AUC lies outside of what is tolerated, with an interval that leaves one half out."""
    if share is None or share["value"] is None or share["low"] is None or share["high"] is None:
        return False
    beyond = not TOLERATED[0] <= share["value"] <= TOLERATED[1]
    return bool(beyond and (share["low"] > 0.5 or share["high"] < 0.5) and share["n"] >= ENOUGH)


def _preferences(name: str, found: Mapping[str, Any]) -> list[str]:
    auc, equal = found["length_auc"], found["conditional_length_auc"]
    if auc is None or auc["value"] is None:
        return [f"{name} implies no preference pair."]
    if not flagged(auc):
        text = f"The pairs of {name} show no strong preference for length ({_printed(auc)} longer)."
    else:
        text = f"The pairs of {name} prefer the {'longer' if auc['value'] > 0.5 else 'shorter'} answer"
        text += f" ({_printed(auc)} longer)"
        if flagged(equal):
            text += f", also between two equally right ones ({_printed(equal)}): expect training to change the length"
        text += "."
    style = [f for f, row in found["style"].items() if row["flagged"] and f not in ("chars", "words")]
    return [text, f"They also differ in {', '.join(style)}."] if style else [text]


def _printed(share: Mapping[str, Any] | None) -> str:
    if share is None or share["value"] is None:
        return "n/a"
    if share["low"] is None:
        return f"{100 * share['value']:.1f}"
    return f"{100 * share['value']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _mixed(first: float | None, second: float | None, alpha: float) -> float | None:
    """The weighted sum; a part with weight 0 is not needed, and without one that is there is no value."""
    parts = [(weight, part) for weight, part in ((1 - alpha, first), (alpha, second)) if weight != 0]
    return math.fsum(weight * (math.nan if part is None else part) for weight, part in parts)


def _ranked(ordered: Iterable[Where], rewards: Rewards) -> dict[str, list[tuple[int, float]]]:
    out: dict[str, list[tuple[int, float]]] = {}
    for item, sample in ordered:
        value = _finite(rewards.get((item, sample)))
        if value is not None:
            out.setdefault(item, []).append((sample, value))
    return out


def _by_item(judged: Mapping[Where, float]) -> dict[str, set[float]]:
    out: dict[str, set[float]] = {}
    for (item, _), value in judged.items():
        out.setdefault(item, set()).add(value)
    return out


def _orders(ranked: Ranked, judged: Mapping[Where, float]) -> dict[tuple[str, int, int], float]:
    """Per pair (prompt, right sample, wrong sample): 1 if the right one is higher, 1/2 if neither is."""
    out = {}
    for item, rows in ranked.items():
        right = [row for row in rows if judged.get((item, row[0])) == 1]
        wrong = [row for row in rows if judged.get((item, row[0])) == 0]
        for a, above in right:
            for b, below in wrong:
                out[item, a, b] = (above > below) + (above == below) / 2
    return out


def _tops(ranked: Ranked, judged: Mapping[Where, float]) -> dict[tuple[str], float]:
    """Per prompt the share of right answers among those with the highest reward."""
    out = {}
    for item, rows in ranked.items():
        known = [(value, judged[item, sample]) for sample, value in rows if (item, sample) in judged]
        if known:
            best = max(value for value, _ in known)
            top = [right for value, right in known if value == best]
            out[item,] = sum(top) / len(top)
    return out


def _share(values: Mapping[tuple[Any, ...], float] | Sequence[float]) -> dict[str, Any]:
    """A mean in [0, 1] with its interval; keys begin with the prompt, the cluster."""
    clusters = [key[0] for key in values] if isinstance(values, Mapping) else None
    x = list(values.values()) if isinstance(values, Mapping) else list(values)
    estimate = stats.mean(x, clusters, binary=set(x) <= {0.0, 1.0})
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def _implied(
    item: str, rows: Sequence[tuple[int, float]], lengths: Mapping[Where, int], texts: Mapping[Where, str]
) -> tuple[Where, Where] | None:
    """The pair that training would get: highest against lowest, ties to the lower sample (signals.pairs)."""
    by_reward = sorted((-value, sample) for sample, value in rows if lengths[item, sample])
    if len(by_reward) < 2 or by_reward[0][0] == by_reward[-1][0]:
        return None
    best, worst = (item, by_reward[0][1]), (item, by_reward[-1][1])
    return None if texts[best] == texts[worst] else (best, worst)


def _pair_numbers(
    pairs: Sequence[tuple[Where, Where]],
    judged: Mapping[Where, float],
    lengths: Mapping[Where, int],
    features: Mapping[Where, Mapping[str, float]],
) -> dict[str, Any]:
    known = [(a, b) for a, b in pairs if a in judged and b in judged]
    equal = [(a, b) for a, b in known if judged[a] == judged[b]]

    def longer(some: Sequence[tuple[Where, Where]]) -> dict[str, Any]:
        return _share([(lengths[a] > lengths[b]) + (lengths[a] == lengths[b]) / 2 for a, b in some])

    return {
        "n_pairs": len(pairs),
        "chosen_right": _share([judged[a] for a, _ in known]) if judged else None,
        "rejected_right": _share([judged[b] for _, b in known]) if judged else None,
        "length_auc": longer(pairs),
        "length_flagged": flagged(longer(pairs)),
        "conditional_length_auc": longer(equal) if judged else None,
        "style": style_preferences([(features[a], features[b]) for a, b in pairs]),
    }


def _headroom(judged: Mapping[Where, float], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    values: dict[str, list[float]] = {}
    for (item, _), right in judged.items():
        values.setdefault(item, []).append(right)
    shares = [sum(row) / len(row) for row in values.values()]
    first = stats.mean(shares, repeated=True)
    return {
        "pass_at_1": {"value": first.value, "low": first.low, "high": first.high, "n": first.n},
        "pass_at_n": _share([max(row) for row in values.values()]),
        "best_by": {name: row["top_accuracy"] for name, row in found.items()},
    }


def _lead(ranked: Mapping[str, Ranked], judged: Mapping[Where, float]) -> dict[str, Any] | None:
    """The candidate that orders best, and whether it beats the next one: p times the number of others below .05."""
    orders = {name: _orders(by_item, judged) for name, by_item in ranked.items()}
    means = {name: sum(found.values()) / len(found) for name, found in orders.items() if found}
    if not means:
        return None
    best, *others = sorted(means, key=lambda name: (-means[name], name))
    out: dict[str, Any] = {"best": best, "next": None, "difference": None, "low": None, "high": None, "clear": False}
    if not others:
        return out
    shared = [key for key in orders[best] if key in orders[others[0]]]
    gaps = [orders[best][key] - orders[others[0]][key] for key in shared]
    found = stats.paired(gaps, [key[0] for key in shared], repeated=True, check=False)
    clear = found.p is not None and found.p * len(others) < 0.05 and (found.value or 0.0) > 0
    return {**out, "next": others[0], "difference": found.value, "low": found.low, "high": found.high, "clear": clear}
