"""Runs a family's own blocks on real tensors, with the keys and values of earlier positions kept.

`CachedBlocks` is mixed into a copy of a Transformer: the family's `embed`, `block` and `head` stay as they are, and
only attention is replaced. It works in two modes. `prefill` reads whole prompts and remembers their keys and values;
`step` reads one token a row.

Keys and values are written in place, into a buffer of *recent* ones with one slot for each token. It begins with the
prompt's, unless several rows continue one prompt (beams, several samples): these share a *frozen* part, only read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tfloader.config import TransformerConfig
from tfloader.errors import ConfigError
from tfloader.generation.lean import (
    few_rows_product,
    lean,
    many_rows_product,
    shaped,
    softmax,
    weight,
)
from tfloader.generation.products import asking, copy_of, nothing, product
from tfloader.layers.attention import hidden
from tfloader.layers.products import as_matrix
from tfloader.layers.relative import RelativeAttention
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
        "shared_segment_embeddings": transformer.config.shared_segment_embeddings,
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
        block_index: which block runs: one layer may serve in several, and has other keys and values in each.
        frozen, recent: "block/self-attention layer" -> Pair; memory: cross-attention layer -> Pair, over the source.
        bias: on the scores of all keys; while stepping a tuple (frozen keys, recent keys).
        slot, place: the slot of `recent` that this step writes, and where it lies.
        copies: rows that share one row of `frozen` and `memory`.
        hidden: [rows, length, size] the last hidden states of what was read last.
        all_logits: whether logits are made for all positions, or for the last one alone.
    """

    stepping = False
    all_logits = False
    remembering = True
    copies = 1
    block_index = 0

    def block(self, x: Any, index: int) -> Any:
        self.block_index = index
        return super().block(x, index)

    def layer(self, name: str, layer_class: Any, /, **arguments: Any) -> Any:
        return lean(super().layer(name, layer_class, **arguments))

    def add(self, name: str, *tensors: Any) -> Any:
        total = tensors[0]
        for tensor in tensors[1:]:
            total = total + tensor
        return total

    def dropout(self, name: str, x: Any, rate: float | None = None) -> Any:
        return x

    def activate(self, name: str, x: Any, kind: Any) -> Any:
        return x  # generation works on logits

    def language_model(self, x: Any) -> Any:
        self.hidden = x
        return super().language_model(x if self.all_logits or self.stepping else x[:, -1:])

    def token_embedding(self) -> Any:
        return TokenTable(super().token_embedding())

    def attention(self, name: str, x: Any, bias: Any, memory: Any = None, **arguments: Any) -> Any:
        layer = self.layers[self.prefix + name]
        if memory is None:
            query, key, value = self.queries_keys_values(layer, x)
            parts = self.own_parts(layer, name, bias, (layer.placed(key, self.positions), value))
        else:
            query = self.heads(layer, layer.query, x)
            parts = [Part(*self.of_source(layer, name, memory), bias, shared=True)]
        query = layer.placed(query, self.positions)
        if layer.scaled:
            query *= tf.cast(layer.head_size**-0.5, query.dtype)
        return shaped(lean(layer.output_dense)(self.attend(layer, query, parts)), x, layer.output_size)

    def of_source(self, layer: Any, name: str, memory: Any) -> Pair:
        """Keys and values of the source, made while it is read."""
        if name not in self.memory:
            with asking(nothing):  # no step reads these kernels
                self.memory[name] = self.heads(layer, layer.key, memory), self.heads(layer, layer.value, memory)
        return self.memory[name]

    def own_parts(self, layer: Any, name: str, bias: Any, new: Pair) -> list[Part]:
        """What self-attention looks at, with the new positions, which are remembered."""
        key = f"{self.block_index}/{name}"
        if not self.stepping:
            if self.remembering:
                self.frozen[key] = new
            return [Part(*new, bias, self.vectors(layer, new[0]))]
        self.recent[key] = tuple(write(*pair, self.place) for pair in zip(self.recent[key], new, strict=True))
        parts = [Part(*self.recent[key], bias[1], self.vectors(layer, self.recent[key][0]))]
        if key in self.frozen:
            far = self.vectors(layer, self.frozen[key][0], frozen=True)
            parts.insert(0, Part(*self.frozen[key], bias[0], far, shared=True))
        return parts

    def vectors(self, layer: Any, keys: Any, frozen: bool = False) -> Any:
        """What keys and values have more for the queries of this pass, in layers where they do."""
        if not isinstance(layer, RelativeAttention):
            return None
        length = tf.shape(keys)[2]
        if not self.stepping:
            return layer.vectors(distances(length, length))
        return layer.vectors(distances(1, length, length + self.slot if frozen else self.slot))

    def attend(self, layer: Any, query: Any, parts: list[Part]) -> Any:
        """One softmax over the keys of all parts: scaled queries [rows, heads, length, head_size] -> matrix of rows."""
        batched = few_rows_product if self.stepping else many_rows_product
        scores = []
        for part in parts:
            part_scores = self.apart(batched(self.together(query, part), part.keys, turned=True), part)
            if part.vectors is not None:
                part_scores += tf.einsum("rhqd,qkd->rhqk", query, part.vectors)
            scores.append(part_scores if part.bias is None else part_scores + self.spread(part))
        if len(parts) == 1:
            shares = [softmax(scores[0], query.dtype)]
        else:
            lengths = [tf.shape(part.keys)[2] for part in parts]
            shares = tf.split(softmax(tf.concat(scores, axis=-1), query.dtype), lengths, axis=-1)
        context = None
        for part, own in zip(parts, shares, strict=True):
            seen = self.apart(batched(self.together(own, part), part.values), part)
            if part.vectors is not None:
                seen += tf.einsum("rhqk,qkd->rhqd", own, part.vectors)
            context = seen if context is None else context + seen
        if query.shape[2] != 1:
            context = tf.transpose(context, (0, 2, 1, 3))
        return tf.reshape(context, (-1, layer.num_heads * layer.head_size))

    def heads(self, layer: Any, dense: Any, x: Any) -> Any:
        """[rows, length, size] -> [rows, heads, length, head_size]"""
        rows = lean(dense)(as_matrix(x))
        if x.shape[1] == 1:
            return self.one_token(layer, rows)
        return tf.transpose(shaped(rows, x, layer.num_heads, layer.head_size), (0, 2, 1, 3))

    def one_token(self, layer: Any, x: Any) -> Any:
        return tf.reshape(x, (-1, layer.num_heads, 1, layer.head_size))

    def queries_keys_values(self, layer: Any, x: Any) -> list[Any]:
        """Of self-attention, each [rows, heads, length, head_size]."""
        denses = layer.query, layer.key, layer.value
        joined = copy_of(*denses)
        if joined is None:
            return [self.heads(layer, dense, x) for dense in denses]
        return [self.one_token(layer, rows) for rows in tf.split(joined.product(as_matrix(x)), 3, axis=-1)]

    # Rows of one prompt side by side as queries of one row, and back.

    def together(self, x: Any, part: Part) -> Any:
        """[rows * copies, heads, 1, n] -> [rows, heads, copies, n], for a part that rows share."""
        if self.copies == 1 or not part.shared:
            return x
        heads, size = x.shape[1], x.shape[3] or tf.shape(x)[3]
        return tf.transpose(tf.reshape(x, (-1, self.copies, heads, size)), (0, 2, 1, 3))

    def apart(self, x: Any, part: Part) -> Any:
        """The inverse of `together`."""
        if self.copies == 1 or not part.shared:
            return x
        heads, size = x.shape[1], x.shape[3] or tf.shape(x)[3]
        return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (-1, heads, 1, size))

    def spread(self, part: Part) -> Any:
        """A bias for prompts, one for each of their rows."""
        alike = self.copies == 1 or not part.shared or part.bias.shape[0] == 1
        return part.bias if alike else tf.repeat(part.bias, self.copies, axis=0)

    # T5

    def decoder_biases(self, tokens: Any, x: Any, context: Any, context_bias: Any) -> tuple[Any, Any]:
        if not self.stepping:
            return super().decoder_biases(tokens, x, context, context_bias)
        layer = self.relative_positions("Decoder-Embedding-Relative-Position", bidirectional=False)
        bias_frozen, bias_recent = self.bias
        old, new = tf.shape(bias_frozen)[-1], tf.shape(bias_recent)[-1]
        here = (old + self.slot)[None]
        if self.config.cross_position_bias:
            context_bias = context_bias + layer.bias(here, tf.range(tf.shape(context_bias)[-1]))
        positions = layer.bias(here, tf.range(old + new))
        return (bias_frozen + positions[..., :old], bias_recent + positions[..., old:]), context_bias


