"""The initialiser of every kernel, which can be told that a checkpoint will fill the variables."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from tfloader.checkpoints.base import aligned_empty


@keras.saving.register_keras_serializable("tfloader")
class TruncatedNormal(keras.initializers.TruncatedNormal):
    """Normal values cut at two standard deviations, as BERT and GPT-2 are initialised.

    While `filled_later` is true it draws nothing and hands out memory as it comes: for 1.5B parameters drawing
    takes longer than loading. `Transformer` sets it only around a load, which then assigns every variable. It is not
    part of the config: a model cloned or read back is initialised properly.
    """

    filled_later = False

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        if not self.filled_later:
            return super().__call__(shape, dtype)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # Not tf.raw_ops.Empty: among these, in TensorFlow's own pool, what is read of a file would take ever new
            # places, a gigabyte of them for 1.5B parameters, and the pool gives nothing back.
            dtype = tf.as_dtype(dtype or keras.config.floatx())
            memory = aligned_empty((*shape, dtype.size), np.dtype("uint8"))
            return tf.bitcast(tf.experimental.dlpack.from_dlpack(memory.__dlpack__()), dtype)
        return ops.zeros(shape, dtype)
