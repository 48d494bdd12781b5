"""The folder is the registry: plugins by file name, users' own in the same place, and code that enters keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import registry
from harness.records import ProctorError, UsageError


def test_built_in_plugins_are_found_by_file_name() -> None:
    assert {"sft", "dpo"} <= set(registry.names("objective"))
    assert {"playground", "gsm8k"} <= set(registry.names("suite"))
    assert registry.find("objective", "dpo").name == "dpo.py"
    assert "hf" in registry.names("engine") and not any(name.startswith("_") for name in registry.names("engine"))


def test_a_wrong_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'gsm8k'"):
        registry.find("suite", "gsm8")


def test_a_users_file_and_module_work_in_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("VERSION = '1'\nanswer = 42\n")
    package = tmp_path / "theirs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "suite.py").write_text("VERSION = '2'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registry.load(registry.find("suite", "./mine.py", tmp_path)).answer == 42
    assert registry.find("suite", "theirs.suite") == package / "suite.py"
    with pytest.raises(UsageError, match="does not exist"):
        registry.find("suite", "./nothing.py", tmp_path)
    with pytest.raises(UsageError, match="no suite named 'no\\.such'"):
        registry.find("suite", "no.such")


def test_an_error_while_importing_a_users_file_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("VERSION = '1'\n\nx = 1 / 0\n")
    with pytest.raises(ProctorError, match=r"broken\.py:3: .*ZeroDivisionError"):
        registry.load(path)
    path = tmp_path / "syntax.py"
    path.write_text("VERSION = '1'\ndef f(:\n")
    with pytest.raises(ProctorError, match=r"syntax\.py:2"):
        registry.literals(path)


def test_literals_are_read_without_running_the_file(tmp_path: Path) -> None:
    path = tmp_path / "objective.py"
    path.write_text("VERSION = '3'\nNEEDS = ('pairs',)\nDEFAULTS: dict = {'beta': 0.1}\nraise SystemExit\n")
    assert registry.literals(path) == {"VERSION": "3", "NEEDS": ("pairs",), "DEFAULTS": {"beta": 0.1}}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("'''Another docstring.'''\n# a comment\nA = 1\ndef f(x):\n    '''New.'''\n    return x + A\n", True),
        ("A = 1\n\n\ndef f( x ):\n    return (x + A)\n", True),
        ("A = 2\ndef f(x):\n    return x + A\n", False),
        ("A = 1\ndef f(x):\n    return x - A\n", False),
    ],
)
def test_the_code_hash_sees_code_and_neither_comments_nor_docstrings(tmp_path: Path, change: str, same: bool) -> None:
    path = tmp_path / "suite.py"
    hashes = []
    for text in ("'''Doc.'''\nA = 1\ndef f(x):\n    '''Old.'''\n    return x + A\n", change):
        path.write_text(text)
        registry.code_hash.cache_clear()
        registry._tree.cache_clear()
        hashes.append(registry.code_hash(path))
    assert (hashes[0] == hashes[1]) is same


def test_the_code_hash_follows_imports_into_metrics(tmp_path: Path) -> None:
    plain, using = tmp_path / "plain.py", tmp_path / "using.py"
    plain.write_text("x = 1\n")
    using.write_text("from harness.metrics import numbers\nx = 1\n")
    assert registry.code_hash(plain) != registry.code_hash(using)
    assert registry.code_hash(registry.find("suite", "gsm8k")) != registry.code_hash(
        registry.find("suite", "playground")
    )
