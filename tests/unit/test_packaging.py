"""What the wheel carries: every file that is not code, the weights within their size, and no pickles."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("harness", "judges", "suites", "reports")


def package_data() -> dict[str, list[str]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]  # type: ignore[no-any-return]


def test_every_file_that_is_not_code_is_package_data() -> None:
    for package in PACKAGES:
        folder = ROOT / package
        packed = {path for pattern in package_data().get(package, []) for path in folder.glob(pattern)}
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                assert path in packed, f"{path.relative_to(ROOT)} would be missing from the wheel"


@pytest.mark.parametrize("name", ["base", "teacher", "judge"])
def test_embedded_weights_are_small_half_precision_safetensors(name: str) -> None:
    folder = ROOT / "harness" / "playground" / "weights" / name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3_000_000
    header = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(header[:8], "little")
    tensors = json.loads(header[8 : 8 + size])
    assert {entry["dtype"] for key, entry in tensors.items() if key != "__metadata__"} == {"F16"}


def test_nothing_in_the_tree_is_a_pickle_or_names_a_registry_or_this_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    hosts = ("pypi" + ".org", "files.python" + "hosted", "registry." + "npmjs")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        assert path.suffix not in (".pkl", ".pt", ".pth", ".bin"), name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".yaml", ".jinja") or name == "Makefile":
            text = path.read_text(encoding="utf-8")
            assert not any(host in text for host in hosts), name
            assert "/work" + "/main" not in text, name
