"""What wrote a checkpoint whose tensors are named as in no release, as far as the names tell."""

from __future__ import annotations

import re
from collections.abc import Collection

# Names that at least one of ten tensors has: (what they look like, what wrote them, what to do).
_WRITERS = (
    (
        r".*/\.ATTRIBUTES/VARIABLE_VALUE",
        "an object-based checkpoint of TensorFlow 2 (tf.train.Checkpoint, or save_weights of Keras 2), whose names are "
        "places in the objects of the program that wrote it",
        "Restore it in that program, and write the weights from there: tf.compat.v1.train.Saver keeps the names of "
        "variables, Keras 2's save_weights to .h5 those of layers.",
    ),
    (
        r"(.*/)?vars/\d+",
        "a `.weights.h5` of Keras 3, whose names are places in the order of a model's layers",
        "Build the model that it was saved from, call its load_weights, and save with tfloader's save.",
    ),
    (
        r".*/ExponentialMovingAverage",
        "a checkpoint of moving averages",
        "To take the averages pass rename={'*/ExponentialMovingAverage': ''} (--rename '*/ExponentialMovingAverage=').",
    ),
    (
        r".*/(Adam(_1)?|adam_[mv]|Momentum|slot_[a-z]+)|optimizer(_weights)?[/.].*",
        "a checkpoint with an optimizer's state",
        "If the weights are in another file beside it, give that one.",
    ),
)


def described(names: Collection[str]) -> str:
    """A sentence on what the checkpoint is and one on what to do; empty where the names do not tell."""
    for pattern, what, advice in _WRITERS:
        if sum(re.fullmatch(pattern, name) is not None for name in names) * 10 >= len(names) > 0:
            return f"It is {what}. {advice}"
    return ""
