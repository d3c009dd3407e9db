"""Keys and values of earlier positions: what attention asks in place of reading a text anew at each token.

Two stores have the methods that attention asks (see `tfloader.layers.attention.Uncached`): `PromptStore` remembers what
whole prompts are read with, `StepStore` adds one token a row. They know layers by name and number of calls: one layer
may serve in several blocks, and has other keys and values in each.

Keys are in the order of the text, padding on its left, and an index among them is a *slot*. A step writes its own slot
of the step cache in place. This begins with the prompt, unless several rows continue one prompt (beams, samples): then
they share the prompt's part, which is only read.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import tensorflow as tf

from tfloader.generation.fused import current, no_copy
from tfloader.layers.products import computing_with

SLOTS = 64  # free slots that a cache is given at a time

Pair = tuple[Any, Any]  # keys and values, [rows, heads, slots, head_size]


class Read(NamedTuple):
    """What is known after prompts (of an encoder-decoder: sources and the start token) were read.

    Attributes:
        logits: float32 [prompts, vocab] of the next token.
        hidden: [prompts, length, size] last hidden states.
        keys_values: name of a self-attention layer -> its Pair.
        tokens: int32 [prompts, length] what the keys are of, padded on the left.
        padding: int32 [prompts] how much of that is padding.
        position: int32 [prompts] of the next token.
        source: name of a cross-attention layer -> its Pair; source_mask: int32 [prompts, source length], 0 at padding.
    """

    logits: Any
    hidden: Any
    keys_values: dict[str, Pair]
    tokens: Any
    padding: Any
    position: Any
    source: dict[str, Pair]
    source_mask: Any


class Prompt(NamedTuple):
    """What every step reads, and none changes.

    Attributes:
        keys_values: Pairs that `copies` rows share; {} where each row's cache begins with its own prompt.
        tokens: int32 [rows, shared slots]; length: int32, slots that the prompt takes, shared or not.
        padding: int32 [rows] how many of the first slots are padding.
        source, source_mask: as in `Read`, which `copies` rows share.
        source_bias: [rows, 1, 1, source length] what hides its padding, once the loop has begun.
    """

    keys_values: dict[str, Pair]
    tokens: Any
    length: Any
    padding: Any
    source: dict[str, Pair]
    source_mask: Any
    source_bias: Any = ()


class StepCache(NamedTuple):
    """What steps write.

    Attributes:
        keys_values: name of a layer -> Pair with free slots.
        tokens: int32 [rows, slots].
        slot: int32, the slot that the next token takes.
    """

    keys_values: dict[str, Pair]
    tokens: Any
    slot: Any

    @property
    def slots(self) -> Any:
        return tf.shape(self.tokens)[1]

    @property
    def free(self) -> Any:
        return self.slots - self.slot

    def longer(self, by: int) -> StepCache:
        pairs = tf.nest.map_structure(lambda x: tf.pad(x, [[0, 0], [0, 0], [0, by], [0, 0]]), self.keys_values)
        return self._replace(keys_values=pairs, tokens=tf.pad(self.tokens, [[0, 0], [0, by]]))

    def rows(self, order: Any) -> StepCache:
        """With other rows: those whose numbers `order` [rows] has."""
        pairs, tokens = tf.nest.map_structure(lambda x: tf.gather(x, order), (self.keys_values, self.tokens))
        return self._replace(keys_values=pairs, tokens=tokens)


def begin(read: Read, copies: int, shared: bool, slots: int) -> tuple[Prompt, StepCache]:
    """The cache after prompts, each continued by `copies` rows, with `slots` free slots.

    Args:
        shared: whether the rows share their prompt's keys and values, or have a copy each.
    """
    length = tf.shape(read.tokens)[1]
    if copies == 1 or not shared:
        read = tf.nest.map_structure(lambda x: x if copies == 1 else tf.repeat(x, copies, axis=0), read)
        cache = StepCache(read.keys_values, read.tokens, length).longer(slots)
        return Prompt({}, read.tokens[:, :0], length, read.padding, read.source, read.source_mask), cache
    tokens, padding = tf.repeat(read.tokens, copies, axis=0), tf.repeat(read.padding, copies, axis=0)
    rows = tokens.shape[0]
    pairs = tf.nest.map_structure(lambda x: tf.zeros([rows, x.shape[1], slots, x.shape[3]], x.dtype), read.keys_values)
    cache = StepCache(pairs, tf.zeros([rows, slots], tf.int32), tf.constant(0))
    return Prompt(read.keys_values, tokens, length, padding, read.source, read.source_mask), cache


# ---- the stores


class Store:
    """Knows layers by name and number of calls."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()

    def name_of(self, layer: Any) -> str:
        self._calls[layer.name] += 1
        return f"{layer.name}/{self._calls[layer.name]}"


