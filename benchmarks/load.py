"""How much time and memory does loading take, against reading the file once and copying it once?

    python benchmarks/load.py [--quick] [--keras-hub-python PATH]

Writes checkpoints of random values to a temporary folder, measures every system in fresh processes that take turns,
prints tables in Markdown, and removes the folder. Needs Linux, 6 GB of disk and 16 GB of memory (--quick: 2 and 4).
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common import forget_peak_memory, in_fresh_process, machine, memory, met, table, turn_about, versions

MB = 1000**2
TIME_GOAL = 1.5  # times reading the file once and copying it once
MEMORY_GOAL = 300 * MB  # beyond the weights and the largest tensor
IMPORT_GOAL, HELP_GOAL = 0.3, 0.5  # seconds
BLOCK = 64 * 1024**2
REPETITIONS = 3
LAYERS = 48  # of GPT2_ML

Shapes = dict[str, tuple[int, ...]]


# ---- the checkpoints: a config, and the tensors' names and shapes


def gpt2_ml(layers: int, layer: str, separator: str) -> tuple[dict[str, Any], Shapes]:
    """GPT2_ML; `layer` is the format of a block's name."""
    hidden, inner, vocabulary, positions = 1536, 6144, 21128, 1024
    config = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 24,
        "intermediate_size": inner,
        "hidden_act": "gelu",
        "max_position_embeddings": positions,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
    }
    dense = {
        **{f"{name}_layer": (hidden, hidden) for name in ("query", "key", "value", "context_projection")},
        "intermediate": (hidden, inner),
        "output": (inner, hidden),
    }
    shapes: Shapes = {
        "embeddings/word_embed": (vocabulary, hidden),
        "embeddings/pos_embed": (positions, hidden),
        "embeddings/LayerNorm_embed_norm/gamma": (hidden,),
        "embeddings/LayerNorm_embed_norm/beta": (hidden,),
    }
    for index in range(layers):
        block = layer.format(index)
        for name, shape in dense.items():
            shapes |= {f"{block}/{name}/kernel": shape, f"{block}/{name}/bias": shape[1:]}
        for name in ("LayerNorm_mlp_ln0", "LayerNorm_mlp_ln1"):
            shapes |= {f"{block}/{name}/gamma": (hidden,), f"{block}/{name}/beta": (hidden,)}
    return config, {f"newslm/{name}".replace("/", separator): shape for name, shape in shapes.items()}


def bert_base() -> tuple[dict[str, Any], Shapes]:
    """BERT-base as a Hugging Face folder: kernels are [out, in]."""
    hidden, inner, vocabulary, positions = 768, 3072, 30522, 512
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": inner,
        "hidden_act": "gelu",
        "max_position_embeddings": positions,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    }
    dense = {
        **{f"attention.self.{name}": (hidden, hidden) for name in ("query", "key", "value")},
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }
    shapes: Shapes = {
        "bert.embeddings.word_embeddings.weight": (vocabulary, hidden),
        "bert.embeddings.position_embeddings.weight": (positions, hidden),
        "bert.embeddings.token_type_embeddings.weight": (2, hidden),
        **_norm("bert.embeddings.LayerNorm", hidden),
    }
    for index in range(12):
        block = f"bert.encoder.layer.{index}"
        for name, shape in dense.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
        for name in ("attention.output", "output"):
            shapes |= _norm(f"{block}.{name}.LayerNorm", hidden)
    shapes |= {"bert.pooler.dense.weight": (hidden, hidden), "bert.pooler.dense.bias": (hidden,)}
    return config, shapes


def gpt2(
    hidden: int = 768, layers: int = 12, heads: int = 12, vocabulary: int = 50257
) -> tuple[dict[str, Any], Shapes]:
    """GPT-2, 124M if nothing else is said, as a Hugging Face folder: kernels are [in, out]."""
    positions = 1024
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": vocabulary,
        "n_positions": positions,
        "n_embd": hidden,
        "n_layer": layers,
        "n_head": heads,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
    }
    dense = {
        "attn.c_attn": (hidden, 3 * hidden),
        "attn.c_proj": (hidden, hidden),
        "mlp.c_fc": (hidden, 4 * hidden),
        "mlp.c_proj": (4 * hidden, hidden),
    }
    shapes: Shapes = {
        "transformer.wte.weight": (vocabulary, hidden),
        "transformer.wpe.weight": (positions, hidden),
        **_norm("transformer.ln_f", hidden),
    }
    for index in range(layers):
        block = f"transformer.h.{index}"
        for name, shape in dense.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[1:]}
        shapes |= {**_norm(f"{block}.ln_1", hidden), **_norm(f"{block}.ln_2", hidden)}
    return config, shapes


def _norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


