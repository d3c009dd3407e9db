"""Parts that change what an optimizer writes: a trust ratio for each variable, and updates of some rows only.

A Keras optimizer writes through its own methods `assign`, `assign_add` and `assign_sub`; here these are overridden.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from keras import ops

from tfloader.border import public
from tfloader.keras_private import variable_index
from tfloader.optimizers.decay import OwnDecay
from tfloader.optimizers.extension import at_least_float32, refuse
from tfloader.selection import as_patterns, matches, path

PAST_US = (
    "it writes variables past its methods assign, assign_add and assign_sub, so that its updates cannot be reworked. "
    "Use these methods in its update_step."
)


class LayerAdaptation(OwnDecay):
    """Makes each variable's change as long as learning_rate * ||w|| (LAMB, You et al., 2020); the decay is part of it.

    Where the variable or its change is zero, the change stays as it is. (Keras' Lamb decays outside the trust ratio.)

    Args:
        exclude_from_layer_adaptation: names of variables and layers (`tfloader.selection`) with their plain update.
    """

    saved_arguments = ("exclude_from_layer_adaptation",)

    @public
    def __init__(self, *args, exclude_from_layer_adaptation: str | Sequence[str] | None = (), **kwargs):
        super().__init__(*args, **kwargs)
        self.exclude_from_layer_adaptation = as_patterns(exclude_from_layer_adaptation)
        # In a plain object, for an optimizer takes variables that are its attributes for its own.
        self._adapting = SimpleNamespace(variable=None, changes=[])

    def prepare(self, variables):
        excluded = matches(self.exclude_from_layer_adaptation, variables, "exclude_from_layer_adaptation")
        self._adapts = tuple(not patterns for patterns in excluded)
        super().prepare(variables)

    def scales_by_weights(self, variable) -> bool:
        return self.built and self._adapts[variable_index(self, variable)]

    def update_step(self, gradient, variable, learning_rate):
        if not self._adapts[variable_index(self, variable)]:
            super().update_step(gradient, variable, learning_rate)
            return
        self._adapting.variable, self._adapting.changes = variable, []
        try:
            super().update_step(gradient, variable, learning_rate)
            changes = self._adapting.changes
        finally:
            self._adapting.variable, self._adapting.changes = None, []
        refuse(self, (len(changes) <= self.decays(variable), PAST_US))
        change = sum(changes[1:], start=changes[0])
        dtype = at_least_float32(variable.dtype)
        wanted = ops.cast(learning_rate, dtype) * _norm(ops.cast(variable, dtype))
        length = _norm(ops.cast(change, dtype))
        usable = ops.logical_and(wanted > 0, length > 0)
        ratio = ops.where(usable, wanted / ops.where(usable, length, 1.0), 1.0)
        self.assign_add(variable, change * ops.cast(ratio, variable.dtype))

    def assign_add(self, variable, value):
        if variable is self._adapting.variable:
            self._adapting.changes.append(value)
        else:
            super().assign_add(variable, value)

    def assign_sub(self, variable, value):
        if variable is self._adapting.variable:
            self._adapting.changes.append(-value)
        else:
            super().assign_sub(variable, value)

    def assign(self, variable, value):
        if variable is self._adapting.variable:
            self.assign_add(variable, value - variable)
        else:
            super().assign(variable, value)


def _norm(tensor):
    return ops.sqrt(ops.sum(ops.square(tensor)))


class LazyOptimization(OwnDecay):
    """Does not update the rows of a table whose gradient is zero: neither them, nor their moments, nor by decay.

    A row is a vector along the last axis. (A table that is tied to a softmax has a gradient everywhere.)

    Args:
        include_in_lazy_optimization: names of the tables or their layers (`tfloader.selection`).
    """

    saved_arguments = ("include_in_lazy_optimization",)

    @public
    def __init__(self, *args, include_in_lazy_optimization: str | Sequence[str] | None = (), **kwargs):
        super().__init__(*args, **kwargs)
        self.include_in_lazy_optimization = as_patterns(include_in_lazy_optimization)
        self._updating = SimpleNamespace(rows=None, written=[])

    def prepare(self, variables):
        included = matches(self.include_in_lazy_optimization, variables, "include_in_lazy_optimization")
        self._lazy = tuple(bool(patterns) for patterns in included)
        super().prepare(variables)
        adapted = getattr(self, "_adapts", (False,) * len(variables))
        both = [path(v) for v, lazy, adapts in zip(variables, self._lazy, adapted, strict=True) if lazy and adapts]
        problem = (
            f"{both} would be updated lazily and with layer adaptation, but the length of some rows' change says "
            "nothing about the whole table. Add them to exclude_from_layer_adaptation."
        )
        refuse(self, (bool(both), problem))

    def update_step(self, gradient, variable, learning_rate):
        if not self._lazy[variable_index(self, variable)]:
            super().update_step(gradient, variable, learning_rate)
            return
        self._updating.rows = ops.any(ops.not_equal(gradient, 0), axis=-1, keepdims=True)
        try:
            super().update_step(gradient, variable, learning_rate)
            writes = sum(item is variable for item in self._updating.written)
        finally:
            self._updating.rows, self._updating.written = None, []
        refuse(self, (writes <= self.decays(variable), PAST_US))

    def assign(self, variable, value):
        super().assign(variable, self._of_rows(variable, value, variable))

    def assign_add(self, variable, value):
        super().assign_add(variable, self._of_rows(variable, value, 0))

    def assign_sub(self, variable, value):
        super().assign_sub(variable, self._of_rows(variable, value, 0))

    def _of_rows(self, variable, value, otherwise):
        rows = self._updating.rows
        if rows is None:
            return value
        self._updating.written.append(variable)
        shape = tuple(variable.shape)
        shared = f"it cannot update rows lazily: its state {path(variable)} of shape {shape} is shared by rows."
        refuse(self, (shape[:-1] != tuple(rows.shape[:-1]), shared))
        return ops.where(rows, value, ops.cast(otherwise, variable.dtype))
