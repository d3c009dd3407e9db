"""The functions behind the names in `tfloader.config.ACTIVATION_NAMES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfloader.config import ACTIVATION_NAMES
from tfloader.errors import ConfigError


@keras.saving.register_keras_serializable("tfloader")
def gelu_tanh(x: Any) -> Any:
    """The tanh approximation of gelu (Hendrycks and Gimpel, 2016); Keras' own "gelu" is the exact one."""
    return keras.ops.gelu(x, approximate=True)


def activation(name: str) -> Callable[[Any], Any]:
    """Returns the function of that name, which a saved model can note.

    Raises:
        ConfigError: the name is not one of ACTIVATION_NAMES.
    """
    if name not in ACTIVATION_NAMES:
        raise ConfigError(f"Unknown activation {name!r}; there are {', '.join(ACTIVATION_NAMES)}.")
    return gelu_tanh if name == "gelu_tanh" else keras.activations.get(name)
