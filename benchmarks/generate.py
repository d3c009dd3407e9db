"""How fast is greedy decoding, against the memory's speed and beside other libraries?

    python benchmarks/generate.py [--quick] [--large] [--peers-python PATH] [--keras-hub-python PATH]

Writes a checkpoint of random values to a temporary folder, measures every system in fresh processes that take turns,
prints tables in Markdown, and removes the folder. Needs Linux, 2 GB of disk and 8 GB of memory (--large: 6 and 14).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from common import in_fresh_process, machine, medians, met, rounds, table, turn_about, versions
from load import gpt2, write_random

PROMPT, FEW, NEW = 16, 4, 64  # tokens; a step's time is (time for FEW + NEW tokens - time for FEW) / NEW
SHORT, LONG, LONG_NEW = 100, 1000, 16
# A step of these takes half a second: they show (new tokens, repetitions) of the cheapest steps, the first ones.
SLOW = {"re-feeding the prefix": (8, 1)}
ITEM_BYTES = {"float32": 4, "bfloat16": 2}

Generate = Callable[..., None]


@dataclass(frozen=True)
class Shape:
    """A GPT-2 of some size, and what is measured with it."""

    title: str
    sizes: dict[str, int]
    batches: tuple[int, ...]
    new: int
    repetitions: int
    first_goal: float  # seconds
    without: tuple[str, ...] = ()  # systems


SHAPES = {
    "small": Shape("GPT-2 124M", {}, (1, 8), NEW, 3, 3.0),
    "large": Shape(
        "GPT2_ML's size, 1.5B, as a GPT-2",
        {"hidden": 1536, "layers": 48, "heads": 24, "vocabulary": 21128},
        (1,),
        8,
        1,
        10.0,
        ("KerasHub", "re-feeding the prefix"),
    ),
}


# ---- the systems: each loads the folder and gives a function of prompts [rows, length] and the number of new tokens


def tfloader(folder: str, dtype: str) -> Generate:
    from tfloader.generation.text import TextGenerator
    from tfloader.models import builder

    generator = TextGenerator(builder.load(folder, dtype=dtype))

    def generate(prompts: Any, new: int, **options: Any) -> None:
        found = generator.generate_ids(prompts, max_new_tokens=new, eos_token_id=None, **options)
        assert all(len(ids) == new for ids in found.sequences)

    generate.traces = lambda: generator.decoder.traces  # type: ignore[attr-defined]
    return generate


def prefix(folder: str, dtype: str) -> Generate:
    """bert4keras' way: the model reads the whole prefix for every token."""
    import numpy as np
    import tensorflow as tf

    from tfloader.models import builder

    model = builder.load(folder, dtype=dtype)
    signature = [tf.TensorSpec([None, None], tf.int32)]
    read = tf.function(lambda tokens: tf.argmax(model(tokens)[:, -1], axis=-1), input_signature=signature)

    def generate(prompts: Any, new: int) -> None:
        tokens = np.asarray(prompts, "int32")
        for _ in range(new):
            tokens = np.concatenate([tokens, read(tokens).numpy()[:, None].astype("int32")], axis=1)

    return generate


def transformers(folder: str, dtype: str) -> Generate:
    import torch
    from transformers import GPT2LMHeadModel

    torch.set_num_threads(os.cpu_count() or 1)
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    def generate(prompts: Any, new: int) -> None:
        tokens = torch.tensor(prompts)
        with torch.inference_mode():
            model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
            )

    return generate


def ctranslate2(folder: str, dtype: str) -> Generate:
    from ctranslate2 import Generator

    generator = Generator(converted(folder), compute_type=dtype, intra_threads=os.cpu_count() or 1, inter_threads=1)

    def generate(prompts: Any, new: int) -> None:
        tokens = [[f"<{token}>" for token in row] for row in prompts]
        generator.generate_batch(
            tokens, max_length=new, min_length=new, sampling_topk=1, include_prompt_in_result=False
        )

    return generate


