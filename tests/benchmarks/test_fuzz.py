"""Damaged files of every kind: a short run of the fuzzer here, and that it notices each kind of fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
FAULTY = """
import json, os, random, sys, time
sys.path.insert(0, sys.argv[1])
import fuzz
from tfloader.errors import ConfigError

def open_reader():
    def read(folder):
        with open(f"{folder}/file", "rb") as file:
            content = file.read()
        if content != b"a" * 9:
            FAULTS[sys.argv[2]](content)
        return content[:3]
    return read

def refuse(content):
    raise ConfigError("damaged")

FAULTS = {
    "crash": lambda content: os.kill(os.getpid(), 11),
    "hang": lambda content: time.sleep(60),
    "foreign": lambda content: {}[content],
    "memory": lambda content: bytearray(2**31),
    "refused": refuse,
    "different": lambda content: None,
}
fuzz.HANG = 0.5
known = (lambda folder, value: value == b"aaa") if sys.argv[2] == "different" else (lambda folder, value: None)
target = fuzz.Target("faulty", {"file": b"a" * 9}, open_reader, known)
counts, faults = fuzz.supervised(target, 0, range(6), time.monotonic() + 100)
print(json.dumps([counts, [[number, kind] for number, kind, _ in faults]]))
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the fuzzer forks")
def test_no_damage_crashes_hangs_escapes_or_passes_unnoticed(tmp_path):
    """Two thousand files here; a million by `python benchmarks/fuzz.py --executions 50000`."""
    done = run(str(BENCHMARKS / "fuzz.py"), "--executions", "100", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    assert len(rows) > 25 and all(row[1] == "100" and int(row[3]) > 0 for row in rows)  # executed, refused
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the fuzzer forks")
@pytest.mark.parametrize("fault", ["crash", "hang", "foreign", "memory", "refused", "different"])
def test_each_kind_of_fault_is_noticed_and_the_next_files_are_read(fault):
    done = run("-c", FAULTY, str(BENCHMARKS), fault)
    counts, faults = json.loads(done.stdout)
    kind = {"memory": "foreign"}.get(fault, fault)
    assert sum(counts.values()) == 6
    if fault == "different":  # where the first three bytes are damaged, or stay against what another reader says
        assert counts.get("different", 0) + counts.get("same", 0) == 6 and counts["different"]
    else:
        assert counts == {kind: 6}
    assert [kind for _, kind in faults] == [kind] * len(faults) and len({number for number, _ in faults}) == len(faults)
