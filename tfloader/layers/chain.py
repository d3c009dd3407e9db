"""Linear chains of tags in log space: their paths' scores, the sum over all paths, and the best path.

LiteRT knows no new axes within brackets and no lists of tensors of open size: what decodes does without.

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
        self.present = position < ops.expand_dims(self.lengths, 1)

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
    return ops.take(rows, ops.expand_dims(ops.arange(batch), 1) * length + positions, axis=0)


def scan(step: Any, state: Any, elements: Any, reverse: bool = False) -> Any:
    """The states after each element, stacked: state = step(state, element)."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # The gradient of Keras' own scan cannot be compiled by XLA: its loop does not state its length.
        return tf.scan(step, elements, state, reverse=reverse)
    return ops.scan(lambda state, element: (step(state, element),) * 2, state, elements, reverse=reverse)[1]


def scan_to_decode(step: Any, state: Any, elements: Any, reverse: bool = False) -> Any:
    """`scan` in operations that LiteRT and ONNX have, and faster; its gradient would take too much memory."""
    if keras.backend.backend() != "tensorflow":
        return scan(step, state, elements, reverse)
    import tensorflow as tf

    if tf.executing_eagerly():  # where every update would copy all states
        return scan(step, state, elements, reverse)
    length = tf.shape(tf.nest.flatten(elements)[0])[0]

    def body(count: Any, state: Any, states: Any) -> Any:
        at = length - 1 - count if reverse else count
        state = step(state, tf.nest.map_structure(lambda x: tf.gather(x, at), elements))
        return count + 1, state, tf.tensor_scatter_nd_update(states, tf.reshape(at, [1, 1]), tf.expand_dims(state, 0))

    states = tf.zeros([length, *tf.unstack(tf.shape(state))], state.dtype)
    return tf.while_loop(lambda count, *_: count < length, body, (0, state, states), maximum_iterations=length)[2]


def prefix_scores(emissions: Any, transitions: Any, lengths: Any, reduce: Any, scan: Any = scan) -> Any:
    """[length, batch, tags]: `reduce` (logsumexp or max) of the scores of all paths that end at a position in a tag.

    Emissions must be packed; after the last real position its scores are repeated.
    """
    # One position more than there are, because a loop over none has no shape.
    emissions = ops.pad(ops.transpose(emissions, (1, 0, 2)), ((0, 1), (0, 0), (0, 0)))
    present = ops.expand_dims(ops.expand_dims(ops.arange(ops.shape(emissions)[0]), 1) < lengths, 2)

    def step(scores, element):
        emission, present = element
        return ops.where(present, reduce(ops.expand_dims(scores, 2) + transitions, axis=1) + emission, scores)

    states = scan(step, emissions[0], (emissions[1:], present[1:]))
    return ops.concatenate([emissions[:1], states[:-1]], axis=0)


def negative_log_likelihood(emissions: Any, transitions: Any, tags: Any, lengths: Any) -> Any:
    """[batch]: -log p(tags), for packed emissions and tags; 0 for an empty row.

    It is the log of the sum over paths of exp(score(path) - score(tags)), and the difference is taken at each position,
    before the sum: two large numbers are never subtracted, so float32 keeps the small loss of a long, well-learned row.
    """
    emission = ops.take_along_axis(emissions, ops.expand_dims(tags, 2), axis=2)
    pairs = tags[:, :-1] * transitions.shape[0] + tags[:, 1:]
    transition = ops.pad(ops.take(ops.reshape(transitions, (-1,)), pairs, axis=0), ((0, 0), (1, 0)))
    # In this order the path `tags` itself scores 0 without rounding.
    relative = (emissions - emission) - ops.expand_dims(transition, 2)
    prefixes = prefix_scores(relative, transitions, lengths, ops.logsumexp)
    return ops.where(lengths > 0, ops.logsumexp(prefixes[-1], axis=-1), 0.0)