def converted(folder: str) -> str:
    """The checkpoint in CTranslate2's format, made at the first call."""
    from ctranslate2.converters import TransformersConverter

    target = os.path.join(folder, "ctranslate2")
    if not os.path.exists(target):
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            size = json.load(file)["vocab_size"]

        class Names:
            """Stands for a tokenizer: random weights have no words."""

            unk_token = bos_token = eos_token = "<0>"

            def get_vocab(self) -> dict[str, int]:
                return {f"<{token}>": token for token in range(size)}

        class Converter(TransformersConverter):
            def load_tokenizer(self, *_: Any, **__: Any) -> Names:
                return Names()

        Converter(folder).convert(target)
    return target


def keras_hub(folder: str, dtype: str) -> Generate:
    import numpy as np
    from keras_hub.models import GPT2Backbone, GPT2CausalLM

    backbone = GPT2Backbone.from_preset(folder, dtype=dtype)
    model = GPT2CausalLM(backbone=backbone, preprocessor=None)
    model.compile(sampler="greedy")

    def generate(prompts: Any, new: int) -> None:
        tokens = np.pad(np.asarray(prompts, "int32"), [[0, 0], [0, new]])
        real = np.arange(tokens.shape[1]) < tokens.shape[1] - new
        model.generate({"token_ids": tokens, "padding_mask": np.tile(real, (len(tokens), 1))}, stop_token_ids=None)

    return generate


# Name -> (its function, which interpreter has it, dtypes).
SYSTEMS: dict[str, tuple[Callable[[str, str], Generate], str, tuple[str, ...]]] = {
    "tfloader": (tfloader, "own", ("float32", "bfloat16")),
    "CTranslate2": (ctranslate2, "peers", ("float32", "int8")),
    "transformers (torch)": (transformers, "peers", ("float32", "bfloat16")),
    "KerasHub": (keras_hub, "keras_hub", ("float32", "bfloat16")),
    "re-feeding the prefix": (prefix, "own", ("float32",)),
}


def random_prompts(rows: int, length: int) -> list[list[int]]:
    import numpy as np

    return np.random.default_rng(rows).integers(1, 20000, (rows, length)).tolist()


def seconds(function: Callable, *arguments: Any, **options: Any) -> float:
    began = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - began


def step_times(generate: Generate, prompts: Any, new: int, repetitions: int, **options: Any) -> dict[str, float]:
    """Milliseconds a step: of medians, and of minima."""
    for count in (FEW, FEW + new):
        generate(prompts, count, **options)
    pairs = [[seconds(generate, prompts, count, **options) for count in (FEW, FEW + new)] for _ in range(repetitions)]
    few, many = zip(*pairs, strict=True)
    return {
        "median": (statistics.median(many) - statistics.median(few)) / new * 1e3,
        "least": (min(many) - min(few)) / new * 1e3,
    }


def measure(system: str, folder: str, dtype: str, shape: str) -> dict[str, float]:
    """First call, then a step's time for each batch."""
    plan = SHAPES[shape]
    new, repetitions = SLOW.get(system, (plan.new, plan.repetitions))
    generate = SYSTEMS[system][0](folder, dtype)
    found = {"first": seconds(generate, random_prompts(1, PROMPT), FEW)}
    for rows in plan.batches:
        times = step_times(generate, random_prompts(rows, PROMPT), new, repetitions)
        found |= {f"{name} {rows}": value for name, value in times.items()}
    return found


def measure_growth(folder: str, dtype: str) -> dict[str, float]:
    """How tfloader's time grows with the context and with beams, and what a second call compiles."""
    generate = tfloader(folder, dtype)
    found = {}
    for length in (SHORT, LONG):
        times = step_times(generate, random_prompts(1, length), LONG_NEW, 6)
        found |= {f"{name} {length}": value for name, value in times.items()}
    before = generate.traces()  # type: ignore[attr-defined]
    generate(random_prompts(1, SHORT + 27), FEW)
    found["traces"] = generate.traces() - before  # type: ignore[attr-defined]
    for name, rows, options in (("beams", 1, {"num_beams": 4}), ("rows", 4, {})):
        times = step_times(generate, random_prompts(rows, PROMPT), NEW, 3, **options)
        found |= {f"{key} {name}": value for key, value in times.items()}
    return found


def measure_bandwidth() -> dict[str, float]:
    """Gigabytes a second that all cores together read from memory that no cache holds."""
    import numpy as np

    cores = os.cpu_count() or 1
    parts = np.array_split(np.ones(256 * 1024**2, np.float32), 4 * cores)
    with ThreadPoolExecutor(cores) as pool:
        times = [seconds(lambda: list(pool.map(np.sum, parts))) for _ in range(8)]
    return {"most": sum(part.nbytes for part in parts) / min(times) / 1e9}


