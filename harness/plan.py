"""Every unit of paid work as a cell with a content key, before anything runs. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import plan_examination, registry, sources
from harness.cell_book import CellBook
from harness.cells import STAGES, Cell, Examined, ModelUse, Plan
from harness.experiment import Search, Student
from harness.objective_file import literals_of, params_of, settings_of
from harness.plan_search import best_rate, dev_scores, dev_suite, with_rate
from harness.plan_signals import for_objective
from harness.records import ProctorError, Sampling, UsageError
from harness.results import Subject
from harness.sources import LoadedSuite
from harness.store import CellRef

# Training settings that split or save the work without changing its result: recorded, never keyed.
RECORDED_ONLY = ("micro_batch", "save_steps", "gradient_checkpointing")


class Planner(CellBook):
    """Builds a Plan. Raises before any work where something cannot run."""

    def plan(self) -> Plan:
        """Every cell of the experiment. UsageError or ProctorError on missing inputs and unknown parameters."""
        experiment = self.experiment
        suites = {name: sources.load_suite(name, use, self.near) for name, use in experiment.suites.items()}
        subjects: list[Subject] = []
        models: dict[str, ModelUse] = {}
        for role in ("base", "teacher"):
            model = getattr(experiment.models, role)
            if model is not None:
                subjects.append(Subject(role, role, role))
                models[role] = self.outside(role, model)
        trained: dict[str, CellRef] = {}
        pending: list[str] = []
        searches: dict[str, dict[float, float | None]] = {}
        for name in self._in_order():
            student = experiment.students[name]
            if student.outputs is not None:
                raise UsageError(f"students.{name}: score files of outputs with `proctor score`, not in an experiment")
            if student.from_ in pending:
                pending.append(name)
                continue
            seeds: list[int | None] = list(experiment.seeds_of(name)) if student.objective else [None]
            if isinstance(student.training.lr, Search):
                searches[name], rate = self._search(name, student, models)
                if rate is None:
                    pending.append(name)
                    continue
                student = with_rate(student, rate)
            for seed in seeds:
                label = name if len(seeds) == 1 else f"{name}@{seed}"
                subjects.append(Subject(label, "student", name, seed, student.objective, student.from_))
                if student.objective is not None and seed is not None:
                    start = self._start(name, student, seed, models)
                    trained[label] = self.train(label, name, student, seed, start, models)
                    models[label] = self.own(label, trained[label], start)
                elif student.model is not None:
                    models[label] = self.outside(label, student.model)
        table = self._table_order(subjects)
        trust = plan_examination.signal(self, models)
        examined = [
            self.examine(subject, models[subject.label], suite) for suite in suites.values() for subject in table
        ]
        complete = not pending
        return Plan(
            experiment=experiment,
            subjects=tuple(table),
            suites=suites,
            examined=tuple(examined),
            trained=trained,
            models=models,
            judged=tuple(plan_examination.judged(self, table, examined, models, suites)) if complete else (),
            probed=tuple(plan_examination.probed(self, table, examined, models, suites)) if complete else (),
            signal=trust,
            searches={name: {f"{rate:g}": score for rate, score in found.items()} for name, found in searches.items()},
            pending=tuple(pending),
            data=self._data.get("train"),
            cells=tuple(_topological(sorted(self.cells.values(), key=_rank))),
        )

    def _search(
        self, name: str, student: Student, models: Mapping[str, ModelUse]
    ) -> tuple[dict[float, float | None], float | None]:
        """The dev score of every rate of a search, tried with the first seed, and the chosen one (None: not yet)."""
        search = student.training.lr
        if not isinstance(search, Search):
            raise TypeError("the student has one learning rate")
        dev = dev_suite(self, name)
        seed = self.experiment.seeds_of(name)[0]
        start = self._start(name, student, seed, models)
        scores = {}
        for rate in search.search:
            label = f"{name} at {rate:g}"
            ref = self.train(label, name, with_rate(student, rate), seed, start, models)
            model = self.own(label, ref, start)
            scores[rate] = self.examine(Subject(label, "student", name, seed), model, dev).scores
        found = dev_scores(self, scores)
        return found, best_rate(search, found)

    def _in_order(self) -> list[str]:
        """Students so that each stands behind the one it starts from."""
        ordered: list[str] = []
        waiting = list(self.experiment.students)
        while waiting:
            for name in waiting:
                parent = self.experiment.students[name].from_
                if parent is None or parent in ordered:
                    ordered.append(name)
                    waiting.remove(name)
                    break
        return ordered

    def _table_order(self, subjects: Sequence[Subject]) -> list[Subject]:
        names = ["base", "teacher", *self.experiment.students]
        return sorted(subjects, key=lambda subject: (names.index(subject.student), subject.seed or 0))

    def train(
        self, label: str, name: str, student: Student, seed: int, start: ModelUse, models: Mapping[str, ModelUse]
    ) -> CellRef:
        """A student at one seed, with the cells of everything it learns from."""
        file = registry.find("objective", student.objective or "", self.near)
        literals = literals_of(file)
        params = params_of(name, file, literals, student)
        settings = settings_of(name, literals, student.training)
        data = self.data()
        signals = for_objective(self, name, file, literals["NEEDS"], student, start, models)
        # the released PAD code mixes the groups of a micro-batch, so there its size decides the result
        mixing = params.get("recipe") == "released_code"
        recorded = [key for key in RECORDED_ONLY if key != "micro_batch" or not mixing]
        lora = student.lora.model_dump() if student.lora is not None else None
        spec = {
            "objective": file.stem,
            "version": str(literals["VERSION"]),
            "code": registry.code_hash(file, _adapter_file()),
            "params": params,
            "training": {key: value for key, value in settings.items() if key not in recorded},
            "lora": lora,
            "seed": seed,
            "init": start.keyed(),
            "data": {"content": data.content, "limit": len(data.examples), **signals.keyed},
        }
        return self.add(
            "train",
            spec,
            label=f"{name}, seed {seed}",
            subject=label,
            items=tuple(example.item.id for example in data.examples),
            rows=0,
            needs=(*signals.cells, *((start.train,) if start.train else ())),
            work={
                **signals.work,
                "objective": file,
                "params": params,
                "settings": settings,
                "lora": lora,
                "seed": seed,
                "needs": tuple(literals["NEEDS"]),
                "data": data,
            },
            model=start,
        )

    def _start(self, name: str, student: Student, seed: int, models: Mapping[str, ModelUse]) -> ModelUse:
        """What a student starts from, which is also its reference: seed s of `from`, or its only one, else the base."""
        if student.from_ is None:
            return models["base"]
        for label in (f"{student.from_}@{seed}", student.from_):
            if label in models:
                return models[label]
        raise UsageError(f"students.{name}: students.{student.from_} has no seed {seed} to start from")

    def examine(self, subject: Subject, model: ModelUse, suite: LoadedSuite) -> Examined:
        """One subject's answers to one suite, and their scores."""
        use = self.experiment.suites.get(suite.name)
        base = suite.suite.sampling
        sampling = Sampling(
            temperature=base.temperature if use is None or use.temperature is None else use.temperature,
            top_p=base.top_p,
            top_k=base.top_k,
            max_new_tokens=base.max_new_tokens if use is None or use.max_new_tokens is None else use.max_new_tokens,
            n=base.n if use is None or use.samples == 1 else use.samples,
            seed=self.experiment.seed,
            stop=base.stop,
        )
        if sampling.n > 1 and sampling.temperature == 0:
            raise UsageError(
                f"suites.{suite.name}: {sampling.n} samples at temperature 0 are all the same: set temperature"
            )
        label = f"{subject.label} on {suite.name}"
        generations = self.generate(
            "generations", label, model, suite.items, suite.prompts, sampling, subject=subject.label
        )
        scores = self.add(
            "scores",
            {
                "generations": generations.key,
                "suite": suite.name,
                "version": suite.suite.version,
                "code": suite.code,
                "targets": suite.targets,
            },
            label=label,
            subject=subject.label,
            items=tuple(item.id for item in suite.items),
            rows=self.cells[generations].rows * len(suite.suite.metrics),
            needs=(generations,),
            work={"of": generations, "suite": suite},
        )
        return Examined(subject, suite.name, generations, scores)


def _topological(cells: Sequence[Cell]) -> list[Cell]:
    """Cells so that each stands behind what it needs; otherwise in the order given."""
    placed: dict[CellRef, Cell] = {}
    waiting = list(cells)
    while waiting:
        ready = next(cell for cell in waiting if all(need in placed for need in cell.needs))
        placed[ready.ref] = ready
        waiting.remove(ready)
    return list(placed.values())


def _rank(cell: Cell) -> tuple[float, str]:
    place: float = list(STAGES).index(cell.ref.kind)
    if "among" in cell.work:  # a judge's verdicts on rollouts tell of the signal, before anything is trained
        place = list(STAGES).index("train") - 0.5
    return place, cell.model.label if cell.model else ""


def _adapter_file() -> Path:
    folder = registry.package_folder("harness.training")
    if folder is None:
        raise ProctorError("the package harness.training is missing from this installation")
    return folder / "adapter.py"