class Part(NamedTuple):
    """Keys and values [rows, heads, positions, head_size], and what is added to their scores.

    Attributes:
        vectors: [queries, positions, head_size] what keys and values have more for a query, by its distance.
        shared: their rows are prompts, each of them read by all its rows.
    """

    keys: tf.Tensor
    values: tf.Tensor
    bias: tf.Tensor | None
    vectors: tf.Tensor | None = None
    shared: bool = False


class TokenTable:
    """The token embedding, with the product of the tied output layer done without turning the table over."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __call__(self, x: Any, reverse: bool = False) -> Any:
        if not reverse:
            return self.layer(x)
        rows, copy = as_matrix(x), copy_of(self.layer)
        if copy is not None:
            return shaped(copy.product(rows), x, self.layer.input_dim)
        table = weight(self.layer.embeddings, x.dtype)
        if x.dtype == tf.float32:
            # With few rows this order takes three quarters of the time; in half precision it is the other way round.
            return shaped(tf.transpose(tf.matmul(table, rows, transpose_b=True)), x, self.layer.input_dim)
        return shaped(product(rows, table, turned=True), x, self.layer.input_dim)


class Place(NamedTuple):
    """One slot of buffers [rows, heads, slots, size], each seen as a matrix: so a write takes half the time."""

    matrix: Any
    begin: Any
    end: Any
    buffer: Any

    @classmethod
    def of(cls, slot: Any, slots: Any, config: TransformerConfig) -> Place:
        size = config.head_size
        begin = tf.stack([0, slot * size])
        return cls(
            tf.stack([-1, slots * size]), begin, begin + size, tf.stack([-1, config.num_attention_heads, slots, size])
        )


def write(buffer: Any, new: Any, place: Place) -> Any:
    """The buffer with one slot replaced by `new`; in place, where nothing else holds the buffer."""
    if buffer.shape[2] == 1:
        return new
    matrix = tf.raw_ops.TensorStridedSliceUpdate(
        input=tf.reshape(buffer, place.matrix),
        begin=place.begin,
        end=place.end,
        strides=[1, 1],
        value=tf.reshape(new, (-1, buffer.shape[3])),
        begin_mask=1,
        end_mask=1,
    )
    return tf.reshape(matrix, place.buffer)


def distances(queries: Any, keys: Any, first: Any = 0) -> Any:
    """[queries, keys] how far each key, counted from 0, is behind each query, counted from `first`."""
    return tf.expand_dims(tf.range(keys), 0) - tf.expand_dims(tf.range(queries) + first, 1)


def per_key(real: Any) -> Any:
    """[rows, keys] -> [rows, 1, 1, keys]; not by new axes in brackets, for which LiteRT has no form."""
    return tf.expand_dims(tf.expand_dims(real, 1), 1)


def visible(allowed: Any, dtype: str) -> Any:
    """A bias from booleans: 0 where a key may be seen."""
    return tf.where(allowed, tf.cast(0.0, dtype), tf.cast(hidden(dtype), dtype))