# ---- the report


def report(name: str, pythons: dict[str, str], repetitions: int) -> str:
    shape = SHAPES[name]
    with tempfile.TemporaryDirectory(prefix="tfloader-benchmark-") as folder:
        config, _ = gpt2(**shape.sizes)
        written = in_fresh_process(__file__, "--write", name, folder)
        if "error" in written:
            return f"### {shape.title}\n\nnot written: {written['error']}"
        in_fresh_process(__file__, "--convert", folder, python=pythons["peers"])
        jobs: dict[Any, Any] = {"bandwidth": (sys.executable, ["--bandwidth"])}
        for system, (_, home, dtypes) in SYSTEMS.items():
            for dtype in dtypes if system not in shape.without else ():
                jobs[system, dtype] = (pythons[home], ["--measure", system, folder, dtype, name])
        runs = rounds(__file__, jobs, repetitions)
        growth = {}
        if name == "small":
            own = {dtype: (sys.executable, ["--growth", folder, dtype]) for dtype in ITEM_BYTES}
            growth = turn_about(__file__, own, repetitions)
    bandwidth = max(run["most"] for run in runs.pop("bandwidth"))
    sections = [f"### {shape.title}, {PROMPT}-token prompt, {shape.new} new tokens, greedy: ms a step"]
    sections += [steps_table(shape, runs, config, bandwidth), goals_table(shape, runs, config, bandwidth)]
    if growth:
        sections.append(growth_table(growth, config))
    return "\n\n".join(sections)


def floor(config: dict[str, Any], dtype: str, rows: int, context: int, bandwidth: float) -> float:
    """Milliseconds to read the weights, and the keys and values of the context, once."""
    return step_bytes(config, dtype, rows, context) / bandwidth / 1e6


def step_bytes(config: dict[str, Any], dtype: str, rows: int, context: int) -> float:
    hidden, layers = config["n_embd"], config["n_layer"]
    weights = layers * 12 * hidden**2 + config["vocab_size"] * hidden
    return ITEM_BYTES[dtype] * (weights + rows * context * 2 * layers * hidden)


def steps_table(shape: Shape, runs: dict[Any, Any], config: dict[str, Any], bandwidth: float) -> str:
    header = ["system", "dtype", "first call s"]
    header += [f"batch {rows}, {what}" for rows in shape.batches for what in ("median", "least")]
    middle = PROMPT + FEW + shape.new // 2
    lines = []
    for dtype in ITEM_BYTES:
        bounds = [f"{floor(config, dtype, rows, middle, bandwidth):.1f}" for rows in shape.batches]
        lines.append([f"floor at {bandwidth:.1f} GB/s", dtype, "", *(cell for bound in bounds for cell in (bound, ""))])
    for (system, dtype), found in runs.items():
        middles = medians(found)
        if "error" in middles:
            lines.append([system, dtype, f"missing: {middles['error']}", *[""] * 2 * len(shape.batches)])
            continue
        cells = [f"{middles['first']:.1f}"]
        for rows in shape.batches:
            cells += [f"{middles[f'median {rows}']:.1f}", f"{min(run[f'least {rows}'] for run in found):.1f}"]
        lines.append([system, dtype, *cells])
    return table(header, lines)


