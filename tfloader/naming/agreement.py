"""What a checkpoint stores although it follows from something else must agree with it: copies, and constants."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tfloader.checkpoints.base import Checkpoint
from tfloader.config import TransformerConfig
from tfloader.naming.base import Constant

_ROUNDING = {"float16": 1e-3, "bfloat16": 1e-2}


def differences(checkpoint: Checkpoint, first: str, second: str) -> Iterator[str]:
    """What is wrong with a tensor that should repeat another one."""
    if tuple(checkpoint[first].shape) != tuple(checkpoint[second].shape):
        yield f"{second} should repeat {first}, but has another shape"
    elif not same_bits(checkpoint.read(first), checkpoint.read(second)):
        yield f"{second} should repeat {first} (tied weights), but has other values"


def deviations(checkpoint: Checkpoint, name: str, constant: Constant, config: TransformerConfig) -> Iterator[str]:
    """What is wrong with a tensor that should hold what follows from the config."""
    if tuple(checkpoint[name].shape) != constant.shape(config):
        yield f"{name} has shape {tuple(checkpoint[name].shape)}, the config means {constant.shape(config)}"
        return
    rounding = _ROUNDING.get(checkpoint[name].dtype, 1e-6)
    found = checkpoint.read(name).astype("float32")
    if not np.allclose(found, constant.values(config), rtol=rounding, atol=rounding):
        yield f"{name} should be a constant that follows from the config, but has other values"


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    """Equal also where both hold the same NaN."""
    return first.dtype == second.dtype and np.array_equal(np.ravel(first).view("uint8"), np.ravel(second).view("uint8"))
