"""How long `proctor --help` takes beside a bare Python start: `python benchmarks/startup.py [--json]`."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time


def seconds(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    pairs = [(seconds("-c", "pass"), seconds("-m", "harness.cli", "--help")) for _ in range(9)]
    bare, help_ = (statistics.median(side) for side in zip(*pairs, strict=True))
    found = {
        "name": "startup",
        "ratios": {},
        "figures": {"bare_python_seconds": round(bare, 3), "help_seconds": round(help_, 3)},
        "versions": {"python": platform.python_version()},
    }
    print(json.dumps(found) if asked.json else "\n".join(f"{k} {v}" for k, v in found["figures"].items()))


if __name__ == "__main__":
    main()
