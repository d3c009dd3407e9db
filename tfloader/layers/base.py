"""What layers share: dense layers inside, arguments noted in the config, outputs without a mask."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from tfloader.keras_private import mask_lost_at


class Unmasked(keras.layers.Layer):
    """A layer that takes a Keras mask and hands none on: it acts in the output, or the output has no positions."""

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None


class MaskReader(Unmasked):
    """An Unmasked layer to which positions without a mask are all real; that a mask was lost on the way is said."""

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        unmasked = isinstance(x, keras.KerasTensor) and not args and kwargs.get("mask") is None
        if unmasked and (lost := mask_lost_at(x)) is not None:
            warnings.warn(
                f"{type(self).__name__} {self.name!r} takes padding for real positions: {lost!r} lost the mask of what "
                "it was given. Give the layer the mask [batch, length]: layer(x, mask=token_ids != 0).",
                stacklevel=2,
            )
        return super().__call__(x, *args, **kwargs)


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
