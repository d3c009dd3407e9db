"""DataGenerator: a list or a stream of items as batches, in an order that depends on seed and epoch alone.

Write `collate(items)`, which makes one batch of a list of items, or `__iter__`, as for bert4keras. The batches of
a list have numbers, so that Keras may prepare them in threads or processes; a stream only goes forward.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfloader.border import public
from tfloader.data.feeding import as_batched_dataset, as_dataset, with_free_lengths
from tfloader.errors import DataError

if TYPE_CHECKING:
    import tensorflow as tf


class DataGenerator(keras.utils.PyDataset):
    """Batches of a list of items, or of a stream of them.

    Args:
        data: a list (anything with `len` and `[index]`), or a stream: an iterable without a length, which each pass
            iterates over anew.
        batch_size: items in a batch; the last batch of a pass may have fewer.
        buffer_size: how many items of a stream are held to draw from when it is shuffled, and among how many items
            `length_of` looks for like ones. The default is 1000 batches.
        shuffle: whether `fit(data)` meets the items in a new order each epoch. Else they keep the order of the data,
            which `predict` needs.
        length_of: the length of an item. Batches of shuffled passes then have items of like lengths, which need little
            padding. Passes in the order of the data take no notice.
        seed: of all orders: with the same seed, the same epoch always has the same order.
        workers, use_multiprocessing, max_queue_size: as in keras.utils.PyDataset. Forked processes all start with
            the same global random numbers.

    A subclass has one of the two:

        def collate(self, items):                   def __iter__(self, random=False):
            ids, labels = zip(*items)                   ids, labels = [], []
            ids = sequence_padding(ids)                 for is_end, item in self.sample(random):
            return ids, np.array(labels)                    ...
                                                            if len(ids) == self.batch_size or is_end:
                                                                yield sequence_padding(ids), np.array(labels)
                                                                ids, labels = [], []

    In each pass over the data every item comes once:

        model.fit(data, epochs=5)                                       one pass an epoch
        model.fit(data.repeat(), steps_per_epoch=500, epochs=5)         shuffled passes without end, from any step on
        model.fit(data.forfit(), steps_per_epoch=500, epochs=5)         what `__iter__` gives; the way for a stream

    In a batch, several inputs may be a list, `[ids, segments], labels`: it becomes a tuple, as Keras wants. Inputs
    without targets are `(inputs,)`. Keras' `fit` itself mixes the batches of `data` by Python's global random numbers,
    and warns that it cannot mix endless ones; with shuffle=False it does neither.

    Attributes:
        steps: batches in a pass; None for a stream.
        epoch: which order the next shuffled pass has.
    """

    @public
    def __init__(
        self,
        data: Iterable[Any],
        batch_size: int = 32,
        buffer_size: int | None = None,
        *,
        shuffle: bool = False,
        length_of: Callable[[Any], float] | None = None,
        seed: int = 0,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
    ) -> None:
        super().__init__(workers, use_multiprocessing, max_queue_size)
        if batch_size < 1:
            raise DataError(f"batch_size: expected at least 1, found {batch_size}.")
        self.data: Any = data
        self.batch_size = batch_size
        self.buffer_size = buffer_size or batch_size * 1000
        self.shuffle, self.seed = shuffle, seed
        self.length_of: Any = length_of
        self.epoch = 0
        self.steps = -(-len(self.data) // batch_size) if hasattr(data, "__len__") else None
        self._orders: dict[int, np.ndarray] = {}
        if self.steps == 0:
            raise DataError("data: there are no items.")

    # What a subclass has: one of the two

    def collate(self, items: list[Any]) -> Any:
        """Returns the batch of some items: (inputs, targets), or what else Keras takes."""
        if type(self).__iter__ is DataGenerator.__iter__:
            raise NotImplementedError(f"{type(self).__name__} needs collate(items), or __iter__ with sample().")
        part = copy.copy(self)
        part.data = items
        batches = list(part.__iter__(False))
        if len(batches) != 1:
            raise DataError(
                f"{type(self).__name__}.__iter__ makes {len(batches)} batches of {len(items)} items, so there are no "
                "batches by number. Use fit(data.forfit(), steps_per_epoch=...), or write collate(items)."
            )
        return batches[0]

    def __iter__(self, random: bool = False) -> Iterator[Any]:
        """One pass over the batches, in the order of the data or in a new random one."""
        items = []
        for is_end, item in self.sample(random):
            items.append(item)
            if len(items) == self.batch_size or is_end:
                yield self.collate(items)
                items = []

    def sample(self, random: bool = False) -> Iterator[tuple[bool, Any]]:
        """One pass over the items: (whether it is the last, item)."""
        epoch = self.epoch if random else None
        self.epoch += random
        if self.steps is None:
            items = iter(self.data) if epoch is None else self._mixed_stream(epoch)
        else:
            items = (self.data[place] for place in self._order(epoch))
        before = list(itertools.islice(items, 1))
        for item in items:
            yield False, before.pop()
            before.append(item)
        for item in before:
            yield True, item

    # Batches by number

    def __len__(self) -> int:
        if self.steps is None:
            raise TypeError(f"{type(self).__name__} of a stream has no length")
        return self.steps

    @property
    def num_batches(self) -> int | None:
        return self.steps

    def batch(self, index: int, epoch: int | None = None) -> Any:
        """Batch number `index` in the random order of an epoch; None is the order of the data."""
        self._check_numbered()
        if not 0 <= index < len(self):
            raise IndexError(f"there is no batch {index}; there are {self.steps}")
        places = self._order(epoch)[index * self.batch_size : (index + 1) * self.batch_size]
        return keras.tree.lists_to_tuples(self.collate([self.data[place] for place in places]))

    def __getitem__(self, index: int) -> Any:
        epoch = self.epoch if self.shuffle else None
        return with_free_lengths(lambda place: self.batch(place, epoch), index)

    def on_epoch_end(self) -> None:
        self.epoch += 1

    def repeat(self, start: int = 0) -> keras.utils.PyDataset:
        """Shuffled batches of a list without end, from step number `start` on: epoch start // len(self) and so on.

        A training that stopped after n steps resumes exactly with `repeat(n)`.
        """
        self._check_numbered()
        return _Endless(self, start)

    def _check_numbered(self) -> None:
        if self.steps is None:
            raise DataError(
                f"{type(self).__name__}: the batches of a stream have no numbers. Use fit(data.forfit(), "
                "steps_per_epoch=...), or read the stream into a list."
            )

    # Batches as a stream

    def forfit(self, random: bool = True) -> tf.data.Dataset:
        """What `__iter__` gives, pass after pass without end, for `fit` with steps_per_epoch."""
        return as_dataset(lambda: self._passes(random))

    def fortest(self, random: bool = False) -> tf.data.Dataset:
        """The inputs alone, for `predict` with steps."""
        return as_dataset(lambda: ((batch[0],) for batch in self._passes(random)))

    def to_dataset(
        self, types: Any, shapes: Any, names: Any = None, padded_batch: bool = False, random: bool = True
    ) -> tf.data.Dataset:
        """Batches of single examples, without end: here, as for bert4keras, `__iter__` gives one example at a time.

        Args:
            types, shapes: dtypes and shapes of one example, nested as the examples are.
            names: makes dictionaries of the examples: a name for one value, a list of names for a tuple of values,
                a list of such for (inputs, targets).
            padded_batch: pads the examples of a batch to the longest of them; else all must have the same shapes.
        """
        return as_batched_dataset(lambda: self._passes(random), self.batch_size, types, shapes, names, padded_batch)

    def _passes(self, random: bool) -> Iterator[Any]:
        for count in itertools.count():
            batch = None
            for batch in self.__iter__(random):
                yield batch
            if batch is None:
                raise DataError(
                    f"{type(self).__name__}: pass number {count} over the data gave nothing. Give an iterable that "
                    "starts anew each time (an object with __iter__), not an iterator, which is used up after one pass."
                )

    # Orders

    def _order(self, epoch: int | None) -> np.ndarray | range:
        """The places of a list's items in the random order of an epoch; None is the order of the data."""
        if epoch is None:
            return range(len(self.data))
        order = self._orders.get(epoch)
        if order is None:
            random = np.random.default_rng((self.seed, epoch))
            order = random.permutation(len(self.data))
            if self.length_of is not None:
                batched = self._bucketed(order.tolist(), self._lengths.__getitem__, random)
                order = np.fromiter(batched, int, len(order))
            # Two are kept: workers may begin an epoch while others are at the end of the one before.
            self._orders = {**dict([*self._orders.items()][-1:]), epoch: order}
        return order

    def _mixed_stream(self, epoch: int) -> Iterator[Any]:
        random = np.random.default_rng((self.seed, epoch))
        items = drawn_from_buffer(self.data, self.buffer_size, random)
        return items if self.length_of is None else self._bucketed(items, self.length_of, random)

    def _bucketed(self, items: Iterable[Any], length_of: Callable, random: np.random.Generator) -> Iterator[Any]:
        return bucketed(items, length_of, self.batch_size, self.buffer_size, random)

    @functools.cached_property
    def _lengths(self) -> list[float]:
        return [self.length_of(item) for item in self.data]


class _Endless(keras.utils.PyDataset):
    """The shuffled batches of a list from some step on; batch number i is always the same."""

    num_batches = None

    def __init__(self, data: DataGenerator, start: int) -> None:
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self.data, self.start = data, start

    def __getitem__(self, index: int) -> Any:
        return with_free_lengths(self._batch, index)

    def _batch(self, index: int) -> Any:
        epoch, place = divmod(self.start + index, len(self.data))
        return self.data.batch(place, epoch)


def drawn_from_buffer(items: Iterable[Any], size: int, random: np.random.Generator) -> Iterator[Any]:
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
    items: Iterable[Any],
    length_of: Callable[[Any], float],
    batch_size: int,
    pool_size: int,
    random: np.random.Generator,
) -> Iterator[Any]:
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
