"""Sequences of different lengths as one array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfloader.border import public
from tfloader.errors import DataError, listing

MODES = ("post", "pre")


@public
def sequence_padding(
    inputs: Iterable[Any],
    length: int | Sequence[int] | None = None,
    value: float = 0,
    seq_dims: int = 1,
    mode: str = "post",
) -> np.ndarray:
    """Pads sequences to the same length and stacks them.

    Args:
        inputs: lists or arrays of numbers, of one rank, that differ in their first `seq_dims` dimensions only.
        length: the length to pad to, or one for each padded dimension. Longer sequences lose their end, also in
            mode "pre". None is the longest of them.
        value: what fills the gaps.
        seq_dims: how many dimensions are padded: 1 for token ids, 2 for matrices between tokens.
        mode: "post" fills behind the sequences, "pre" before them.

    Returns:
        [len(inputs), length ..., rest ...]. The dtype is what NumPy makes of the inputs together (int64 for lists
        of ints), except empty ones; it is widened where it cannot hold `value`.

    Raises:
        DataError: there is nothing to pad, or the sequences do not fit together.
    """
    if mode not in MODES:
        raise DataError(f"mode: expected one of {', '.join(MODES)}; found {mode!r}.")
    arrays, rest = _arrays(inputs, seq_dims)
    sizes = np.array([array.shape[:seq_dims] for array in arrays])
    target = sizes.max(axis=0) if length is None else np.broadcast_to(length, seq_dims)
    kept = np.minimum(sizes, target)
    starts = target - kept if mode == "pre" else np.zeros_like(kept)
    padded = np.full((len(arrays), *target, *rest), value, _dtype(arrays, value))
    for row, array, start, end, size in zip(padded, arrays, starts.tolist(), (starts + kept).tolist(), kept.tolist()):  # noqa: B905 - all of len(arrays)
        row[tuple(map(slice, start, end))] = array[tuple(map(slice, size))]
    return padded


def _arrays(inputs: Iterable[Any], seq_dims: int) -> tuple[list[np.ndarray], tuple[int, ...]]:
    """The sequences as arrays, and the shape that they share behind the padded dimensions."""
    arrays = []
    for index, item in enumerate(inputs):
        try:
            arrays.append(np.asarray(item))
        except ValueError as error:
            raise DataError(f"inputs[{index}]: not a regular array ({error}). Pad its inner lists first.") from None
    if not arrays:
        raise DataError("inputs: there are no sequences to pad. Give at least one.")
    model = next((array for array in arrays if array.size), arrays[0])
    rest = model.shape[seq_dims:]
    # An empty list does not show how many dimensions it would have.
    arrays = [array.reshape((0,) * seq_dims + rest) if array.shape == (0,) else array for array in arrays]
    expected = {(max(model.ndim, seq_dims), rest)}
    kinds = {array.dtype.kind for array in arrays}
    if {(array.ndim, array.shape[seq_dims:]) for array in arrays} != expected or not kinds <= set("biufc"):
        found = (f"inputs[{index}]: {array.dtype} of shape {array.shape}" for index, array in enumerate(arrays))
        behind = f", all of shape {rest} behind them" if rest else ""
        raise DataError(
            f"inputs: expected numbers with {seq_dims} dimensions to pad (seq_dims){behind}; found\n{listing(found)}"
        )
    return arrays, rest


def _dtype(arrays: list[np.ndarray], value: float) -> np.dtype:
    """The dtype of all sequences together, widened if need be to hold the value."""
    dtype = np.result_type(*({array.dtype for array in arrays if array.size} or {arrays[0].dtype}))
    with np.errstate(all="ignore"):
        held = np.asarray(value).astype(dtype)
    is_held = held == value or (np.isnan(value) and np.isnan(held))
    return dtype if is_held else np.result_type(dtype, np.min_scalar_type(value))
