"""Linear chains of tags in log space: their paths' scores, the sum over all paths, and the best path.

Emissions are [batch, length, tags] and transitions[i, j] scores tag i followed by tag j. Only real positions take part:
the neighbours of a position are the nearest real ones, whatever padding lies between.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfloader.errors import ConfigError
from tfloader.layers.masking import is_masked, keep_scores


def mark_padding(emissions: Any, mask: Any) -> Any:
    """Masks all tags of the positions where mask [batch, length] is false."""
    known, expected = tuple(mask.shape), tuple(emissions.shape[:2])
    if len(known) != 2 or any(a != b for a, b in zip(known, expected, strict=True) if None not in (a, b)):
        raise ConfigError(f"mask has shape {known}; scores of shape {tuple(emissions.shape)} need {expected}.")
    return keep_scores(emissions, ops.reshape(mask, (*ops.shape(emissions)[:2], 1)))


def real_positions(emissions: Any) -> Any:
    """[batch, length] booleans: where not all tags are masked."""
    return ops.logical_not(ops.all(is_masked(emissions), axis=-1))


class Packing:
    """Moves the real positions of each row to its front, in their order, and back.

    Attributes:
        lengths: [batch], how many are real.
        present: [batch, length], whether a position holds a real one after packing.
    """

    def __init__(self, real: Any) -> None:
        length = ops.shape(real)[1]
        position = ops.arange(length)
        self.order = ops.argsort(ops.where(real, position, position + length), axis=1)
        self.lengths = ops.sum(ops.cast(real, "int32"), axis=1)
        self.present = position < self.lengths[:, None]

    def pack(self, x: Any) -> Any:
        """x [batch, length, ...] packed, with zeros after the last real position."""
        packed = along_length(x, self.order)
        present = ops.reshape(self.present, (*ops.shape(self.present), *[1] * (len(x.shape) - 2)))
        return ops.where(present, packed, ops.zeros_like(packed))

    def unpack(self, x: Any) -> Any:
        """Packed values [batch, length, ...] back at their positions; padding gets what lies behind the real ones."""
        return along_length(x, ops.argsort(self.order, axis=1))


def along_length(x: Any, positions: Any) -> Any:
    """x[b, positions[b, t], ...]."""
    batch, length = ops.shape(x)[0], ops.shape(x)[1]
    rows = ops.reshape(x, (batch * length, *x.shape[2:]))
    return ops.take(rows, ops.arange(batch)[:, None] * length + positions, axis=0)


def scan(step: Any, state: Any, elements: Any, reverse: bool = False) -> Any:
    """The states after each element, stacked: state = step(state, element)."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # The gradient of Keras' own scan cannot be compiled by XLA: its loop does not state its length.
        return tf.scan(step, elements, state, reverse=reverse)
    return ops.scan(lambda state, element: (step(state, element),) * 2, state, elements, reverse=reverse)[1]


def prefix_scores(emissions: Any, transitions: Any, lengths: Any, reduce: Any) -> Any:
    """[length, batch, tags]: `reduce` (logsumexp or max) of the scores of all paths that end at a position in a tag.

    Emissions must be packed; after the last real position its scores are repeated.
    """
    # One position more than there are, because a loop over none has no shape.
    emissions = ops.pad(ops.transpose(emissions, (1, 0, 2)), ((0, 1), (0, 0), (0, 0)))
    present = (ops.arange(ops.shape(emissions)[0])[:, None] < lengths)[:, :, None]

    def step(scores, element):
        emission, present = element
        return ops.where(present, reduce(scores[:, :, None] + transitions, axis=1) + emission, scores)

    states = scan(step, emissions[0], (emissions[1:], present[1:]))
    return ops.concatenate([emissions[:1], states[:-1]], axis=0)


def negative_log_likelihood(emissions: Any, transitions: Any, tags: Any, lengths: Any) -> Any:
    """[batch]: -log p(tags), for packed emissions and tags; 0 for an empty row.

    It is the log of the sum over paths of exp(score(path) - score(tags)), and the difference is taken at each position,
    before the sum: two large numbers are never subtracted, so float32 keeps the small loss of a long, well-learned row.
    """
    emission = ops.take_along_axis(emissions, tags[:, :, None], axis=2)
    pairs = tags[:, :-1] * transitions.shape[0] + tags[:, 1:]
    transition = ops.pad(ops.take(ops.reshape(transitions, (-1,)), pairs, axis=0), ((0, 0), (1, 0)))
    # In this order the path `tags` itself scores 0 without rounding.
    relative = (emissions - emission) - transition[:, :, None]
    prefixes = prefix_scores(relative, transitions, lengths, ops.logsumexp)
    return ops.where(lengths > 0, ops.logsumexp(prefixes[-1], axis=-1), 0.0)
