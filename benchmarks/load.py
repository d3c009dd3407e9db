"""How long does loading take, and how much memory, against what reading the file once and copying it once costs?

    python benchmarks/load.py [--quick] [--keras-hub-python PATH]

Writes checkpoints of random values to a temporary folder, measures every system in processes of its own that take
turns, and prints tables in Markdown. Needs Linux, 40 GB of disk and 16 GB of memory (--quick: 3 GB of each).
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from common import forget_peak_memory, in_fresh_process, machine, memory, table, turn_about, versions

MB = 1000**2
TIME_GOAL = 1.5  # times reading the file once and copying it once
MEMORY_GOAL = 300 * MB  # beyond the weights and the largest tensor
IMPORT_GOAL, HELP_GOAL = 0.3, 0.5  # seconds
BLOCK = 64 * 1024**2

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


def gpt2() -> tuple[dict[str, Any], Shapes]:
    """GPT-2 124M as a Hugging Face folder: kernels are [in, out]."""
    hidden, vocabulary, positions = 768, 50257, 1024
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": vocabulary,
        "n_positions": positions,
        "n_embd": hidden,
        "n_layer": 12,
        "n_head": 12,
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
    for index in range(12):
        block = f"transformer.h.{index}"
        for name, shape in dense.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[1:]}
        shapes |= {**_norm(f"{block}.ln_1", hidden), **_norm(f"{block}.ln_2", hidden)}
    return config, shapes


def _norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


CHECKPOINTS: dict[str, Callable[[int], tuple[dict[str, Any], Shapes]]] = {
    "GPT2_ML, TensorFlow": lambda layers: gpt2_ml(layers, "layer{:02d}", "/"),
    "GPT2_ML, safetensors": lambda layers: gpt2_ml(layers, "layer.{}", "."),
    "BERT-base, safetensors": lambda _: bert_base(),
    "GPT-2 124M, safetensors": lambda _: gpt2(),
}


def write(checkpoint: str, layers: int, folder: str) -> dict[str, Any]:
    """Writes a checkpoint of random values, one tensor at a time."""
    import numpy as np

    from tfloader.checkpoints import TensorSpec, write_safetensors, write_tensorflow

    config, shapes = CHECKPOINTS[checkpoint](layers)
    random = np.random.default_rng(0)

    def values(shape: tuple[int, ...]) -> Callable[[], Any]:
        return lambda: random.standard_normal(shape, "float32") * np.float32(0.02)

    tensors = [(name, TensorSpec(shape, "float32"), values(shape)) for name, shape in shapes.items()]
    if checkpoint.endswith("TensorFlow"):
        write_tensorflow(os.path.join(folder, "model.ckpt"), tensors)
    else:
        config.setdefault("model_type", "gpt2_ml")
        write_safetensors(folder, tensors)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    sizes = [spec.nbytes for _, spec, _ in tensors]
    return {"weights": sum(sizes), "largest": max(sizes)}


# ---- the systems: each imports what it needs and gives the function whose time and memory are measured


def read_and_copy(folder: str, dtype: str) -> Callable[[], Any]:
    """What the time goal is measured by: no model at all.

    Each 64 MB of the file(s) are read into fresh memory, and copied to their place in fresh memory of the whole size.
    """
    import numpy as np

    files = [path for path in sorted(glob.glob(os.path.join(folder, "*"))) if os.path.getsize(path) > 1e6]

    def run() -> Any:
        whole = np.empty(sum(map(os.path.getsize, files)), np.uint8)
        at = 0
        for path in files:
            with open(path, "rb", buffering=0) as file:
                while count := file.readinto(block := np.empty(BLOCK, np.uint8)):
                    np.copyto(whole[at : at + count], block[:count])
                    at += count
        return whole

    return run


def tfloader(folder: str, dtype: str) -> Callable[[], Any]:
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    from tfloader.models import builder

    return lambda: builder.load(folder, dtype=dtype)


def transformers(folder: str, dtype: str) -> Callable[[], Any]:
    import torch
    from transformers import BertModel, GPT2LMHeadModel

    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        kind = {"bert": BertModel, "gpt2": GPT2LMHeadModel}[json.load(file)["model_type"]]
    return lambda: kind.from_pretrained(folder, dtype=getattr(torch, dtype))


def keras_hub(folder: str, dtype: str) -> Callable[[], Any]:
    from keras_hub.models import BertBackbone, GPT2Backbone

    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        kind = {"bert": BertBackbone, "gpt2": GPT2Backbone}[json.load(file)["model_type"]]
    return lambda: kind.from_preset(folder, dtype=dtype)


def use_all(model: Any) -> None:
    """Reads every weight once: a system may have put that off until the first use."""
    for weight in model.parameters() if hasattr(model, "parameters") else getattr(model, "weights", ()):
        if hasattr(weight, "detach"):
            weight.detach().view(-1)[:: 1024].float().sum().item()


SYSTEMS = {"read + copy": read_and_copy, "tfloader": tfloader, "transformers (torch)": transformers, "KerasHub": keras_hub}


def measure(system: str, folder: str, dtype: str) -> dict[str, Any]:
    run = SYSTEMS[system](folder, dtype)
    forget_peak_memory()
    start = memory("VmRSS")
    began = time.perf_counter()
    model = run()
    seconds = time.perf_counter() - began
    use_all(model)
    used = time.perf_counter() - began
    return {"seconds": seconds, "used": used, "peak": memory("VmHWM") - start, "now": memory("VmRSS") - start}


if __name__ == "__main__":
    import sys
    if sys.argv[1] == "--measure":
        print(json.dumps(measure(*sys.argv[2:])))
    elif sys.argv[1] == "--write":
        print(json.dumps(write(sys.argv[2], int(sys.argv[3]), sys.argv[4])))