@dataclass(frozen=True)
class Case:
    """What is loaded, by whom, in which dtypes."""

    checkpoint: str
    dtypes: Sequence[str] = ("float32", "bfloat16")
    peers: Sequence[str] = ()


CASES = (
    Case("GPT2_ML, TensorFlow"),
    Case("GPT2_ML, safetensors"),
    Case("BERT-base, safetensors", ("float32",), ("transformers (torch)", "KerasHub")),
    Case("GPT-2 124M, safetensors", ("float32",), ("transformers (torch)", "KerasHub")),
)

CHECKPOINTS: dict[str, Callable[[int], tuple[dict[str, Any], Shapes]]] = {
    "GPT2_ML, TensorFlow": lambda layers: gpt2_ml(layers, "layer{:02d}", "/"),
    "GPT2_ML, safetensors": lambda layers: gpt2_ml(layers, "layer.{}", "."),
    "BERT-base, safetensors": lambda _: bert_base(),
    "GPT-2 124M, safetensors": lambda _: gpt2(),
}


def write(checkpoint: str, layers: int, folder: str) -> dict[str, Any]:
    config, shapes = CHECKPOINTS[checkpoint](layers)
    return write_random(config, shapes, folder, tensorflow=checkpoint.endswith("TensorFlow"))


def write_random(config: dict[str, Any], shapes: Shapes, folder: str, tensorflow: bool = False) -> dict[str, Any]:
    """Writes a checkpoint of random values, one tensor at a time."""
    import numpy as np

    from tfloader.checkpoints import TensorSpec, write_safetensors, write_tensorflow

    random = np.random.default_rng(0)

    def values(shape: tuple[int, ...]) -> Callable[[], Any]:
        return lambda: random.standard_normal(shape, "float32") * np.float32(0.02)

    tensors = [(name, TensorSpec(shape, "float32"), values(shape)) for name, shape in shapes.items()]
    if tensorflow:
        write_tensorflow(os.path.join(folder, "model.ckpt"), tensors)
    else:
        config.setdefault("model_type", "gpt2_ml")
        write_safetensors(folder, tensors)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    sizes = [spec.nbytes for _, spec, _ in tensors]
    return {"weights": sum(sizes), "largest": max(sizes)}


# ---- the systems: each imports what it needs and gives the function whose time and memory are measured


def read_and_copy(folder: str, allocate: Callable[[int], Any]) -> Callable[[], Any]:
    """What the time goal is measured by, without any model.

    Each 64 MB of the files are read into fresh memory and copied to their place in fresh memory of the whole size.
    """
    import numpy as np

    files = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]

    def run() -> Any:
        whole = allocate(sum(map(os.path.getsize, files)))
        at = 0
        for path in files:
            with open(path, "rb", buffering=0) as file:
                while count := file.readinto(block := allocate(BLOCK)):
                    np.copyto(whole[at : at + count], block[:count])
                    at += count
        return whole

    return run


def with_huge_pages(folder: str, dtype: str) -> Callable[[], Any]:
    """numpy asks the system for huge pages."""
    import numpy as np

    return read_and_copy(folder, lambda size: np.empty(size, np.uint8))


def with_small_pages(folder: str, dtype: str) -> Callable[[], Any]:
    import numpy as np

    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return read_and_copy(folder, lambda size: np.frombuffer(mmap.mmap(-1, size, flags=flags), np.uint8))


def tfloader(folder: str, dtype: str) -> Callable[[], Any]:
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    from tfloader.models import builder

    return lambda: builder.load(folder, dtype=dtype)


def transformers(folder: str, dtype: str) -> Callable[[], Any]:
    import torch
    from transformers import BertModel, GPT2LMHeadModel

    kind = {"bert": BertModel, "gpt2": GPT2LMHeadModel}[_model_type(folder)]
    return lambda: kind.from_pretrained(folder, dtype=getattr(torch, dtype))


def keras_hub(folder: str, dtype: str) -> Callable[[], Any]:
    from keras_hub.models import BertBackbone, GPT2Backbone

    kind = {"bert": BertBackbone, "gpt2": GPT2Backbone}[_model_type(folder)]
    return lambda: kind.from_preset(folder, dtype=dtype)


def _model_type(folder: str) -> str:
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        return json.load(file)["model_type"]


FLOORS = {"read + copy, huge pages": with_huge_pages, "read + copy, 4 kB pages": with_small_pages}
SYSTEMS = {**FLOORS, "tfloader": tfloader, "transformers (torch)": transformers, "KerasHub": keras_hub}