class PromptStore(Store):
    """Remembers what layers are called with while prompts are read."""

    def __init__(self) -> None:
        super().__init__()
        self.keys_values: dict[str, Pair] = {}
        self.source: dict[str, Pair] = {}

    def extend(self, layer: Any, key: Any, value: Any) -> Pair:
        self.keys_values[self.name_of(layer)] = key, value
        return key, value

    def of_memory(self, layer: Any, make: Callable[[], Pair]) -> Pair:
        with computing_with(replace(current(), kernels=no_copy)):  # no step reads these kernels
            key, value = make()
        self.source[self.name_of(layer)] = key, value
        return key, value


class StepStore(Store):
    """Adds the keys and values of one token a row.

    Attributes:
        keys_values: those of the cache, the new ones included.
    """

    def __init__(self, prompt: Prompt, cache: StepCache, copies: int) -> None:
        super().__init__()
        self.prompt, self.copies = prompt, copies
        self.keys_values = dict(cache.keys_values)
        self._slot_of = functools.cache(functools.partial(Slot.of, cache.slot, cache.slots))

    def extend(self, layer: Any, key: Any, value: Any) -> Any:
        name = self.name_of(layer)
        own = tuple(
            write(buffer, new, self._slot_of) for buffer, new in zip(self.keys_values[name], (key, value), strict=True)
        )
        self.keys_values[name] = own
        if name not in self.prompt.keys_values:
            return own
        shared = self.prompt.keys_values[name]
        return tuple(Parts(((old, self.copies), (new, 1))) for old, new in zip(shared, own, strict=True))

    def of_memory(self, layer: Any, make: Callable[[], Pair]) -> Any:
        pair = self.prompt.source[self.name_of(layer)]
        return pair if self.copies == 1 else tuple(Parts(((part, self.copies),)) for part in pair)


class Slot(NamedTuple):
    """One slot of buffers [rows, heads, slots, size] that are seen as matrices: so a write takes half the time."""

    matrix: Any
    begin: Any
    end: Any
    buffer: Any

    @classmethod
    def of(cls, slot: Any, slots: Any, heads: int, size: int) -> Slot:
        begin = tf.stack([0, slot * size])
        return cls(tf.stack([-1, slots * size]), begin, begin + size, tf.stack([-1, heads, slots, size]))


def write(buffer: Any, new: Any, slot_of: Callable[[int, int], Slot]) -> Any:
    """The buffer with one slot replaced by `new`; in place, where nothing else holds the buffer."""
    _, heads, slots, size = buffer.shape
    if slots == 1:
        return new
    slot = slot_of(heads, size)
    matrix = tf.raw_ops.TensorStridedSliceUpdate(
        input=tf.reshape(buffer, slot.matrix),
        begin=slot.begin,
        end=slot.end,
        strides=[1, 1],
        value=tf.reshape(new, (-1, size)),
        begin_mask=1,
        end_mask=1,
    )
    return tf.reshape(matrix, slot.buffer)


class Parts:
    """Keys or values in several parts, as products see them: as if they were joined along their slots.

    Args:
        parts: ([rows / copies, heads, slots, size], copies): so many rows of queries in turn share one row.
    """

    def __init__(self, parts: Sequence[tuple[Any, int]]) -> None:
        self.parts = parts

    def matmul(self, a: Any, transpose_b: bool) -> Any:
        """a @ this, for a [rows, heads, 1, n]."""
        if transpose_b:
            found = [self.product(a, *part, transpose_b=True) for part in self.parts]
            return found[0] if len(found) == 1 else tf.concat(found, axis=-1)
        lengths = [tf.shape(part)[2] for part, _ in self.parts]
        shares = [a] if len(lengths) == 1 else tf.split(a, lengths, axis=-1)
        found = [self.product(share, *part) for share, part in zip(shares, self.parts, strict=True)]
        return functools.reduce(lambda x, y: x + y, found)

    def product(self, a: Any, part: Any, copies: int, transpose_b: bool = False) -> Any:
        """The rows of one prompt are side by side as queries of one row."""
        if copies == 1:
            return current().matmul(a, part, transpose_b)
        heads, size = a.shape[1], a.shape[3] or tf.shape(a)[3]
        together = tf.transpose(tf.reshape(a, (-1, copies, heads, size)), (0, 2, 1, 3))
        found = current().matmul(together, part, transpose_b)
        size = found.shape[3] or tf.shape(found)[3]
        return tf.reshape(tf.transpose(found, (0, 2, 1, 3)), (-1, heads, 1, size))
