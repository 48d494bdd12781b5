"""The command line. A command imports its stage when it runs: `proctor --help` loads neither torch nor pydantic."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness import __version__
from harness.records import ProctorError, UsageError

# What `compare --json` prints of a Comparison, for scripts.
COMPARISON_KEYS = (
    *("suite", "metric", "a", "b", "difference", "low", "high", "p", "p_adjusted", "adjustment"),
    *("n_items", "n_seeds", "claim"),
)
EXIT_OK, EXIT_ERROR, EXIT_USAGE, EXIT_FAILED, EXIT_INCONCLUSIVE = 0, 1, 2, 3, 4


def parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    top = argparse.ArgumentParser(
        prog="proctor",
        description="Train students with every objective, examine them, and say with error bars which one to ship.",
        epilog="Start with `proctor run quickstart`. Running a command again resumes it.",
    )
    top.add_argument("--version", action="version", version=f"proctor {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, help: str, action: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help)
        made.set_defaults(action=action)
        made.add_argument(
            "--runs", default="runs", metavar="DIR", help="where runs and their cells live (default: runs)"
        )
        return made

    for name, help, action in (
        ("plan", "show every unit of work and the detectable effects, before anything runs", _plan),
        ("run", "train, examine, compare; running again resumes", _run),
    ):
        made = command(name, help, action)
        made.add_argument("experiment", help="an experiment file, or a shipped one's name (quickstart)")
        made.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override a key of the file")
        made.add_argument("--limit", type=int, metavar="N", help="only the first N items of every suite")
        made.add_argument("--seeds", type=int, metavar="N", help="train every student with N seeds")
        made.add_argument(
            "--gate", action="store_true", help="exit with the gates' outcome: 0 pass, 3 failed, 4 inconclusive"
        )
    made = command("report", "write a run's report again from its rows", _report)
    made.add_argument("run", help="a run's folder, or an experiment's name (its newest run)")
    made = command("gate", "decide a run's gates: exit 0 pass, 3 failed, 4 inconclusive", _gate)
    made.add_argument("run")
    made.add_argument("--json", action="store_true", help="one line of JSON on stdout")
    made = command("compare", "paired comparison of a run's students, or of two files of outputs", _compare)
    made.add_argument("a", help="RUN, RUN:STUDENT, or a jsonl file of outputs")
    made.add_argument("b", nargs="?", help="what A is compared with; differences are B minus A")
    made.add_argument("--suite", help="the suite that files of outputs answer, or the only one to show of a run")
    made.add_argument("--data", metavar="PATH", help="the suite's data file")
    made.add_argument("--partial", action="store_true", help="compare the items that both sides have")
    made.add_argument("--json", action="store_true", help="one line of JSON on stdout")
    made = command("score", "score a file of outputs on a suite's ground truth", _score)
    made.add_argument("suite", help="a suite's name, or a ./file.py")
    made.add_argument("file", help="jsonl rows {id or prompt, output}")
    made.add_argument("--partial", action="store_true", help="score only the items that the file has")
    made.add_argument("--data", metavar="PATH", help="the suite's data file")
    made.add_argument("--json", action="store_true", help="one line of JSON on stdout")
    made = command("show", "one item: prompt, reference, every answer, its scores and verdicts", _show)
    made.add_argument("run", help="a run's folder, or an experiment's name (its newest run)")
    made.add_argument("suite")
    made.add_argument("item", help="the item's id, for instance test-00012")
    made.add_argument("--json", action="store_true", help="one line of JSON on stdout")
    made = command("list", "list the plugins of a kind, the shipped experiments, or the runs", _list)
    made.add_argument(
        "kind",
        nargs="?",
        default="all",
        help="suites, judges, objectives, probes, engines, sections, experiments, runs",
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code. Errors the user can act on are one message on stderr, never a traceback."""
    options = parser().parse_args(arguments)
    try:
        return int(options.action(options))
    except UsageError as error:
        print(f"proctor: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ProctorError as error:
        print(f"proctor: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("proctor: stopped. Finished rows are kept: run the same command again to resume.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def _prepared(options: argparse.Namespace) -> tuple[Any, Any, Path]:
    from harness import experiment_file, run

    path = experiment_file.locate(options.experiment)
    near = Path.cwd() if path in experiment_file.shipped().values() else path.resolve().parent
    experiment = run.limited(experiment_file.load(path, options.set, options.seeds), options.limit)
    plan, store = run.make_plan(experiment, Path(options.runs), near)
    return plan, store, run.run_folder(plan, Path(options.runs))


def _plan(options: argparse.Namespace) -> int:
    from harness.collect_examination import signal
    from harness.run import manifest
    from harness.signals.trust import lines
    from reports.plan import describe

    plan, store, folder = _prepared(options)
    print(describe(plan, store, folder))
    found = signal(manifest(plan), store)
    if found is not None:
        print()
        print(lines(found))
    return EXIT_OK


def _run(options: argparse.Namespace) -> int:
    from harness import run
    from harness.collect import collect
    from harness.progress import Progress
    from reports.page import write_report
    from reports.tables import console

    plan, store, folder = _prepared(options)
    if options.gate and not plan.experiment.gates:
        raise UsageError(f"{options.experiment} has no gates, so --gate has nothing to decide")
    with Progress() as progress:
        run.execute(plan, store, folder, progress)
        while plan.pending:  # a learning rate was searched: now that dev has answered, the rest can be planned
            plan, store, folder = _prepared(options)
            run.execute(plan, store, folder, progress)
    results = collect(folder, store)
    paths = write_report(results, folder / "report")
    _write_gates(results, folder)
    print(console(results))
    print(f"gate: {results.outcome or 'none'}")
    print(paths["html"])
    return _exit_code(results.outcome) if options.gate else EXIT_OK


def _exit_code(outcome: str | None) -> int:
    return {"pass": EXIT_OK, "fail": EXIT_FAILED, "inconclusive": EXIT_INCONCLUSIVE}.get(outcome or "", EXIT_ERROR)


def _results(options: argparse.Namespace, name: str) -> tuple[Any, Path]:
    from harness import run
    from harness.collect import collect
    from harness.store import Store

    root = Path(options.runs)
    folder = run.find_run(name, root)
    return collect(folder, Store(folder.parent)), folder


def _report(options: argparse.Namespace) -> int:
    from reports.page import write_report

    results, folder = _results(options, options.run)
    print(write_report(results, folder / "report")["html"])
    return EXIT_OK


def _write_gates(results: Any, folder: Path) -> dict[str, Any]:
    from harness.store import write_atomic

    found = {
        "outcome": results.outcome,
        "gates": [
            {"rule": gate.rule, "metric": gate.metric, "outcome": gate.outcome, "reason": gate.reason}
            | {"student": gate.student, "level": gate.level, "needed": gate.needed}
            for gate in results.gates
        ],
    }
    write_atomic(folder / "gate.json", json.dumps(found, indent=1) + "\n")
    return found


def _gate(options: argparse.Namespace) -> int:
    results, folder = _results(options, options.run)
    if not results.gates:
        raise ProctorError(f"the run {folder} has no gates. Add `gates:` to its experiment and run it again.")
    found = _write_gates(results, folder)
    if options.json:
        print(json.dumps(found))
    else:
        for gate in results.gates:
            print(f"{gate.outcome:<13}{'(warn) ' if gate.level == 'warn' else ''}{gate.reason}")
        print(f"gate: {results.outcome}")
    return _exit_code(results.outcome)


def _compare(options: argparse.Namespace) -> int:
    from harness.compare_command import comparisons
    from reports.tables import comparison_lines

    rows = comparisons(
        options.a, options.b, Path(options.runs), suite=options.suite, data=options.data, partial=options.partial
    )
    if options.json:
        print(json.dumps({"rows": [{name: getattr(row, name) for name in COMPARISON_KEYS} for row in rows]}))
    else:
        print(comparison_lines(rows))
    return EXIT_OK


def _score(options: argparse.Namespace) -> int:
    from harness.sources import load_suite
    from harness.stages.score import score_outputs

    loaded = load_suite(options.suite, None, Path.cwd(), options.data)
    found = score_outputs(loaded.suite, options.file, options.partial, name=loaded.name)
    if options.json:
        print(json.dumps(found, allow_nan=False))
        return EXIT_OK
    print(f"{found['suite']} version {found['version']}: {found['coverage']:.1%} of {found['n_items']:,} items")
    for name, measure in found["measures"].items():
        unscored = f", {measure['unscored']} unscored" if measure["unscored"] else ""
        print(f"  {name:<16}{_percent(measure)}  n = {measure['n']:,}{unscored}")
    return EXIT_OK


def _percent(measure: dict[str, Any]) -> str:
    if measure["value"] is None:
        return "n/a"
    if measure["low"] is None:
        return f"{100 * measure['value']:5.1f}%"
    return f"{100 * measure['value']:5.1f}% [{100 * measure['low']:.1f}, {100 * measure['high']:.1f}]"


def _show(options: argparse.Namespace) -> int:
    from harness.show import as_text, show

    found = show(options.run, options.suite, options.item, Path(options.runs))
    print(json.dumps(found) if options.json else as_text(found))
    return EXIT_OK


def _list(options: argparse.Namespace) -> int:
    from harness import registry
    from harness.run import runs_under

    kinds = {
        "suites": "suite", "probes": "probe", "judges": "judge",
        "objectives": "objective", "engines": "engine", "sections": "section",
    }  # fmt: skip
    wanted = options.kind
    if wanted not in (*kinds, "experiments", "runs", "all"):
        raise UsageError(f"there is no kind {wanted!r}. Known: {', '.join(kinds)}, experiments, runs")
    for plural, kind in kinds.items():
        if wanted in (plural, "all"):
            print(f"{plural}: {', '.join(registry.names(kind)) or 'none'}")
    if wanted in ("experiments", "all"):
        folder = Path(__file__).parent / "experiments"
        print(f"experiments: {', '.join(sorted(path.stem for path in folder.glob('*.yaml')))}")
    if wanted in ("runs", "all"):
        print(f"runs: {', '.join(runs_under(Path(options.runs))) or 'none'}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
