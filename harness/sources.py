"""What comes from outside: suites, training data, model folders; each with the hash of its content."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import registry
from harness.experiment import DataSource, Model, SuiteUse
from harness.jsonl import read_jsonl
from harness.records import Item, Message, ProctorError, Suite, UsageError
from harness.store import digest, write_atomic


@dataclass(frozen=True, slots=True)
class LoadedSuite:
    """A suite with its plugin's identity. `prompts` is the hash of what engines see, `targets` of what scorers add."""

    name: str
    suite: Suite
    code: str
    prompts: str
    targets: str
    limit: int | None = None

    @property
    def items(self) -> tuple[Item, ...]:
        """The first `limit` items."""
        return self.suite.items[: self.limit]


@dataclass(frozen=True, slots=True)
class Example:
    """A training prompt with what the data says of it. `line` is its 1-based line in a file, None from a suite."""

    item: Item
    line: int | None = None
    chosen: str | None = None
    rejected: str | None = None
    source: str | None = None
    basis: str | None = None


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Training prompts: their hash, the examples within the limit, and what was dropped, by reason."""

    label: str
    content: str
    examples: tuple[Example, ...]
    dropped: Mapping[str, int]
    path: Path | None = None

    @property
    def has_pairs(self) -> bool:
        """True where every example has a chosen and a rejected answer."""
        return bool(self.examples) and all(e.chosen is not None and e.rejected is not None for e in self.examples)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the prompts, in order."""
        return tuple(example.item.id for example in self.examples)

    def where(self, item: str) -> str | None:
        """`file:line` of an item, None where it came from no file."""
        lines = (example.line for example in self.examples if example.item.id == item)
        line = next(lines, None)
        return f"{self.path}:{line}" if self.path is not None and line is not None else None

    def first(self, count: int) -> TrainingData:
        """The same data with only its first prompts."""
        return dataclasses.replace(self, examples=self.examples[:count])


def _message_values(item: Item) -> list[list[str]]:
    return [[message.role, message.content] for message in item.messages]


def prompts_hash(items: tuple[Item, ...]) -> str:
    """Hash of everything that an engine sees of the items."""
    return digest(
        [
            [
                i.id,
                _message_values(i),
                list(i.turns),
                list(i.choices),
                dataclasses.asdict(i.sampling) if i.sampling else 0,
            ]
            for i in items
        ]
    )


def targets_hash(items: tuple[Item, ...]) -> str:
    """Hash of what scoring and statistics add: targets, clusters, tags."""
    return digest([[i.id, i.target, i.cluster, list(i.tags)] for i in items])


def load_suite(name: str, use: SuiteUse | None, near: Path | None = None, data: str | None = None) -> LoadedSuite:
    """Load a suite plugin with its parameters. Raises ProctorError on unknown parameters and duplicate item ids."""
    use = use or SuiteUse()
    file = registry.find("suite", use.suite or name, near)
    module = registry.load(file)
    build = getattr(module, "suite", None)
    if not callable(build):
        raise ProctorError(f"{file}: a suite file defines `suite(**params) -> Suite`")
    params = use.params
    if data is not None and "path" in inspect.signature(build).parameters:
        params["path"] = data
    accepted = inspect.signature(build).parameters
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted.values()):
        for key in params:
            if key not in accepted:
                raise UsageError(
                    f"suite {name} has no parameter {key!r}. It takes: limit, samples, temperature, max_new_tokens, "
                    f"{', '.join(accepted)}"
                )
    if "path" in params and near is not None and params["path"] and not Path(params["path"]).is_absolute():
        params["path"] = str(near / params["path"]) if (near / params["path"]).exists() else params["path"]
    suite: Suite = build(**params)
    twice = [identifier for identifier, count in Counter(item.id for item in suite.items).items() if count > 1]
    if twice:
        raise ProctorError(f"{file}: suite {name} has {len(twice)} duplicate item ids, the first is {twice[0]!r}")
    if suite.primary not in suite.metrics:
        raise ProctorError(f"{file}: the primary metric {suite.primary!r} is not among {', '.join(suite.metrics)}")
    return LoadedSuite(
        name=name,
        suite=suite,
        code=registry.code_hash(file),
        prompts=prompts_hash(suite.items),
        targets=targets_hash(suite.items),
        limit=use.limit,
    )


def load_training_data(source: DataSource, near: Path | None = None) -> TrainingData:
    """The prompts that students learn from, of a suite's split or of a jsonl file (see `_example`)."""
    if source.suite is not None:
        loaded = load_suite(source.suite, SuiteUse.model_validate({"limit": source.limit, "split": source.split}), near)
        examples = tuple(Example(item) for item in loaded.items)
        return TrainingData(f"{loaded.name}/{source.split}", digest([loaded.prompts, loaded.targets]), examples, {})
    if source.hub is not None:
        raise UsageError(
            f"data.hub {source.hub}: hub data sets are read from local files here: save it as jsonl and give `path`"
        )
    path = Path(source.path or "")
    if near is not None and not path.is_absolute():
        path = near / path
    found: list[Example] = []
    dropped: Counter[str] = Counter()
    seen: dict[str, int] = {}
    for line, row in read_jsonl(path):
        example = _example(row, source.columns, path, line)
        if example.item.id in seen:
            raise ProctorError(
                f"{path}:{line}: the id {example.item.id!r} stands already in line {seen[example.item.id]}"
            )
        seen[example.item.id] = line
        if example.item.target == "" or example.chosen == "" or example.rejected == "":
            dropped["empty target"] += 1
            continue
        found.append(example)
    if not found:
        raise ProctorError(f"{path}: no usable training row ({sum(dropped.values())} with an empty target)")
    examples = tuple(found[: source.limit])
    content = digest(
        [prompts_hash(tuple(e.item for e in found)), [[e.item.target, e.chosen, e.rejected] for e in found]]
    )
    return TrainingData(path.name, content, examples, dict(dropped), path)


