"""Activation functions under unambiguous names.

"gelu" has two forms that differ by up to 5e-4, and every release means one of them: here "gelu" is always the exact
one and "gelu_tanh" always the approximation (Hendrycks and Gimpel, 2016). Which one a config file means is a matter
of its dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfloader.errors import ConfigError

ACTIVATION_NAMES = ("gelu", "gelu_tanh", "relu", "silu", "tanh", "sigmoid", "softmax", "linear")


def activation(name: str) -> Callable[[Any], Any]:
    """Returns the function of that name, made of `keras.ops`.

    Raises:
        ConfigError: the name is not one of ACTIVATION_NAMES.
    """
    from keras import activations, ops

    if name not in ACTIVATION_NAMES:
        raise ConfigError(f"Unknown activation {name!r}; there are {', '.join(ACTIVATION_NAMES)}.")
    if name.startswith("gelu"):
        return lambda x: ops.gelu(x, approximate=name == "gelu_tanh")
    return activations.get(name)
