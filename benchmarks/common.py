"""What the benchmarks share: fresh processes that take turns, medians, the memory of a process, tables."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

PACKAGES = (
    "tfloader",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "keras-hub",
    "torch",
    "transformers",
    "ctranslate2",
    "numpy",
    "safetensors",
)


def in_fresh_process(script: str, *arguments: str, python: str = sys.executable) -> dict[str, Any]:
    """Runs `script` and gives the JSON object in the last line that it prints; {"error": ...} if it fails."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run([python, script, *arguments], env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return {"error": reason[:200]}
    return json.loads(lines[-1])


def turn_about(
    script: str, jobs: Mapping[Any, tuple[str, Sequence[str]]], repetitions: int
) -> dict[Any, dict[str, Any]]:
    """Measures every job `repetitions` times, one after the other in each round, so that all meet the same machine.

    Args:
        jobs: name -> (Python interpreter, arguments of the script).

    Returns:
        name -> the medians of the numbers that the job printed, or its first error.
    """
    return {name: medians(runs) for name, runs in rounds(script, jobs, repetitions).items()}


def rounds(
    script: str, jobs: Mapping[Any, tuple[str, Sequence[str]]], repetitions: int
) -> dict[Any, list[dict[str, Any]]]:
    """What every job printed in each round, or its first error; arguments as for `turn_about`."""
    results: dict[Any, list[dict[str, Any]]] = {name: [] for name in jobs}
    for _ in range(repetitions):
        for name, (python, arguments) in jobs.items():
            if not (results[name] and "error" in results[name][-1]):
                results[name].append(in_fresh_process(script, *arguments, python=python))
    return results


def medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each number of a job's runs, or its first error."""
    failed = [run for run in runs if "error" in run]
    numbers = [key for key, value in runs[0].items() if isinstance(value, (int, float))]
    return failed[0] if failed else {key: statistics.median(run[key] for run in runs) for key in numbers}


def memory(field: str) -> int:
    """A line of Linux's account of this process, in bytes: "VmRSS" is its memory now, "VmHWM" the peak."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{field}:"))


def forget_peak_memory() -> None:
    """Makes "VmHWM" start anew from the memory that the process has now."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def versions() -> dict[str, str]:
    """The packages of this interpreter that matter here."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Processor, cores, memory."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next(
            (line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine()
        )
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{model}, {os.cpu_count()} cores, {total / 1024**3:.0f} GiB, Linux {platform.release().split('-')[0]}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def met(goal_is_met: bool) -> str:
    """A cell of a table of goals."""
    return "yes" if goal_is_met else "NO"
