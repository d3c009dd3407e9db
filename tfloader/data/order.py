"""Orders of items: drawn from a buffer, or in batches of like lengths."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def drawn_from_buffer(items: Iterable[Item], size: int, random: np.random.Generator) -> Iterator[Item]:
    """Each item once, drawn at random from the `size` items that were read but not given yet."""
    items = iter(items)
    buffer = list(itertools.islice(items, size))
    for item in items:
        place = random.integers(len(buffer))
        yield buffer[place]
        buffer[place] = item
    random.shuffle(buffer)
    yield from buffer


def bucketed(
    items: Iterable[Item],
    length_of: Callable[[Item], float],
    batch_size: int,
    pool_size: int,
    random: np.random.Generator,
) -> Iterator[Item]:
    """Each item once, in full batches of like lengths, the batches in random order; the last may be short.

    Items are expected in random order. Of each `pool_size` of them, some make up the short batch; the others are
    sorted, so that which of equal lengths meet in a batch is random as well.
    """
    items = iter(items)
    pool_size = -(-pool_size // batch_size) * batch_size
    while pool := list(itertools.islice(items, pool_size)):
        full = len(pool) // batch_size * batch_size
        ordered = sorted(pool[:full], key=length_of)
        for batch in random.permutation(full // batch_size):
            yield from ordered[batch * batch_size : (batch + 1) * batch_size]
        yield from pool[full:]
