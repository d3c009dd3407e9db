"""The products with weights in a decoding step, and second copies of kernels in the layout that is fastest for them.

TensorFlow multiplies one row in bfloat16 by a transposed kernel [units, size] in 0.5 to 0.9 of the time that it takes
for [size, units], and several small products of the same rows are faster as one. A copy costs memory and is stale once
the weights are trained on: `KernelCopies` keeps it from call to call and renews it when its weights have changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfloader.layers.embeddings import TokenEmbedding

# Bytes of a kernel up to which a product's start, the waking of threads, is a large part of its time.
SMALL_KERNEL = 2**22


class KernelCopies:
    """The copies that a decoder's steps read. Which layers need one is noted while prompts are read; copies are made
    before the first step.

    Args:
        variables: all weights of the model.
        dtype: what is computed in.
        spare_memory: bytes; a model whose weights take more than this in `dtype` gets no copies.
        transposed: whether copies are [units, size], which is for one row.
    """

    def __init__(self, variables: Sequence[Any], dtype: str, spare_memory: int, transposed: bool = False) -> None:
        self.dtype = tf.as_dtype(dtype)
        self.transposed = transposed
        size = sum(int(np.prod(variable.shape)) for variable in variables) * self.dtype.size
        # Elsewhere than on CPUs nothing was measured.
        self.wanted = size <= spare_memory and not tf.config.list_logical_devices("GPU")
        self._noted: dict[tuple[int, ...], Sequence[Any]] = {}
        self.made: dict[tuple[int, ...], KernelCopy] = {}

    def note(self, *layers: Any) -> None:
        """Notes layers that read the same rows in every step."""
        if self.wanted and all(type(layer) in KERNELS and is_stored(layer) for layer in layers):
            largest = max(int(np.prod(kernel_of(layer).shape)) for layer in layers) * self.dtype.size
            if self.transposed or (len(layers) > 1 and largest < SMALL_KERNEL):
                self._noted[ids(layers)] = layers

    def of(self, *layers: Any) -> KernelCopy | None:
        """One product in place of these layers', which read the same rows; None: each is to be called."""
        return self.made.get(ids(layers))

    def refresh(self) -> None:
        """Makes the copies that are missing, and renews those whose weights have changed."""
        for copy in self.made.values():
            copy.refresh()
        joined = {one for group in self._noted if len(group) > 1 for one in group}
        for group, layers in self._noted.items():
            if group not in self.made and (len(group) > 1 or joined.isdisjoint(group)):
                self.made[group] = KernelCopy(layers, self.dtype, self.transposed)


def ids(layers: Sequence[Any]) -> tuple[int, ...]:
    return tuple(map(id, layers))


class KernelCopy:
    """One product in place of those of several layers, or of one whose kernel is stored transposed."""

    def __init__(self, layers: Sequence[Any], dtype: tf.DType, transposed: bool) -> None:
        self.layers = layers
        self.dtype = dtype
        self.transposed = transposed
        self._read = self._values()
        self.variables = [tf.Variable(part, trainable=False) for part in self._parts(self._read)]

    def product(self, rows: Any) -> Any:
        """[n, size] -> what the layers give before activation, side by side, [n, their units]."""
        return product(rows, *self.variables, transposed=self.transposed)

    def refresh(self) -> None:
        values = self._values()
        if any(map(is_other, tf.nest.flatten(values), tf.nest.flatten(self._read))):
            for variable, part in zip(self.variables, self._parts(values), strict=True):
                variable.assign(part)
            self._read = values  # at the end, as an interrupt may come before

    def _values(self) -> list[list[Any]]:
        biases = [layer.bias for layer in self.layers if getattr(layer, "use_bias", False)]
        return [list(map(tf.convert_to_tensor, part)) for part in (map(kernel_of, self.layers), biases)]

    def _parts(self, values: list[list[Any]]) -> list[Any]:
        """Kernel, and bias if there is one."""
        kernels, biases = ([tf.cast(value, self.dtype) for value in part] for part in values)
        if not self.transposed:
            return [tf.concat(part, axis=-1) for part in (kernels, biases) if part]
        kinds = map(type, self.layers)  # a table's kernel is [units, size] already
        turned = [x if kind is TokenEmbedding else tf.transpose(x) for kind, x in zip(kinds, kernels, strict=True)]
        kernel = tf.concat(turned, axis=0)
        # A product with a bias is another one in TensorFlow: for one row it takes two thirds of the time.
        return [kernel, tf.concat(biases, axis=0) if biases else tf.zeros(kernel.shape[0], self.dtype)]


def product(rows: Any, kernel: Any, bias: Any = None, transposed: bool = False) -> Any:
    """[n, size] times [size, units], or [units, size] if transposed."""
    found = tf.matmul(rows, kernel, transpose_b=transposed)
    return found if bias is None else tf.nn.bias_add(found, bias)


# What kernels there are copies of: those of these classes, not of classes derived from them.
KERNELS = {keras.layers.Dense: "kernel", TokenEmbedding: "embeddings"}


def kernel_of(layer: Any) -> Any:
    return getattr(layer, KERNELS[type(layer)])


def is_stored(layer: Any) -> bool:
    """Whether its kernel is one variable: not so if quantised (with scales beside) or with LoRA (a sum at each use)."""
    return layer.quantization_mode is None and isinstance(kernel_of(layer), keras.Variable)


def is_other(a: Any, b: Any) -> bool:
    """Whether two tensors have different memory. While a tensor is held, updates of its variable write elsewhere."""
    first, second = (np.frombuffer(memoryview(tf.bitcast(value, tf.uint8)), "uint8") for value in (a, b))
    return first.ctypes.data != second.ctypes.data
