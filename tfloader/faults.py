"""Values that are wrong at run time: an error where the graph can stop, and NaN in the result wherever it runs.

XLA (which Keras turns on by itself where there is a GPU), LiteRT and ONNX drop TensorFlow's assertions, and give some
row or other for an id that a table does not have. NaN goes through all of them.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def fault(right: Any, message: str, values: Any) -> Any:
    """What to add to a result: float32 of the shape of `right`, 0 where it is true and NaN where not.

    Where TensorFlow's assertions hold, it stops there with an InvalidArgumentError of the message and of the place and
    value of the first wrong one among `values` [shape of `right`, ...].
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def stop() -> Any:
            flat = tf.reshape(right, [-1])
            first = tf.argmax(tf.cast(~flat, tf.int32), output_type=tf.int32)
            value = tf.gather(tf.reshape(values, [tf.size(flat), -1]), first)
            place: list[Any] = []  # not by tf.unravel_index, which XLA does not know
            for size in reversed(tf.unstack(tf.shape(right))):
                place, first = [first % size, *place], first // size
            said = [f"{message} Its place and value:", tf.stack(place), value]
            return tf.raw_ops.Assert(condition=False, data=said, summarize=64)

        tf.cond(tf.reduce_all(right), tf.no_op, stop)
    return ops.cast(ops.where(right, 0.0, float("nan")), "float32")


def whole_ids(ids: Any, size: Any) -> tuple[Any, Any]:
    """Numbers as int32 from 0 to size - 1, and whether each was such a one before."""
    ids = ops.convert_to_tensor(ids)
    found = ops.clip(ops.cast(ids, "int32"), 0, size - 1)
    return found, ops.equal(ops.cast(found, ids.dtype), ids)


def checked_ids(ids: Any, size: Any, message: str, free: Any = None) -> tuple[Any, Any]:
    """Ids as int32 from 0 to size - 1, and the `fault` of those that were none.

    Args:
        free: booleans of the shape of ids, true where any number may stand; None: nowhere.
    """
    found, right = whole_ids(ids, size)
    right = right if free is None else ops.logical_or(right, free)
    return found, fault(right, message, ids)
