"""Batches of varying lengths on their way into `fit`.

Keras takes each size in which the first two batches agree for fixed, so that training fails at the first batch of
another length, be that hours later. Here, all sizes but 1 are free.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfloader.keras_private import is_asked_for_shapes

if TYPE_CHECKING:
    import tensorflow as tf


def with_free_lengths(batch: Callable[[int], Any], index: int) -> Any:
    """Batch number `index`; but where Keras only asks for shapes, number 1 differs from number 0 in lengths."""
    if index == 1 and is_asked_for_shapes():
        return keras.tree.map_structure(_of_other_lengths, batch(0), batch(1))
    return batch(index)


def _of_other_lengths(one: Any, other: Any) -> np.ndarray | None:
    if one is None:
        return None
    one = np.asarray(one)
    sizes = zip(one.shape, np.shape(other), strict=True)
    return np.zeros([size + (not _is_fixed(size, also)) for size, also in sizes], one.dtype)


def _is_fixed(size: int, also: int) -> bool:
    return size == also == 1  # losses and metrics go by whether targets are [batch, 1]


def as_dataset(batches: Callable[[], Iterator[Any]]) -> tf.data.Dataset:
    """A tf.data.Dataset of the batches that an iterator gives, which is made anew for each pass over the dataset."""
    import tensorflow as tf

    def spec(one: Any, other: Any) -> tf.TensorSpec:
        sizes = zip(np.shape(one)[1:], np.shape(other)[1:], strict=True)
        return tf.TensorSpec([None, *(1 if _is_fixed(*pair) else None for pair in sizes)], np.asarray(one).dtype)

    running = batches()
    first = list(itertools.islice(running, 2))
    signature = keras.tree.map_structure(spec, *map(keras.tree.lists_to_tuples, (first[0], first[-1])))
    begun = [itertools.chain(first, running)]  # the beginning of a stream may not come twice
    return _dataset(lambda: begun.pop() if begun else batches(), signature).prefetch(tf.data.AUTOTUNE)


def as_batched_dataset(
    examples: Callable[[], Iterator[Any]], batch_size: int, types: Any, shapes: Any, names: Any, padded: bool
) -> tf.data.Dataset:
    """A tf.data.Dataset of batches of the single examples that an iterator gives."""
    import tensorflow as tf

    def spec(types: Any, shapes: Any) -> Any:
        if isinstance(types, dict):
            return {name: spec(types[name], shapes[name]) for name in types}
        return tuple(map(spec, types, shapes)) if isinstance(types, (tuple, list)) else tf.TensorSpec(shapes, types)

    signature = spec(_named(names, types), _named(names, shapes))
    dataset = _dataset(lambda: (_named(names, example) for example in examples()), signature)
    return (dataset.padded_batch if padded else dataset.batch)(batch_size).prefetch(tf.data.AUTOTUNE)


def _dataset(elements: Callable[[], Iterator[Any]], signature: Any) -> tf.data.Dataset:
    import tensorflow as tf

    return tf.data.Dataset.from_generator(
        lambda: map(keras.tree.lists_to_tuples, elements()), output_signature=signature
    )


def _named(names: Any, values: Any) -> Any:
    if names is None:
        return values
    if isinstance(names, str):
        return {names: values}
    if isinstance(names[0], str):
        return dict(zip(names, values, strict=True))
    return tuple(_named(part, value) for part, value in zip(names, values, strict=True))
