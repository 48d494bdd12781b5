"""Every unit of paid work as a cell with a content key, before anything runs. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import registry, sources
from harness.cells import STAGES, Cell, Examined, ModelUse, Plan
from harness.experiment import Experiment, Model, Rewards, Student
from harness.objective_file import literals_of, params_of, settings_of
from harness.records import Item, ProctorError, Prompt, Sampling, UsageError
from harness.results import Subject
from harness.sources import LoadedSuite, TrainingData
from harness.store import CellRef, Store

ENGINE = "hf"


class Planner:
    """Builds a Plan. Cells that two students share are planned once."""

    def __init__(self, experiment: Experiment, store: Store, near: Path) -> None:
        self.experiment = experiment
        self.store = store
        self.near = near
        self.cells: dict[CellRef, Cell] = {}
        self.hash_cache = store.root / "hashes.json"
        self._data: dict[str, TrainingData] = {}

    def plan(self) -> Plan:
        """Raises ProctorError before any work where something cannot run: missing inputs, unknown parameters."""
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
        for name in self._in_order():
            student = experiment.students[name]
            seeds: list[int | None] = list(experiment.seeds_of(name)) if student.objective else [None]
            for seed in seeds:
                label = name if len(seeds) == 1 else f"{name}@{seed}"
                subjects.append(Subject(label, "student", name, seed, student.objective, student.from_))
                if student.objective is not None and seed is not None:
                    trained[label] = self.train(name, student, seed, models)
                    models[label] = self.own(label, trained[label], models["base"])
                elif student.model is not None:
                    models[label] = self.outside(label, student.model)
                else:
                    raise UsageError(
                        f"students.{name}: score files of outputs with `proctor score`, not in an experiment"
                    )
        examined = [
            self.examine(subject, models[subject.label], suite)
            for suite in suites.values()
            for subject in self._table_order(subjects)
        ]
        ordered = sorted(self.cells.values(), key=self._rank)
        return Plan(
            experiment=experiment,
            cells=tuple(_topological(ordered)),
            subjects=tuple(self._table_order(subjects)),
            suites=suites,
            examined=tuple(examined),
            trained=trained,
            models=models,
        )

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

    @staticmethod
    def _rank(cell: Cell) -> tuple[int, str]:
        return list(STAGES).index(cell.ref.kind), cell.model.label if cell.model else ""

    def outside(self, label: str, model: Model) -> ModelUse:
        """A model from a folder or the hub, known by the content of its files."""
        folder = sources.model_folder(model, self.near)
        template = model.template
        if template not in ("chat", "plain", "alpaca"):
            template = str(self.near / template)
            if not Path(template).is_file():
                raise UsageError(
                    f"the template {model.template!r} of {label} is neither chat, plain, alpaca nor a file"
                )
        identity = {"content": sources.folder_hash(folder, self.hash_cache)}
        return ModelUse(label, identity, folder, None, model.dtype, template)

    def own(self, label: str, train: CellRef, base: ModelUse) -> ModelUse:
        """A student trained here, known by its derivation: the key of its train cell."""
        return ModelUse(label, {"train": train.key}, None, train, base.dtype, base.template)

    def add(self, kind: str, spec: Mapping[str, Any], **facts: Any) -> CellRef:
        """Plan a cell unless it is planned already; one that is asked for twice covers the items of both."""
        ref = CellRef.of(kind, spec)
        if ref not in self.cells or len(facts["items"]) > len(self.cells[ref].items):
            self.cells[ref] = Cell(ref=ref, spec=spec, **facts)
        return ref

    def generate(
        self, kind: str, label: str, model: ModelUse, items: Sequence[Item], prompts: str, sampling: Sampling
    ) -> CellRef:
        """Answers of a model to items. Samples are keyed apart, so more of them, or more items, extend the cell."""
        keyed: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "max_new_tokens": sampling.max_new_tokens,
            "stop": list(sampling.stop),
        }
        if sampling.temperature > 0:
            keyed["seed"] = sampling.seed
        spec = {**model.keyed(), "prompts": prompts, "sampling": keyed, "engine": ENGINE, "code": _engine_version()}
        if sampling.temperature > 0 and sampling.n > 1:
            spec["samples"] = sampling.n
        asked = [Prompt(item.id, item.messages, sample) for item in items for sample in range(sampling.n)]
        return self.add(
            kind,
            spec,
            label=label,
            items=tuple(item.id for item in items),
            rows=len(asked),
            needs=(model.train,) if model.train else (),
            work={"prompts": asked, "sampling": sampling},
            model=model,
        )

    def log_probs(self, label: str, model: ModelUse, of: CellRef) -> CellRef:
        """Per-token log-probabilities that a model gives to the answers of another cell."""
        source = self.cells[of]
        return self.add(
            "log_probs",
            {**model.keyed(), "of": of.key, "engine": ENGINE, "code": _engine_version()},
            label=label,
            items=source.items,
            rows=source.rows,
            needs=(of, *((model.train,) if model.train else ())),
            work={"of": of, "prompts": source.work["prompts"]},
            model=model,
        )

    def rewards(
        self, label: str, rewards: Rewards, rollouts: CellRef, models: Mapping[str, ModelUse], data: TrainingData
    ) -> CellRef:
        """A scalar for every rollout, from the teacher's log-probabilities or from the training split's truth."""
        source = self.cells[rollouts]
        facts: dict[str, Any] = {"label": label, "items": source.items, "rows": source.rows}
        if rewards.kind == "likelihood":
            if "teacher" not in models:
                raise UsageError("rewards of kind 'likelihood' need models.teacher")
            log_probs = self.log_probs("teacher", models["teacher"], rollouts)
            return self.add(
                "rewards",
                {"reward": "likelihood", "log_probs": log_probs.key},
                needs=(log_probs,),
                work={"of": log_probs},
                **facts,
            )
        if rewards.kind == "truth":
            source_suite = self.experiment.data.train.suite if self.experiment.data.train else None
            if source_suite is None:
                raise UsageError("rewards of kind 'truth' need training prompts from a suite, which knows the truth")
            loaded = sources.load_suite(source_suite, None, self.near)
            spec = {
                "reward": "truth",
                "rollouts": rollouts.key,
                "suite": loaded.suite.version,
                "code": loaded.code,
                "data": data.content,
            }
            work = {"of": rollouts, "metric": loaded.suite.metrics[loaded.suite.primary], "examples": data.examples}
            return self.add("rewards", spec, needs=(rollouts,), work=work, **facts)
        raise UsageError(f"rewards of kind {rewards.kind!r} are not available; choose likelihood or truth")

    def data(self) -> TrainingData:
        """The training prompts of the experiment."""
        source = self.experiment.data.train
        if source is None:
            raise UsageError("students are trained, so data.train must say on what")
        if "train" not in self._data:
            self._data["train"] = sources.load_training_data(source, self.near)
        return self._data["train"]

    def train(self, name: str, student: Student, seed: int, models: Mapping[str, ModelUse]) -> CellRef:
        """A student at one seed, with the cells of everything it learns from."""
        if student.lora is not None:
            raise UsageError(f"students.{name}.lora: adapters are not available")
        file = registry.find("objective", student.objective or "", self.near)
        literals = literals_of(file)
        params = params_of(name, file, literals, student)
        settings = settings_of(name, literals, student.training)
        data = self.data()
        start = self._start(name, student, seed, models)
        signal, needs, work = self._signals(name, file, literals["NEEDS"], student, start, models, data)
        keyed_settings = {
            key: value
            for key, value in settings.items()
            if key not in ("micro_batch", "save_steps", "gradient_checkpointing")
        }
        spec = {
            "objective": file.stem,
            "version": str(literals["VERSION"]),
            "code": registry.code_hash(file, _adapter_file()),
            "params": params,
            "training": keyed_settings,
            "seed": seed,
            "init": start.keyed(),
            "data": {"content": data.content, "limit": len(data.examples), **signal},
        }
        return self.add(
            "train",
            spec,
            label=f"{name}, seed {seed}",
            items=tuple(example.item.id for example in data.examples),
            rows=0,
            needs=(*needs, *((start.train,) if start.train else ())),
            work={
                **work,
                "objective": file,
                "params": params,
                "settings": settings,
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

    def _signals(
        self,
        name: str,
        file: Path,
        needs: Sequence[str],
        student: Student,
        start: ModelUse,
        models: Mapping[str, ModelUse],
        data: TrainingData,
    ) -> tuple[dict[str, Any], list[CellRef], dict[str, Any]]:
        """The cells behind NEEDS: what enters the key, what must be there first, what the stage reads."""
        keyed: dict[str, Any] = {}
        cells: list[CellRef] = []
        work: dict[str, Any] = {}
        items = [example.item for example in data.examples]
        if "targets" in needs:
            keyed["targets"], cell = self._targets(name, student, models, data)
            if cell is not None:
                cells.append(cell)
            work["targets"] = cell
        if "pairs" in needs and data.has_pairs:
            keyed["pairs"] = "data"
            work["pairs"] = None
            if "reference" in needs:
                given = self.generate_given(start, data)
                keyed["reference"] = given.key
                cells.append(given)
                work["reference"] = given
            return keyed, cells, work
        if "pairs" in needs:
            rollouts = self.generate(
                "rollouts", f"rollouts of {start.label}", start, items, data.content, self._rollout_sampling()
            )
            rewards = self.rewards("rewards", student.rewards or self.experiment.rewards, rollouts, models, data)
            teacher = models["teacher"].identity if "teacher" in models else {}
            kind = (student.rewards or self.experiment.rewards).kind
            pairs = self.add(
                "pairs",
                {
                    "rule": "best_against_worst",
                    "rollouts": rollouts.key,
                    "rewards": rewards.key,
                    "code": _pairs_version(),
                },
                label="pairs",
                items=tuple(item.id for item in items),
                rows=0,
                needs=(rollouts, rewards),
                work={
                    "rollouts": rollouts,
                    "rewards": rewards,
                    "source": f"{kind}:{next(iter(teacher.values()), '')[:12]}",
                },
            )
            keyed["pairs"] = pairs.key
            cells.append(pairs)
            work["pairs"], work["rollouts"] = pairs, rollouts
            if "reference" in needs:
                reference = self.log_probs(start.label, start, rollouts)
                keyed["reference"] = reference.key
                cells.append(reference)
                work["reference"] = reference
        unknown = set(needs) - {"targets", "pairs", "reference"}
        if unknown:
            raise UsageError(f"{file}: no signal is known for NEEDS {', '.join(sorted(unknown))}")
        return keyed, cells, work

    def _targets(
        self, name: str, student: Student, models: Mapping[str, ModelUse], data: TrainingData
    ) -> tuple[str, CellRef | None]:
        if student.targets == "gold":
            without = [example.item.id for example in data.examples if not example.item.target]
            if len(without) == len(data.examples):
                raise UsageError(
                    f"students.{name} learns from gold targets, but {data.label} has none: set targets: teacher"
                )
            return "gold", None
        if "teacher" not in models:
            raise UsageError(f"students.{name} has targets: teacher, which needs models.teacher")
        sampling = Sampling(max_new_tokens=self.experiment.rollouts.max_new_tokens)
        items = [example.item for example in data.examples]
        cell = self.generate("responses", "teacher's answers", models["teacher"], items, data.content, sampling)
        return cell.key, cell

    def generate_given(self, model: ModelUse, data: TrainingData) -> CellRef:
        """Log-probabilities that a model gives to the chosen (sample 0) and rejected (1) answers of the data."""
        prompts = [Prompt(e.item.id, e.item.messages, side) for e in data.examples for side in (0, 1)]
        return self.add(
            "log_probs",
            {**model.keyed(), "of": data.content, "engine": ENGINE, "code": _engine_version()},
            label=model.label,
            items=tuple(example.item.id for example in data.examples),
            rows=len(prompts),
            needs=(model.train,) if model.train else (),
            work={"of": None, "prompts": prompts, "data": data},
            model=model,
        )

    def _rollout_sampling(self) -> Sampling:
        rollouts = self.experiment.rollouts
        if rollouts.n < 2:
            raise UsageError("rollouts.n must be at least 2: a pair needs two answers")
        return Sampling(
            temperature=rollouts.temperature,
            top_p=rollouts.top_p,
            top_k=rollouts.top_k,
            max_new_tokens=rollouts.max_new_tokens,
            n=rollouts.n,
            seed=self.experiment.seed,
        )

    def examine(self, subject: Subject, model: ModelUse, suite: LoadedSuite) -> Examined:
        """One subject's answers to one suite, and their scores."""
        use = self.experiment.suites[suite.name]
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
        generations = self.generate(
            "generations", f"{subject.label} on {suite.name}", model, suite.items, suite.prompts, sampling
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
            label=f"{subject.label} on {suite.name}",
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


def _engine_version() -> str:
    return str(registry.literals(registry.find("engine", ENGINE))["VERSION"])


def _adapter_file() -> Path:
    folder = registry.package_folder("harness.training")
    if folder is None:
        raise ProctorError("the package harness.training is missing from this installation")
    return folder / "adapter.py"


def _pairs_version() -> str:
    folder = registry.package_folder("harness.signals")
    return registry.code_hash(folder / "pairs.py") if folder is not None else ""