def _example(row: Mapping[str, Any], columns: Mapping[str, str], path: Path, line: int) -> Example:
    """A row {prompt or messages, [target], [chosen, rejected], [id]}; texts, or conversations as lists of messages."""

    def get(name: str) -> Any:
        return row.get(columns.get(name, name))

    prompt = get("messages") if get("messages") is not None else get("prompt")
    if prompt is None:
        wanted = columns.get("prompt", "prompt")
        raise ProctorError(
            f"{path}:{line}: no column {wanted!r} (this row has: {', '.join(row)}). Rename with "
            "`columns: {prompt: THEIR_NAME}` in the experiment's data section."
        )
    messages = _messages(prompt, path, line, "prompt")
    if messages[-1].role == "assistant":
        raise ProctorError(f"{path}:{line}: the prompt ends with an assistant message; give that as target or chosen")
    pair = [_answer(get(name), path, line, name) for name in ("chosen", "rejected")]
    if (pair[0] is None) != (pair[1] is None):
        raise ProctorError(f"{path}:{line}: a preference has both `chosen` and `rejected`; this row has only one")
    identifier = get("id")
    return Example(
        item=Item(
            id=str(identifier) if identifier is not None else str(line - 1),
            messages=messages,
            target=_answer(get("target"), path, line, "target"),
        ),
        line=line,
        chosen=pair[0],
        rejected=pair[1],
        source=get("preference_source"),
        basis=get("preference_basis"),
    )


def _messages(value: Any, path: Path, line: int, column: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message("user", value),)
    if (
        isinstance(value, list)
        and value
        and all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in value)
    ):
        return tuple(Message(str(m["role"]), str(m["content"])) for m in value)
    raise ProctorError(f"{path}:{line}: {column!r} is neither a text nor a list of {{role, content}} messages")


def _answer(value: Any, path: Path, line: int, column: str) -> str | None:
    """The answer's text; of a conversation, its last message. A target that is no text trains nothing: it is empty."""
    if value is None:
        return None
    if isinstance(value, list) and value:
        return _messages(value, path, line, column)[-1].content
    return value if isinstance(value, str) else ""


def file_hash(path: Path, cache: Path | None = None) -> str:
    """SHA-256 of a file's content; remembered by path, size and mtime in `cache` (a JSON file)."""
    status = path.stat()
    stamp = [str(path.resolve()), status.st_size, status.st_mtime_ns]
    known: dict[str, Any] = {}
    if cache is not None and cache.is_file():
        try:
            known = json.loads(cache.read_bytes())
        except ValueError:
            known = {}
    entry = known.get(str(stamp[0]))
    if isinstance(entry, list) and entry[:2] == stamp[1:]:
        return str(entry[2])
    value = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value.update(block)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, json.dumps({**known, str(stamp[0]): [*stamp[1:], value.hexdigest()]}))
    return value.hexdigest()


# What decides a model's answers. Readmes and training states beside it do not.
MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt")


def folder_hash(folder: Path, cache: Path | None = None) -> str:
    """Hash of the files of a model folder that decide its answers. ProctorError where there is no safetensors file."""
    files = sorted(
        p for p in folder.iterdir() if p.is_file() and p.suffix in MODEL_FILES and not p.name.startswith(".")
    )
    if not any(path.suffix == ".safetensors" for path in files):
        raise ProctorError(f"{folder} holds no .safetensors file (pickled weights are never loaded)")
    return digest([[path.name, file_hash(path, cache)] for path in files])


def model_folder(model: Model, near: Path | None = None) -> Path:
    """The folder of a model: the playground's, a local one, or a hub id's snapshot in the local cache or on the hub."""
    name = model.path
    if name.startswith("playground/"):
        from harness import playground

        return playground.path(name.removeprefix("playground/"))
    for path in ([near / name] if near is not None else []) + [Path(name)]:
        if path.is_dir():
            return path.resolve()
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UsageError(f"the model folder {name} does not exist (looked from {near or Path.cwd()})")
    return _hub_snapshot(name, model.revision)


def _hub_snapshot(name: str, revision: str | None) -> Path:
    import huggingface_hub

    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision,
                local_files_only=offline,
                allow_patterns=[f"*{suffix}" for suffix in MODEL_FILES],
            )
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ProctorError(
            f"the model {name} is neither a folder here, nor in the hub cache, nor to be had from the hub ({reason}). "
            "Give a folder with safetensors, or go online and pin its revision."
        ) from error
