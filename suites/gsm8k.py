"""GSM8K: grade-school word problems with a worked answer that ends in `#### N` (Cobbe et al. 2021, MIT)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.data import find
from harness.jsonl import read_jsonl
from harness.metrics import numbers
from harness.records import Item, Message, MetricFunction, ProctorError, Sampling, Suite

VERSION = "1"

# The last paragraph of every question's message: what comes before it is the question as the official file has it.
INSTRUCTION = "Work it out step by step. Then finish with one last line of the form:\n#### <number>"

FILES = {"test": ("test.jsonl", "test.jsonl.gz"), "train": ("train.jsonl.gz", "train.jsonl")}
_CALCULATOR_MARK = re.compile(r"<<[^<>\n]*>>")


def suite(path: str | None = None, split: str = "test", shots: int = 0, data: str | None = None) -> Suite:
    """The questions of one split of the official files (columns question, answer; .jsonl or .jsonl.gz).

    Ids are the 0-based positions in the file, targets the full official answers. `path` is the file or its folder;
    `data`, the command line's --data, comes before it; with neither, see `harness.data.find`. `shots` puts the first
    k rows of the train file (beside the questions' file, or found like it) before each question as finished turns,
    without their `<<calculator>>` marks. Raises ProctorError for rows that are not GSM8K's, with file and line.
    """
    if split not in FILES:
        raise ProctorError(f"gsm8k has no split {split!r}; it has {', '.join(FILES)}")
    file = find("gsm8k", FILES[split], data if data is not None else path)
    questions = _read(file)
    examples = _examples(file, split, shots, questions)
    items = tuple(
        Item(id=str(position), messages=(*examples, _ask(question)), target=answer)
        for position, (question, answer) in enumerate(questions.items())
    )
    return Suite(
        version=VERSION,
        items=items,
        metrics={
            "official": _against_target(numbers.official),
            "strict": _against_target(numbers.strict),
            "flexible": _against_target(numbers.flexible),
            "numeric": _against_target(numbers.numeric),
            "format": has_format,
            "parsed": has_number,
        },
        primary="numeric",
        sampling=Sampling(temperature=0.0, max_new_tokens=512),
        license="MIT",
    )


def has_format(output: str, item: Item) -> float:
    """1 if the output has a `#### N` that can be read, right or wrong."""
    return numbers.has_format(output)


def has_number(output: str, item: Item) -> float:
    """1 if `numeric` could read a number in the output, right or wrong."""
    return float(numbers.numeric_extract(output) is not None)


def _against_target(score: Callable[[str, str], float]) -> MetricFunction:
    def metric(output: str, item: Item) -> float:
        return score(output, str(item.target))

    return metric


def _ask(question: str) -> Message:
    return Message("user", f"{question}\n\n{INSTRUCTION}")


def _read(file: Path) -> dict[str, str]:
    """Question to answer, in the order of the file."""
    answers: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, row in read_jsonl(file):
        for column in ("question", "answer"):
            if not isinstance(row.get(column), str) or not row[column].strip():
                raise ProctorError(
                    f"{file}:{line}: gsm8k needs a text in column {column!r}; the row has columns {', '.join(row)}"
                )
        question, answer = row["question"], row["answer"]
        if numbers.official_extract(answer) is None or not _ends_in_number(answer):
            raise ProctorError(f"{file}:{line}: the answer does not end in a line '#### N'")
        if question in lines:
            raise ProctorError(f"{file}:{line}: the same question as in line {lines[question]}; drop one of the two")
        lines[question] = line
        answers[question] = answer
    if not answers:
        raise ProctorError(f"{file}:1: holds no questions")
    return answers


def _ends_in_number(answer: str) -> bool:
    try:
        numbers.gold_number(answer)
    except ValueError:
        return False
    return True


def _examples(file: Path, split: str, shots: int, questions: Mapping[str, str]) -> tuple[Message, ...]:
    if shots < 0:
        raise ProctorError(f"gsm8k: shots is {shots}; it must be 0 or more")
    if shots == 0:
        return ()
    if split == "train":
        raise ProctorError("gsm8k: shots come from the train split, so they cannot precede its own questions")
    beside = [file.parent / name for name in FILES["train"]]
    train = next((place for place in beside if place.is_file()), None) or find("gsm8k", FILES["train"])
    solved = list(_read(train).items())[:shots]
    if len(solved) < shots:
        raise ProctorError(f"{train}: holds {len(solved)} examples, but shots is {shots}")
    messages: list[Message] = []
    for question, answer in solved:
        if question in questions:
            raise ProctorError(f"{train}: the example {question[:60]!r} is also a question of {file}")
        messages += [_ask(question), Message("assistant", _CALCULATOR_MARK.sub("", answer))]
    return tuple(messages)
