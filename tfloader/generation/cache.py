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


class Prompt(NamedTuple):
    """What was read at once (of an encoder-decoder: sources and the start token); every step reads it, none changes it.

    Attributes:
        keys_values: name of a self-attention layer -> its Pair, which `copies` rows share; {} where each row's cache
            begins with its own prompt.
        tokens: int32 [rows, shared slots] what the keys are of, padded on the left.
        length: int32, slots that the prompt takes, shared or not.
        padding: int32 [rows] how many of the first slots are padding.
        source: name of a cross-attention layer -> its Pair, which `copies` rows share.
        source_mask: int32 [prompts, source length], 0 at padding.
        source_bias: [rows, 1, 1, source length] what hides its padding, once the loop has begun.
    """

    keys_values: dict[str, Pair]
    tokens: Any
    length: Any
    padding: Any
    source: dict[str, Pair]
    source_mask: Any
    source_bias: Any = ()


class Read(NamedTuple):
    """What is known after prompts were read.

    Attributes:
        logits: float32 [prompts, vocab] of the next token.
        hidden: [prompts, length, size] last hidden states.
        position: int32 [prompts] of the next token.
        prompt: with a row for each prompt.
    """

    logits: Any
    hidden: Any
    position: Any
    prompt: Prompt


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
    def free(self) -> Any:
        return tf.shape(self.tokens)[1] - self.slot

    def longer(self) -> StepCache:
        """With SLOTS more."""
        pairs = tf.nest.map_structure(lambda x: tf.pad(x, [[0, 0], [0, 0], [0, SLOTS], [0, 0]]), self.keys_values)
        return self._replace(keys_values=pairs, tokens=tf.pad(self.tokens, [[0, 0], [0, SLOTS]]))

    def rows(self, order: Any) -> StepCache:
        """With other rows: those whose numbers `order` [rows] has."""
        pairs, tokens = tf.nest.map_structure(lambda x: tf.gather(x, order), (self.keys_values, self.tokens))
        return self._replace(keys_values=pairs, tokens=tokens)


def begin(prompt: Prompt, copies: int, shared: bool) -> tuple[Prompt, StepCache]:
    """What steps read and write behind prompts, each continued by `copies` rows.

    Args:
        shared: whether the rows share their prompt's keys and values, or have a copy each.
    """
    if copies == 1 or not shared:
        if copies > 1:
            prompt = tf.nest.map_structure(lambda x: tf.repeat(x, copies, axis=0) if x.shape.rank else x, prompt)
        cache = StepCache(prompt.keys_values, prompt.tokens, prompt.length).longer()
        return prompt._replace(keys_values={}, tokens=prompt.tokens[:, :0]), cache
    prompt = prompt._replace(tokens=tf.repeat(prompt.tokens, copies, axis=0), padding=tf.repeat(prompt.padding, copies))
    nothing = tf.nest.map_structure(lambda x: tf.repeat(x[:, :, :0], copies, axis=0), prompt.keys_values)
    return prompt, StepCache(nothing, prompt.tokens[:, :0], tf.constant(0)).longer()


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
    """Adds the keys and values of one token a row to those of the cache."""

    def __init__(self, prompt: Prompt, cache: StepCache, copies: int) -> None:
        super().__init__()
        self.prompt, self.copies = prompt, copies
        self.keys_values = dict(cache.keys_values)
        self._place_of = functools.cache(functools.partial(place, cache.slot, tf.shape(cache.tokens)[1]))

    def extend(self, layer: Any, key: Any, value: Any) -> Any:
        name = self.name_of(layer)
        buffers = self.keys_values[name]
        own = tuple(write(old, new, self._place_of) for old, new in zip(buffers, (key, value), strict=True))
        self.keys_values[name] = own
        if name not in self.prompt.keys_values:
            return own
        shared = self.prompt.keys_values[name]
        return tuple(Parts(((old, self.copies), (new, 1))) for old, new in zip(shared, own, strict=True))

    def of_memory(self, layer: Any, make: Callable[[], Pair]) -> Any:
        pair = self.prompt.source[self.name_of(layer)]
        return pair if self.copies == 1 else tuple(Parts(((part, self.copies),)) for part in pair)


def place(slot: Any, slots: Any, heads: int, size: int) -> tuple[Any, Any, Any, Any]:
    """Buffers [rows, heads, slots, size] as matrices: their shape, where one slot begins and ends there, and back."""
    begin = tf.stack([0, slot * size])
    return tf.stack([-1, slots * size]), begin, begin + size, tf.stack([-1, heads, slots, size])


def write(buffer: Any, new: Any, place_of: Callable[[int, int], tuple[Any, Any, Any, Any]]) -> Any:
    """The buffer with one slot replaced by `new`; in place, where nothing else holds the buffer."""
    _, heads, slots, size = buffer.shape
    if slots == 1:
        return new
    # As a matrix it is written in half the time.
    matrix, begin, end, shape = place_of(heads, size)
    value = tf.reshape(new, (-1, size))
    written = tf.raw_ops.TensorStridedSliceUpdate(
        input=tf.reshape(buffer, matrix), begin=begin, end=end, strides=[1, 1], value=value, begin_mask=1, end_mask=1
    )
    return tf.reshape(written, shape)


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
