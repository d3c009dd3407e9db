"""The items of a task, from whatever holds them: lists, tables of pandas, data sets of Hugging Face, tf.data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfloader.errors import DataError


def as_items(data: Any) -> list[Any]:
    """Reads a collection into a list: each item is a dictionary (of a row's columns) or what the collection gives.

    Raises:
        DataError: `data` is no collection of items, or has none.
    """
    if hasattr(data, "to_dict") and hasattr(data, "columns"):
        items = data.to_dict("records")
    elif hasattr(data, "as_numpy_iterator"):
        items = [_decoded(item) for item in data.as_numpy_iterator()]
    elif isinstance(data, (str, bytes, Mapping)) or not isinstance(data, Iterable):
        raise DataError(f"Expected a list of items, a table or a data set; found {type(data).__name__}.")
    else:
        items = list(data)
    if not items:
        raise DataError("There are no items. Is it the right file?")
    return items


def fields(item: Any, names: Sequence[str], optional: int) -> list[Any]:
    """The parts of an item under these names: those of a dictionary, or the parts of a tuple in this order.

    Args:
        optional: so many of the names, from the end, may be absent; their parts are None.

    Raises:
        DataError: saying which part is missing.
    """
    if isinstance(item, Mapping):
        missing = [name for name in names[: len(names) - optional] if name not in item]
        if missing:
            raise DataError(f"no {', '.join(map(repr, missing))} among the columns {', '.join(map(repr, item))}")
        return [item.get(name) for name in names]
    parts = list(item) if isinstance(item, (tuple, list)) else [item]
    if not len(names) - optional <= len(parts) <= len(names):
        raise DataError(f"{len(parts)} parts, expected ({', '.join(names)})")
    return parts + [None] * (len(names) - len(parts))


def _decoded(value: Any) -> Any:
    """Strings of TensorFlow, which are bytes, as text; arrays as what they hold."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Mapping):
        return {name: _decoded(part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(map(_decoded, value))
    return _decoded(value.tolist()) if hasattr(value, "tolist") else value
