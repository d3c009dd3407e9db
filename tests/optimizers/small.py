"""A model with an embedding that meets tokens several times, and its data."""

from __future__ import annotations

import keras
import numpy as np


def model(table: keras.layers.Layer | None = None) -> keras.Model:
    keras.utils.set_random_seed(0)
    ids = keras.Input((4,), dtype="int32")
    x = (keras.layers.Embedding(7, 4, name="table") if table is None else table)(ids)
    x = keras.layers.Flatten()(keras.layers.LayerNormalization(name="norm")(x))
    x = keras.layers.Dense(3, activation="tanh", name="dense")(x)
    return keras.Model(ids, keras.layers.Dense(2, name="head")(x))


def data(rows: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Token 6 never occurs; all others occur several times in a batch."""
    random = np.random.default_rng(0)
    return random.integers(0, 6, size=(rows, 4)), random.normal(size=(rows, 2)).astype("float32")


def fit(optimizer, epochs: int = 1, batch_size: int = 4, start: keras.Model | None = None, **compiling) -> keras.Model:
    """Trains the model (or `start`) on the data in their order; eagerly, unless told otherwise."""
    start = model() if start is None else start
    start.compile(optimizer, "mse", **{"run_eagerly": True, "jit_compile": False, **compiling})
    start.fit(*data(), batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
    return start


def difference(one: keras.Model, two: keras.Model) -> float:
    return max(np.abs(a - b).max() for a, b in zip(one.get_weights(), two.get_weights(), strict=True))
