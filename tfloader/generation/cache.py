"""Runs a family's own blocks on real tensors, with the keys and values of earlier positions kept.

`CachedBlocks` is mixed into a copy of a Transformer: the family's `embed`, `block` and `head` stay as they are, and
only attention is replaced. It works in two modes. `prefill` reads whole prompts and remembers their keys and values;
`step` reads one token a row.

The memory has two parts, so that no step copies what does not change: *frozen* keys and values, which are only read,
and a short buffer of *recent* ones, of which one slot is written a step. Rows that continue one prompt (beams, several
samples) share its frozen part.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfloader.errors import ConfigError
from tfloader.layers.attention import hidden
from tfloader.models.t5 import T5
from tfloader.models.transformer import Transformer

# Stands for a source whose keys and values are in the memory already.
REMEMBERED = object()

Pair = tuple[tf.Tensor, tf.Tensor]  # keys and values, [rows, heads, positions, head_size]


def cached(transformer: Transformer) -> CachedBlocks:
    """A copy of a Transformer that shares its layers and runs them with a memory.

    Raises:
        ConfigError: the model is not a language model, or has an option whose scores no memory holds.
    """
    if transformer.config.application == "encoder" and not isinstance(transformer, T5):
        raise ConfigError(
            f"This {transformer.config.family!r} model is an encoder and cannot generate. "
            "Load it with application='lm' or 'unilm'."
        )
    options = {
        "residual_attention_scores": transformer.residual_attention_scores,
        "layer_norm_cond": transformer.layer_norm_cond is not None,
        "part": getattr(transformer, "part", "both") != "both",
    }
    unsupported = [name for name, value in options.items() if value]
    if unsupported:
        raise ConfigError(f"Generation is not implemented for a model with {', '.join(unsupported)}.")
    kind = type(f"Cached{type(transformer).__name__}", (CachedBlocks, type(transformer)), {})
    copy = kind.__new__(kind)
    copy.__dict__ = {**vars(transformer), **transformer.as_language_model}
    copy.frozen, copy.recent, copy.memory = {}, {}, {}
    return copy


class CachedBlocks:
    """The methods that differ from assembling a Keras graph.

    Attributes:
        stepping: False while whole sequences are read, True while one token a row is.
        remembering: whether the keys and values of what is read are kept (a prompt) or not (T5's encoder).
        frozen, recent: self-attention layer -> Pair; memory: cross-attention layer -> Pair, over the source.
        bias: on the scores of all keys; while stepping a tuple (frozen keys, recent keys).
        slot: the slot of `recent` that this step writes.
        copies: rows that share one row of `frozen` and `memory`.
    """

    stepping = False
    remembering = True
    copies = 1

    def add(self, name: str, *tensors: Any) -> Any:
        total = tensors[0]
        for tensor in tensors[1:]:
            total = total + tensor
        return total

    def dropout(self, name: str, x: Any, rate: float | None = None) -> Any:
        return x

    def activate(self, name: str, x: Any, kind: Any) -> Any:
        return x  # generation works on logits

    def token_embedding(self) -> Any:
        return TokenTable(super().token_embedding())

    def attention(self, name: str, x: Any, bias: Any, memory: Any = None, **arguments: Any) -> Any:
        layer = self.layers[self.prefix + name]
        query = layer.heads(layer.query(x))
        if memory is not None:
            if name not in self.memory:
                self.memory[name] = keys_and_values(layer, memory)
            return self.attend_to_source(layer, query, self.memory[name], bias)
        if not self.stepping:
            keys, values = keys_and_values(layer, x)
            if self.remembering:
                self.frozen[name] = (keys, values)
            return layer.attend(layer.scores(query, keys), values, bias, training=False)
        written = zip(self.recent[name], keys_and_values(layer, x), strict=True)
        self.recent[name] = tuple(write(buffer, new, self.slot) for buffer, new in written)
        return self.attend_to_both(layer, query, self.frozen[name], self.recent[name], bias)

    def attend_to_source(self, layer: Any, query: Any, source: Pair, bias: Any) -> Any:
        """Attention of rows to the source of their prompt."""
        scores = self.apart(layer.scores(self.together(query), source[0]))
        if bias is not None:
            scores = scores + self.spread(bias)
        context = self.apart(tf.matmul(self.probabilities(scores, together=True), source[1]))
        return self.project(layer, context)

    def attend_to_both(self, layer: Any, query: Any, frozen: Pair, recent: Pair, bias: Any) -> Any:
        """One softmax over the frozen and the recent keys."""
        bias_frozen, bias_recent = bias
        old = self.apart(layer.scores(self.together(query), frozen[0])) + self.spread(bias_frozen)
        new = layer.scores(query, recent[0]) + bias_recent
        weights = self.probabilities(tf.concat([old, new], axis=-1))
        count = tf.shape(old)[-1]
        context = self.apart(tf.matmul(self.together(weights[..., :count]), frozen[1]))
        return self.project(layer, context + tf.matmul(weights[..., count:], recent[1]))

    def probabilities(self, scores: Any, together: bool = False) -> Any:
        # Sums over hundreds of keys lose digits in half precision.
        weights = tf.cast(tf.nn.softmax(tf.cast(scores, tf.float32)), scores.dtype)
        return self.together(weights) if together else weights

    def project(self, layer: Any, context: Any) -> Any:
        shape = tf.shape(context)
        context = tf.reshape(
            tf.transpose(context, (0, 2, 1, 3)), (shape[0], shape[2], layer.num_heads * layer.head_size)
        )
        return layer.output_dense(context)

    # Rows of one prompt side by side as queries of one row, and back.

    def together(self, x: Any) -> Any:
        """[rows * copies, heads, 1, n] -> [rows, heads, copies, n]; whole sequences and single rows stay."""
        if self.copies == 1:
            return x
        heads, size = x.shape[1], x.shape[3] or tf.shape(x)[3]
        return tf.transpose(tf.reshape(x, (-1, self.copies, heads, size)), (0, 2, 1, 3))

    def apart(self, x: Any) -> Any:
        """The inverse of `together`."""
        if self.copies == 1:
            return x
        heads, size = x.shape[1], x.shape[3] or tf.shape(x)[3]
        return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (-1, heads, 1, size))

    def spread(self, bias: Any) -> Any:
        """A bias for prompts, one for each of their rows."""
        return bias if self.copies == 1 or bias.shape[0] == 1 else tf.repeat(bias, self.copies, axis=0)

    # T5

    def decoder_biases(self, tokens: Any, x: Any, context: Any, context_bias: Any) -> tuple[Any, Any]:
        if not self.stepping:
            return super().decoder_biases(tokens, x, context, context_bias)
        layer = self.positions("Decoder-Embedding-Relative-Position", bidirectional=False)
        bias_frozen, bias_recent = self.bias
        old, new = tf.shape(bias_frozen)[-1], tf.shape(bias_recent)[-1]
        here = (old + self.slot)[None]
        if self.config.cross_position_bias:
            context_bias = context_bias + layer.bias(here, tf.range(tf.shape(context_bias)[-1]))
        positions = layer.bias(here, tf.range(old + new))
        return (bias_frozen + positions[..., :old], bias_recent + positions[..., old:]), context_bias


class TokenTable:
    """The token embedding, with the product of the tied output layer done without turning the table over."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __call__(self, x: Any, reverse: bool = False) -> Any:
        if not reverse:
            return self.layer(x)
        table = tf.cast(tf.convert_to_tensor(self.layer.embeddings), x.dtype)
        shape = tf.shape(x)
        flat = tf.matmul(tf.reshape(x, (-1, table.shape[1])), table, transpose_b=True)
        return tf.reshape(flat, (shape[0], shape[1], table.shape[0]))


def keys_and_values(layer: Any, x: Any) -> Pair:
    return layer.heads(layer.key(x)), layer.heads(layer.value(x))


def write(buffer: Any, new: Any, slot: Any) -> Any:
    """The buffer [rows, heads, slots, size] with one slot replaced."""
    here = (tf.range(tf.shape(buffer)[2]) == slot)[None, None, :, None]
    return tf.where(here, new, buffer)


def visible(allowed: Any, dtype: str) -> Any:
    """A bias from booleans: 0 where a key may be seen."""
    return tf.where(allowed, tf.cast(0.0, dtype), tf.cast(hidden(dtype), dtype))
