"""Keras' LoRA adapters on a layer (Hu et al., 2021, arXiv:2106.09685): base + alpha / rank * a b."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops


@dataclass(frozen=True)
class Adapter:
    """A layer that Keras can adapt; stands for its base variable with the adapter merged into it.

    Attributes:
        layer: a Dense, EinsumDense, Embedding, or anything else with Keras' `enable_lora`.
        base: its variable "kernel" or "embeddings".
    """

    layer: keras.layers.Layer
    base: Any

    @property
    def path(self) -> str:
        return self.base.path.removesuffix(f"/{self.base.name}")

    @property
    def names(self) -> tuple[str, str]:
        """The layer's attributes that hold a and b."""
        return f"lora_{self.base.name}_a", f"lora_{self.base.name}_b"

    @property
    def pair(self) -> tuple[Any, Any]:
        """The variables a [..., rank] and b [rank, size]."""
        return tuple(getattr(self.layer, name) for name in self.names)

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.base, *self.pair)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.base.shape)

    @property
    def dtype(self) -> str:
        return self.base.dtype

    @property
    def value(self) -> Any:
        """The merged value: what the layer computes with, in the dtype of the variable."""
        a, b = self.pair
        change = self.layer.lora_alpha / self.layer.lora_rank * ops.matmul(a, b)
        return ops.cast(ops.add(self.base, change), self.base.dtype)

    def remove(self) -> None:
        """Makes the layer a plain one, without the change."""
        for name in self.names:
            # Functions that were compiled with the adapter keep its variables: there, too, the change is gone.
            getattr(self.layer, name).assign(ops.zeros(getattr(self.layer, name).shape))
            delattr(self.layer, name)
        self.layer.lora_enabled = False
        self.layer.lora_rank = self.layer.lora_alpha = None


def adaptable(layer: Any) -> Adapter | None:
    """The Adapter of a built layer that Keras can adapt, adapted or not; else None."""
    if not hasattr(layer, "enable_lora"):
        return None
    bases = [variable for variable in layer.weights if variable.name in ("kernel", "embeddings")]
    return Adapter(layer, bases[0]) if bases else None


def adapted(layer: Any) -> Adapter | None:
    """The Adapter of a layer on which LoRA is enabled; else None."""
    return adaptable(layer) if getattr(layer, "lora_enabled", False) else None