def goals_table(shape: Shape, runs: dict[Any, Any], config: dict[str, Any], bandwidth: float) -> str:
    """The goals as ratios: of the medians, and of the minima."""
    usable = {key: found for key, found in runs.items() if "error" not in medians(found)}
    middle, lines = PROMPT + FEW + shape.new // 2, []

    def line(what: str, values: list[float], goal: float, unit: str = "") -> None:
        lines.append([what, *(f"{value:.2f}{unit}" for value in values), f"{goal}{unit}", met(values[-1] <= goal)])

    def times(system: str, dtype: str, rows: int) -> list[float]:
        found = usable[system, dtype]
        return [medians(found)[f"median {rows}"], min(run[f"least {rows}"] for run in found)]

    against = {
        ("float32", "CTranslate2", "float32"): {1: 1.05, 8: 1.0},
        ("float32", "transformers (torch)", "float32"): {1: 1.0, 8: 1.0},
        ("float32", "KerasHub", "float32"): {1: 1.0, 8: 1.0},
        ("bfloat16", "CTranslate2", "float32"): {1: 0.85, 8: 0.6},
        ("bfloat16", "transformers (torch)", "bfloat16"): {1: 1.0, 8: 1.0},
    }
    for (own, system, dtype), goals in against.items():
        for rows in shape.batches if (system, dtype) in usable and ("tfloader", own) in usable else ():
            ratios = [a / b for a, b in zip(times("tfloader", own, rows), times(system, dtype, rows), strict=True)]
            line(f"{own} / {system} {dtype}, batch {rows}", ratios, goals[rows])
    for dtype in ITEM_BYTES:
        for rows in shape.batches if ("tfloader", dtype) in usable else ():
            bound = floor(config, dtype, rows, middle, bandwidth)
            line(f"{dtype} / floor, batch {rows}", [value / bound for value in times("tfloader", dtype, rows)], 1.3)
        if ("tfloader", dtype) in usable:
            found = usable["tfloader", dtype]
            first = [medians(found)["first"], min(run["first"] for run in found)]
            line(f"{dtype}, first call", first, shape.first_goal, " s")
    return table(["tfloader", "of medians", "of minima", "goal", "met (minima)"], lines)


def growth_table(growth: dict[str, Any], config: dict[str, Any]) -> str:
    lines = []
    for dtype, found in growth.items():
        if "error" in found:
            lines.append([dtype, f"missing: {found['error']}", "", "", ""])
            continue
        explained = step_bytes(config, dtype, 1, LONG) / step_bytes(config, dtype, 1, SHORT)
        longer, beams = found[f"least {LONG}"] / found[f"least {SHORT}"], found["least beams"] / found["least rows"]
        what = f"context {LONG} / context {SHORT} ({found[f'least {LONG}']:.1f} / {found[f'least {SHORT}']:.1f} ms)"
        goal = 1.2 * explained
        lines.append([dtype, what, f"{longer:.2f}", f"{goal:.2f} (bytes: {explained:.2f})", met(longer <= goal)])
        what = f"4 beams / 4 rows ({found['least beams']:.1f} / {found['least rows']:.1f} ms)"
        lines.append([dtype, what, f"{beams:.2f}", "1.3", met(beams <= 1.3)])
        traces = found["traces"]
        lines.append([dtype, "traces of a second call, another length", f"{traces:.0f}", "0", met(traces == 0)])
    return table(["dtype", "what", "ratio of minima", "goal", "met"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round in place of three")
    parser.add_argument("--large", action="store_true", help="GPT2_ML's size too, one round, one system at a time")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter with transformers and CTranslate2")
    parser.add_argument("--keras-hub-python", default=sys.executable, help="interpreter that has KerasHub")
    options = parser.parse_args()
    pythons = {"own": sys.executable, "peers": options.peers_python, "keras_hub": options.keras_hub_python}
    found = versions()
    for python, names in (
        (options.keras_hub_python, ("keras-hub",)),
        (options.peers_python, ("torch", "transformers", "ctranslate2")),
    ):
        there = in_fresh_process(__file__, "--versions", python=python)
        found |= {name: there[name] for name in names if name in there}
    print(machine(), ", ".join(f"{name} {version}" for name, version in found.items()), sep="\n\n", end="\n\n")
    repetitions = 1 if options.quick else 3
    print(report("small", pythons, repetitions), flush=True)
    if options.large:
        print(f"\n{report('large', pythons, 1)}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--measure", system, folder, dtype, shape]:
            print(json.dumps(measure(system, folder, dtype, shape)))
        case ["--growth", folder, dtype]:
            print(json.dumps(measure_growth(folder, dtype)))
        case ["--bandwidth"]:
            print(json.dumps(measure_bandwidth()))
        case ["--write", shape, folder]:
            print(json.dumps(write_random(*gpt2(**SHAPES[shape].sizes), folder)))
        case ["--convert", folder]:
            print(json.dumps(converted(folder)))
        case ["--versions"]:
            print(json.dumps(versions()))
        case _:
            main()