def measure(system: str, folder: str, dtype: str) -> dict[str, float]:
    """Loads once. A torch model is also read once, a value a page: it may still lie in the file, mapped."""
    run = SYSTEMS[system](folder, dtype)
    forget_peak_memory()
    start = memory("VmRSS")
    began = time.perf_counter()
    model = run()
    if system == "transformers (torch)":
        for weight in model.parameters():
            weight.detach().flatten()[:: mmap.PAGESIZE // weight.itemsize].sum().item()
    return {"seconds": time.perf_counter() - began, "peak": memory("VmHWM") - start}


def measure_import() -> dict[str, float]:
    began = time.perf_counter()
    import tfloader  # noqa: F401

    return {"seconds": time.perf_counter() - began}


def measure_help() -> dict[str, float]:
    import subprocess

    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tfloader", "--help"], check=True, stdout=subprocess.DEVNULL)
    return {"seconds": time.perf_counter() - began}


# ---- the report


def report_case(case: Case, layers: int, repetitions: int, hub_python: str) -> str:
    """Measures one checkpoint in all its dtypes and systems; gives a section of the report."""
    with tempfile.TemporaryDirectory(prefix="tfloader-benchmark-") as folder:
        sizes = in_fresh_process(__file__, "--write", case.checkpoint, str(layers), folder)
        if "error" in sizes:
            return f"### {case.checkpoint}\n\nnot written: {sizes['error']}"
        jobs = {(system, ""): (sys.executable, ["--measure", system, folder, ""]) for system in FLOORS}
        for dtype in case.dtypes:
            for system in ("tfloader", *case.peers):
                python = hub_python if system == "KerasHub" else sys.executable
                jobs[system, dtype] = (python, ["--measure", system, folder, dtype])
        in_fresh_process(
            __file__, *jobs["read + copy, 4 kB pages", ""][1]
        )  # the file is in the page cache from here on
        results = turn_about(__file__, jobs, repetitions)
    floor = min(results[system, ""]["seconds"] for system in FLOORS)
    rows = []
    for (system, dtype), result in results.items():
        if "error" in result:
            rows.append([system, dtype, f"missing: {result['error']}", "", "", "", ""])
            continue
        ratio, peak = result["seconds"] / floor, result["peak"]
        row = [system, dtype, f"{result['seconds']:.2f}", f"{ratio:.2f}", f"{peak / MB:.0f}", "", ""]
        if system not in FLOORS:
            weights = sizes["weights"] * (2 if dtype == "bfloat16" else 4) // 4
            limit = weights + sizes["largest"] + MEMORY_GOAL
            row[5:] = [f"{limit / MB:.0f}", f"{met(ratio <= TIME_GOAL)} / {met(peak <= limit)}"]
        rows.append(row)
    header = ["system", "dtype", "s", "times read + copy", "peak MB", "limit MB", "time / memory goal met"]
    title = f"{case.checkpoint} ({sizes['weights'] / 4e6:.0f}M parameters, {sizes['weights'] / 1e9:.2f} GB)"
    return f"### {title}\n\n{table(header, rows)}"


def report_start(repetitions: int) -> str:
    jobs = {option: (sys.executable, [option]) for option in ("--measure-import", "--measure-help")}
    results = turn_about(__file__, jobs, max(repetitions, 3))
    rows = []
    for name, option, goal in (
        ("import tfloader", "--measure-import", IMPORT_GOAL),
        ("tfloader --help, whole process", "--measure-help", HELP_GOAL),
    ):
        seconds = results[option]["seconds"]
        rows.append([name, f"{seconds:.2f}", f"{goal}", met(seconds <= goal)])
    return f"### Start\n\n{table(['what', 's', 'goal', 'met'], rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="GPT2_ML with 4 blocks in place of 48, one repetition")
    parser.add_argument("--keras-hub-python", default=sys.executable, help="interpreter that has KerasHub")
    options = parser.parse_args()
    layers, repetitions = (4, 1) if options.quick else (LAYERS, REPETITIONS)
    found = {**in_fresh_process(__file__, "--versions", python=options.keras_hub_python), **versions()}
    print(machine(), ", ".join(f"{name} {version}" for name, version in found.items()), sep="\n\n")
    print(f"\nMedians of {repetitions}.\n", flush=True)
    for case in CASES:
        print(report_case(case, layers, repetitions, options.keras_hub_python), flush=True, end="\n\n")
    print(report_start(repetitions))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--measure", system, folder, dtype]:
            print(json.dumps(measure(system, folder, dtype)))
        case ["--write", checkpoint, layers, folder]:
            print(json.dumps(write(checkpoint, int(layers), folder)))
        case ["--measure-import"]:
            print(json.dumps(measure_import()))
        case ["--measure-help"]:
            print(json.dumps(measure_help()))
        case ["--versions"]:
            print(json.dumps(versions()))
        case _:
            main()
