"""Decoupled weight decay (Loshchilov and Hutter, 2019) as a part of each variable's own update."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from keras import ops

from tfloader.border import public
from tfloader.keras_private import variable_index
from tfloader.optimizers.extension import Extension, refuse
from tfloader.selection import EXPRESSION, as_patterns, matches, path

# Scales and offsets of normalisations, and biases: what weight decay excludes by convention (Devlin et al., 2018).
NORMS_AND_BIASES = (r"re:(^|/)(gamma|beta|scale|bias)$",)


class OwnDecay(Extension):
    """Keras' weight decay, moved from before all updates into that of each variable.

    There its learning rate is known (w -= learning_rate * weight_decay * w, so that a multiplier scales the decay too),
    a trust ratio can enclose it, and rows that are not updated do not decay. Keras' exclusions go by other names once
    compiled, and are not saved.

    Args:
        exclude_from_weight_decay: names of variables and layers (`tfloader.selection`) that do not decay.
    """

    @public
    def __init__(self, *args, exclude_from_weight_decay: str | Sequence[str] | None = (), **kwargs):
        super().__init__(*args, **kwargs)
        self.undecayed = as_patterns(exclude_from_weight_decay)

    def exclude_from_weight_decay(
        self, var_list: Sequence[Any] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Keras' method: excludes further variables, or what patterns choose. To be called before training."""
        refuse(self, (self.built, "exclude_from_weight_decay must be called before the optimizer is built."))
        exact = (f"{EXPRESSION}^{re.escape(path(variable))}$" for variable in var_list or ())
        self.undecayed = (*self.undecayed, *exact, *as_patterns(var_names))

    def prepare(self, variables):
        excluded = matches(self.undecayed, variables, "exclude_from_weight_decay", NORMS_AND_BIASES)
        self._decays = tuple(not patterns for patterns in excluded)
        super().exclude_from_weight_decay(var_list=list(variables))  # from Keras' decay, which comes before all updates
        super().prepare(variables)

    def decays(self, variable: Any) -> bool:
        return bool(self.weight_decay) and self._decays[variable_index(self, variable)]

    def update_step(self, gradient, variable, learning_rate):
        if self.decays(variable):
            rate = ops.cast(learning_rate, variable.dtype)
            self.assign_sub(variable, variable * ops.cast(self.weight_decay, variable.dtype) * rate)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "exclude_from_weight_decay": list(self.undecayed)}


class WeightDecay(OwnDecay):
    """Weight decay that leaves norms and biases alone.

    Args:
        weight_decay_rate: what Keras calls weight_decay.
        exclude_from_weight_decay: see `OwnDecay`; by default the variables named gamma, beta, scale or bias. Under
            bert4keras the default was (), that is nothing.
    """

    @public
    def __init__(
        self,
        *args,
        weight_decay_rate: float = 0.01,
        exclude_from_weight_decay: str | Sequence[str] | None = NORMS_AND_BIASES,
        weight_decay: Any = None,
        **kwargs,
    ):
        super().__init__(
            *args, weight_decay=weight_decay_rate, exclude_from_weight_decay=exclude_from_weight_decay, **kwargs
        )
        refuse(self, (weight_decay is not None, "weight_decay and weight_decay_rate are one; give only the latter."))

    def get_config(self):
        config = super().get_config()
        config["weight_decay_rate"] = config.pop("weight_decay")
        return config
