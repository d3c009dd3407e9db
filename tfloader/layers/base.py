"""What layers share: dense layers inside, arguments noted in the config, outputs without a mask."""

from __future__ import annotations

from typing import Any

import keras


class Unmasked(keras.layers.Layer):
    """A layer that takes a Keras mask and hands none on: it acts in the output, or the output has no positions."""

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None


def dense(layer: Any, name: str, units: int, activation: Any = None) -> keras.layers.Dense:
    """A dense layer with the `use_bias`, `kernel_initializer` and dtype policy of the layer that it is for."""
    return keras.layers.Dense(
        units,
        activation,
        layer.use_bias,
        kernel_initializer=layer.kernel_initializer,
        dtype=layer.dtype_policy,
        name=name,
    )


def arguments(layer: Any, *names: str) -> dict[str, Any]:
    """Arguments that the layer keeps under their own names, for its `get_config`."""
    serialize, kind = keras.initializers.serialize, keras.initializers.Initializer
    values = {name: getattr(layer, name) for name in names}
    return {name: serialize(value) if isinstance(value, kind) else value for name, value in values.items()}
