"""Is a target ever there and not whole? Kills conversions at random moments and looks.

    python benchmarks/kill_conversion.py [KILLS]

Converts a checkpoint of random values into many small shards, in processes that get SIGKILL at a moment drawn from the
time that a whole conversion takes. After each kill the target must be absent, or equal to the source in every tensor;
the source must be as it was; and the next conversion must remove what the killed one left.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from typing import Any

from load import gpt2

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PARTS = 40  # about; each is written, synced and renamed
CONVERT = """
import sys, tfloader
from tfloader.conversion import streaming
print("ready", flush=True)
sys.stdin.readline()
tfloader.convert(sys.argv[1], sys.argv[2], dtype="float32", max_shard_bytes=int(sys.argv[3]), verify=False)
"""


def kill_again_and_again(folder: str, kills: int, seed: int = 0) -> dict[str, Any]:
    """What was found after each kill, counted; `seconds` is the time of a whole conversion, imports aside."""
    source, target = os.path.join(folder, "source"), os.path.join(folder, "target")
    size = _write_source(source)
    before = _hashes(source)
    _, seconds = _run(source, target, size, None)
    _remove(target)
    moments = random.Random(seed)
    found: Counter[str] = Counter({"source changed": 0, "not whole": 0})
    for _ in range(kills):
        in_time, _ = _run(source, target, size, moments.uniform(0, seconds))
        found["kills"] += 1
        found["killed in time"] += in_time
        found["leftover" if any(name.startswith(".target.") for name in os.listdir(folder)) else "no leftover"] += 1
        if os.path.lexists(target):
            found["whole" if _equal(source, target) else "not whole"] += 1
            _remove(target)
        else:
            found["absent"] += 1
        found["source changed"] += _hashes(source) != before
    _run(source, target, size, None)
    if sorted(os.listdir(folder)) != ["source", "target"] or not _equal(source, target):
        found["not whole"] += 1
    return {**found, "seconds": seconds}


def _write_source(folder: str) -> int:
    """A GPT-2 of random values in bfloat16; gives the size of a shard."""
    import ml_dtypes
    import numpy as np

    from tfloader.checkpoints import TensorSpec, write_safetensors
    from tfloader.files import write_json

    config, shapes = gpt2(hidden=96, layers=6, heads=4, vocabulary=4000)
    values = np.random.default_rng(0)

    def make(shape: tuple[int, ...]) -> Any:
        return lambda: values.standard_normal(shape, "float32").astype(ml_dtypes.bfloat16)

    tensors = [(name, TensorSpec(shape, "bfloat16"), make(shape)) for name, shape in shapes.items()]
    write_safetensors(folder, tensors)
    write_json(os.path.join(folder, "config.json"), config)
    return sum(spec.nbytes for _, spec, _ in tensors) * 2 // PARTS


def _run(source: str, target: str, size: int, kill_after: float | None) -> tuple[bool, float]:
    """Converts in a process of its own; whether it was killed before its end, and the time since it had started."""
    arguments = [sys.executable, "-c", CONVERT, source, target, str(size)]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        process.stdout.readline()
        process.stdin.write(b"go\n")
        process.stdin.flush()
        began = time.perf_counter()
        if kill_after is not None:
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
        process.wait()
    if kill_after is None and process.returncode:
        raise RuntimeError(f"the conversion failed with status {process.returncode}")
    return process.returncode == -signal.SIGKILL, time.perf_counter() - began


def _equal(source: str, target: str) -> bool:
    """Whether every tensor is there and equal; both sides are read through tfloader, so that damage is an error."""
    from tfloader.conversion.comparison import compare
    from tfloader.errors import TfloaderError

    try:
        checks = {}
        for check in compare(source, target):
            checks[check.name] = check.status
            if check.name == "tokenizer":  # the outputs would need a model
                break
    except TfloaderError:
        return False
    return "FAILED" not in checks.values()


def _hashes(folder: str) -> dict[str, str]:
    found = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


def _remove(folder: str) -> None:
    for name in os.listdir(folder):
        os.remove(os.path.join(folder, name))
    os.rmdir(folder)


if __name__ == "__main__":
    sys.path.insert(0, ROOT)
    with tempfile.TemporaryDirectory(prefix="tfloader-kill-") as place:
        print(kill_again_and_again(place, int(sys.argv[1]) if len(sys.argv) > 1 else 50))
