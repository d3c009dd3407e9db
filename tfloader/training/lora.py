"""LoRA by name (Hu et al., 2021, arXiv:2106.09685): Keras' own adapters, switched on and merged.

An adapted layer computes with base + alpha / rank * a b, of which only a and b train.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import keras

from tfloader.border import public
from tfloader.errors import TrainingError, listing
from tfloader.layers.lora import Adapter, adaptable, adapted
from tfloader.optimizers.extension import check_number
from tfloader.selection import all_layers, select
from tfloader.training.freezing import Trainable, recompile, train_only


def adapters(model: keras.Model) -> list[Adapter]:
    """All adapters of a model."""
    return [found for layer in all_layers(model) if (found := adapted(layer))]


@public
def enable_lora(
    model: keras.Model,
    patterns: str | Sequence[str],
    rank: int = 8,
    alpha: float | None = None,
    train: str | Sequence[str] = (),
) -> Trainable:
    """Adds adapters to layers chosen by name and freezes all else: `enable_lora(model, ["query", "value"], rank=8)`.

    The model computes at first what it did before. Call it before `compile`; functions compiled earlier (`predict` of
    another model with the same layers) stay without the adapters. `tfloader.save` writes the merged weights; so does
    Keras' `model.save`, which reads back adapters of zeros that learn nothing: merge them, or use `save_adapters`.

    Args:
        patterns: as for `freeze`, of Dense, EinsumDense and Embedding layers: "query", "*/query", "Pooler-Dense",
            "Transformer-11-*".
        rank: size of the adapters.
        alpha: the change is scaled by alpha / rank; None: by 1.
        train: patterns of what trains beside all adapters of the model, such as a new head.

    Raises:
        TrainingError: a pattern fits no such layer (with near names), or a layer cannot have an adapter; nothing is
            changed then.
    """
    check_number("enable_lora", "rank", rank, 1, kind=Integral)
    candidates = {id(found.base): found for layer in all_layers(model) if (found := adaptable(layer))}
    bases = [item.base for item in candidates.values()]
    chosen = [candidates[id(base)] for base in select(model, patterns, bases, "layers that can have LoRA")]
    others = select(model, train)
    problems = [f"{item.path}: {problem}" for item in chosen for problem in obstacles(item.layer)]
    if problems:
        raise TrainingError(f"LoRA cannot be enabled on these layers:\n{listing(problems)}")
    with scope_of(model):
        for item in chosen:
            item.layer.enable_lora(rank, lora_alpha=alpha)
    return train_only(model, [*(part for item in adapters(model) for part in item.pair), *others])


def scope_of(model: keras.Model) -> Any:
    """Where new variables of a model belong: the scope of its tf.distribute strategy."""
    strategy = getattr(model, "distribute_strategy", None)  # on TensorFlow alone
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def obstacles(layer: keras.layers.Layer) -> Iterator[str]:
    """Why a layer cannot have an adapter."""
    if layer.lora_enabled:
        yield "has LoRA already; merge_lora(model) makes it plain"
    if layer.quantization_mode not in (None, "int8", "int4"):
        yield f"is quantised ({layer.quantization_mode})"
    if getattr(layer, "kernel_constraint", None) or getattr(layer, "embeddings_constraint", None):
        yield "has a constraint on its kernel"


@public
def merge_lora(model: keras.Model) -> list[str]:
    """Adds every adapter to its base weights and removes it; gives the paths of the layers that had one.

    The model is a plain one again, and computes the same. Its base weights stay frozen, until `unfreeze(model)`.

    Raises:
        TrainingError: there is no adapter, or a layer is quantised, whose weights cannot hold the sum exactly; nothing
            is changed then.
    """
    found = adapters(model)
    if not found:
        raise TrainingError(f"The model {model.name!r} has no LoRA adapters to merge.")
    quantised = [item.path for item in found if item.layer.quantization_mode]
    if quantised:
        raise TrainingError(
            f"These layers are quantised, and rounding the sum again would change it:\n{listing(quantised)}\n"
            "Use save_adapters, load_adapters on the model that is not quantised, and merge there."
        )
    gc.freeze()  # Keras collects garbage after each deleted variable, which need not search all older objects again
    try:
        for item in found:
            item.base.assign(item.value)
            item.remove()
    finally:
        gc.unfreeze()
    recompile(model)
    return [item.path for item in found]
