"""What `proctor plan` prints: every unit of work, what is there already, and what the gates will be able to see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.cells import Cell, Plan, is_done
from harness.power import detectable_difference
from harness.store import Store

DISCORDANCE = 0.15  # share of items on which two related models differ, where nothing is known yet


def describe(plan: Plan, store: Store, folder: Path) -> str:
    """The plan as plain text: cells by kind with rows to do, then the minimum detectable effect of each gate."""
    lines = [f"{plan.experiment.name}: {len(plan.cells)} cells, run folder {folder}", ""]
    width = max((len(cell.label) for cell in plan.cells), default=0)
    for cell in plan.cells:
        lines.append(f"  {cell.ref.kind:<12}{cell.label:<{width}}  {cell.ref.key[:8]}  {_state(cell, store)}")
    done = sum(is_done(cell, store) for cell in plan.cells)
    lines += ["", f"{done} of {len(plan.cells)} cells are done; running fills the others and resumes what is begun."]
    if plan.experiment.gates:
        lines += ["", "What the gates will be able to see (80% power, one-sided 2.5%):", *_gates(plan)]
    return "\n".join(lines)


def _state(cell: Cell, store: Store) -> str:
    if is_done(cell, store):
        return "done"
    rows = store.count(cell.ref)
    if cell.ref.kind == "train":
        return f"begun, {rows} steps" if rows else f"{len(cell.items):,} prompts"
    if not cell.rows:
        return f"{len(cell.items):,} prompts"
    return f"{rows:,} of {cell.rows:,} rows" if rows else f"{cell.rows:,} rows"


def _gates(plan: Plan) -> Sequence[str]:
    lines = []
    for gate in plan.experiment.gates:
        loaded = plan.suites.get(gate.metric.partition("/")[0])
        against = (
            f" than {gate.than or plan.experiment.compare.baseline}" if gate.rule in ("better", "not_worse") else ""
        )
        text = f"  {gate.student} {gate.rule}{against} on {gate.metric}"
        if loaded is not None:
            n = len(loaded.items)
            effect = detectable_difference(n, discordance=DISCORDANCE)
            if effect is not None:
                text += f": {100 * effect:.1f} points on {n:,} items, if {DISCORDANCE:.0%} of the items change"
        lines.append(text)
    return lines
