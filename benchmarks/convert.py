"""How much time and memory does a conversion take, against copying the checkpoint?

    python benchmarks/convert.py [--quick] [--peers-python PATH] [--keras-hub-python PATH] [--folder PLACE]

Writes checkpoints of random values to a temporary folder, converts them in fresh processes that take turns, prints
tables in Markdown, and removes the folder. Needs Linux, 20 GB of disk and 4 GB of memory (--quick: 2 and 3).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from common import forget_peak_memory, in_fresh_process, machine, memory, met, table, turn_about, versions
from load import LAYERS, MB, REPETITIONS, write

TIME_GOAL = 2  # times cp + sync
MEMORY_GOAL = 400 * MB  # beyond three times the largest tensor, and beyond what importing TensorFlow takes

# Title, checkpoint of load.py, and the systems beside `cp + sync`.
CASES = (
    ("GPT2_ML, TensorFlow", ("tfloader, huggingface", "tfloader, huggingface, bfloat16")),
    ("GPT2_ML, safetensors", ("tfloader, tensorflow", "tfloader, huggingface, bfloat16", "tfloader, keras")),
    (
        "GPT-2 124M, safetensors",
        ("tfloader, huggingface, float16", "tfloader, tensorflow", "tfloader, keras", "transformers", "KerasHub"),
    ),
)


# ---- the systems: each imports what it needs and gives the function whose time and memory are measured


def copied(source: str, target: str) -> Callable[[], Any]:
    """`cp -r` and `sync` of every file, as a conversion syncs its own."""

    def run() -> None:
        subprocess.run(["cp", "-r", source, target], check=True)
        subprocess.run(["sync", *(os.path.join(target, name) for name in os.listdir(target))], check=True)

    return run


def converted(to: str, dtype: str | None = None) -> Callable[[str, str], Callable[[], Any]]:
    def prepare(source: str, target: str) -> Callable[[], Any]:
        import tfloader.conversion.streaming

        if to != "huggingface" or os.path.exists(os.path.join(source, "checkpoint")):
            import keras  # noqa: F401
            import tensorflow  # noqa: F401
        return lambda: tfloader.convert(source, target, to, dtype=dtype, verify=False)

    return prepare


def by_transformers(source: str, target: str) -> Callable[[], Any]:
    """To float16: transformers has no other tensor format to go to."""
    import torch
    from transformers import GPT2LMHeadModel

    return lambda: GPT2LMHeadModel.from_pretrained(source, dtype=torch.float16).save_pretrained(target)


def by_keras_hub(source: str, target: str) -> Callable[[], Any]:
    """To its own preset format, which is the one that it writes."""
    from keras_hub.models import GPT2Backbone

    return lambda: GPT2Backbone.from_preset(source).save_to_preset(target)


SYSTEMS: dict[str, Callable[[str, str], Callable[[], Any]]] = {
    "cp + sync": copied,
    "tfloader, huggingface": converted("huggingface"),
    "tfloader, huggingface, bfloat16": converted("huggingface", "bfloat16"),
    "tfloader, huggingface, float16": converted("huggingface", "float16"),
    "tfloader, tensorflow": converted("tensorflow"),
    "tfloader, keras": converted("keras"),
    "transformers": by_transformers,
    "KerasHub": by_keras_hub,
}


def measure(system: str, source: str, target: str) -> dict[str, float]:
    """Converts once and removes the result; `imports` is the memory of the process before."""
    run = SYSTEMS[system](source, target)
    forget_peak_memory()
    start = memory("VmRSS")
    began = time.perf_counter()
    run()
    seconds = time.perf_counter() - began
    peak = memory("VmHWM") - start
    shutil.rmtree(target)
    return {"seconds": seconds, "peak": peak, "imports": start}


# ---- the report


def report_case(
    title: str, systems: tuple[str, ...], layers: int, repetitions: int, pythons: dict[str, str], place: str | None
) -> str:
    with tempfile.TemporaryDirectory(prefix="tfloader-benchmark-", dir=place) as folder:
        source, target = os.path.join(folder, "source"), os.path.join(folder, "target")
        os.mkdir(source)
        sizes = in_fresh_process(__file__, "--write", title, str(layers), source)
        if "error" in sizes:
            return f"### {title}\n\nnot written: {sizes['error']}"
        jobs = {
            system: (pythons.get(system, sys.executable), ["--measure", system, source, target])
            for system in ("cp + sync", *systems)
        }
        in_fresh_process(__file__, *jobs["cp + sync"][1])  # the source is in the page cache from here on
        results = turn_about(__file__, jobs, repetitions)
    if "error" in results["cp + sync"]:
        return f"### {title}\n\nnot copied: {results['cp + sync']['error']}"
    floor, limit = results["cp + sync"]["seconds"], 3 * sizes["largest"] + MEMORY_GOAL
    rows = []
    for system, result in results.items():
        if "error" in result:
            rows.append([system, f"missing: {result['error']}", "", "", "", "", ""])
            continue
        ratio, peak = result["seconds"] / floor, result["peak"]
        row = [system, f"{result['seconds']:.2f}", f"{ratio:.2f}", f"{peak / MB:.0f}", f"{result['imports'] / MB:.0f}"]
        ours = system.startswith("tfloader")
        row += [f"{limit / MB:.0f}", f"{met(ratio <= TIME_GOAL)} / {met(peak <= limit)}"] if ours else ["", ""]
        rows.append(row)
    header = ["system", "s", "times cp + sync", "peak MB", "imports MB", "limit MB", "time / memory goal met"]
    size = f"{sizes['weights'] / 1e9:.2f} GB, largest tensor {sizes['largest'] / MB:.0f} MB"
    return f"### {title} ({size})\n\n{table(header, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="GPT2_ML with 4 blocks in place of 48, one repetition")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has transformers and torch")
    parser.add_argument("--keras-hub-python", default=sys.executable, help="interpreter that has KerasHub")
    parser.add_argument("--folder", help="where the checkpoints are written for the time being")
    options = parser.parse_args()
    layers, repetitions = (4, 1) if options.quick else (LAYERS, REPETITIONS)
    pythons = {"transformers": options.peers_python, "KerasHub": options.keras_hub_python}
    found = versions()
    for python in pythons.values():
        found = {**in_fresh_process(__file__, "--versions", python=python), **found}
    print(machine(), ", ".join(f"{name} {version}" for name, version in found.items()), sep="\n\n")
    print(f"\nMedians of {repetitions}.\n", flush=True)
    for title, systems in CASES:
        print(report_case(title, systems, layers, repetitions, pythons, options.folder), flush=True, end="\n\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--measure", system, source, target]:
            print(json.dumps(measure(system, source, target)))
        case ["--write", checkpoint, layers, folder]:
            print(json.dumps(write(checkpoint, int(layers), folder)))
        case ["--versions"]:
            print(json.dumps(versions()))
        case _:
            main()
