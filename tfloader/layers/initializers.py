"""The initialiser of every kernel, which can be told that a checkpoint will fill the variables."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfloader")
class TruncatedNormal(keras.initializers.TruncatedNormal):
    """Normal values cut at two standard deviations, as BERT and GPT-2 are initialised.

    While `filled_later` is true it draws nothing and hands out memory as it comes: for 1.5B parameters drawing
    takes longer than loading. `Transformer` sets it only around a load, which then assigns every variable. It is not
    part of the config: a model cloned or read back is initialised properly.
    """

    filled_later = False

    def __call__(self, shape, dtype=None):
        if not self.filled_later:
            return super().__call__(shape, dtype)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            return tf.raw_ops.Empty(shape=shape, dtype=dtype or keras.config.floatx(), init=False)
        return ops.zeros(shape, dtype)
