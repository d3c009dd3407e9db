"""Cached decoding as two functions of plain tensors, for programs that export a language model and loop over it.

state = prefill(input_ids, attention_mask)
state |= step(token=chosen from state.pop("logits"), **state)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfloader.generation.cache import per_key, visible
from tfloader.generation.decoding import Decoder
from tfloader.models.transformer import Transformer

IDS = tf.TensorSpec([None, None], tf.int32)


class CachedDecoding(Decoder):
    """The generator's own prefill and step, with all that lies between them in the tensors that they return.

    The cache is one tensor [layers * 2, batch, heads, past, head_size] (keys of a layer, then its values), which a step
    returns longer by one. For T5, `memory` holds those of the source in the same form.
    """

    def __init__(self, transformer: Transformer) -> None:
        super().__init__(transformer)
        self.layers: list[str] = []
        self.memory_layers: list[str] = []

    def prefill(self, input_ids: Any, attention_mask: Any) -> dict[str, Any]:
        """Reads prompts (T5: sources).

        Args:
            input_ids: int32 [batch, length].
            attention_mask: int32 [batch, length], 0 at padding, wherever it is.

        Returns:
            logits [batch, vocab] of the next token, cache, mask [batch, past]; for T5 logits, cache, memory, mask
            [batch, length] of the source.
        """
        tokens, real = aligned_right(input_ids, attention_mask)
        read = self._prefill_t5 if self.is_t5 else self._prefill_prompt
        logits, _, fixed, _ = read(tokens, real)
        self.layers, self.memory_layers = list(fixed["frozen"]), list(fixed["memory"])
        state = {"logits": logits, "cache": packed(fixed["frozen"]), "mask": tf.cast(real, tf.int32)}
        return state | {"memory": packed(fixed["memory"])} if self.is_t5 else state

    def step(self, token: Any, cache: Any, mask: Any, memory: Any = None) -> dict[str, Any]:
        """Reads one token a row; returns the entries of the state that change by it.

        Args:
            token: int32 [batch].
            cache, mask, memory: what `prefill` or the last step returned.
        """
        rows, past = tf.shape(token)[0], tf.shape(cache)[3]
        rows_of_padding = tf.zeros([rows], tf.int32)
        if self.is_t5:
            position, seen = rows_of_padding + past, tf.ones([rows, past], tf.bool)
            memory_bias = visible(per_key(mask != 0), self.dtype)
        else:
            position, seen = tf.reduce_sum(mask, axis=1), mask != 0
            memory_bias = tf.zeros((0,), self.dtype)
        self._check_positions(position)
        fixed = {
            "frozen": unpacked(cache, self.layers),
            "frozen_bias": visible(per_key(seen), self.dtype),
            "padding": rows_of_padding,
            "memory": {} if memory is None else unpacked(memory, self.memory_layers),
            "memory_bias": memory_bias,
        }
        one_slot = tf.zeros([rows, cache.shape[2], 1, cache.shape[4]], cache.dtype)
        state = {
            "recent": {name: (one_slot, one_slot) for name in self.layers},
            "slot": tf.constant(0),
            "last": token,
            "position": position,
            "logits": None,
        }
        found = self._step(state, fixed, copies=1)
        longer = {"logits": found["logits"], "cache": tf.concat([cache, packed(found["recent"])], axis=3)}
        if not self.is_t5:
            longer["mask"] = tf.concat([mask, tf.ones([rows, 1], tf.int32)], axis=1)
        return longer

    def step_inputs(self, prefilled: Mapping[str, Any]) -> dict[str, tf.TensorSpec]:
        """The specs of what `step` takes, from what `prefill` returns."""
        state = {name: open_spec(value) for name, value in prefilled.items() if name != "logits"}
        return {"token": tf.TensorSpec([None], tf.int32), **state}

    def _check_positions(self, position: Any) -> None:
        if self.config.max_position_embeddings is not None:
            most = tf.constant(self.config.max_position_embeddings)
            tf.debugging.assert_less(position, most, "No position is left: the text is as long as the model takes.")


def aligned_right(input_ids: Any, attention_mask: Any) -> tuple[Any, Any]:
    """(tokens, real) with each row's padding moved to its left."""
    real = tf.cast(attention_mask != 0, tf.int32)
    tf.debugging.assert_positive(tf.reduce_sum(real, axis=1), "A prompt without a token.")
    order = tf.argsort(real, axis=1, stable=True)
    return tf.gather(input_ids, order, batch_dims=1), tf.gather(real, order, batch_dims=1) != 0


def packed(pairs: Mapping[str, Any]) -> Any:
    """Keys and values of all layers as one tensor."""
    return tf.stack([part for pair in pairs.values() for part in pair])


def unpacked(cache: Any, layers: list[str]) -> dict[str, Any]:
    return {name: (cache[2 * index], cache[2 * index + 1]) for index, name in enumerate(layers)}


def open_spec(value: Any) -> tf.TensorSpec:
    """A cache's spec fixes layers, heads and head size; a mask's nothing."""
    shape = [None, None] if len(value.shape) == 2 else [value.shape[0], None, value.shape[2], None, value.shape[4]]
    return tf.TensorSpec(shape, value.dtype)
