"""Cached decoding as two functions of plain tensors, for programs that export a language model and loop over it.

state = prefill(input_ids, attention_mask)
state |= step(token=chosen from state.pop("logits"), **state)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfloader.errors import ConfigError
from tfloader.faults import checked_ids, fault
from tfloader.generation.cache import Prompt, StepCache
from tfloader.generation.proof import prove
from tfloader.generation.reading import reader
from tfloader.models.transformer import Transformer

IDS = tf.TensorSpec([None, None], tf.int32)


class CachedDecoding:
    """The generator's own prefill and step, with all that lies between them in the tensors that they return.

    Rows with a token that the vocabulary does not have, without a token, or with no position left get NaN for logits
    where the program drops TensorFlow's assertions.

    The cache is one tensor [layers * 2, batch, heads, past, head_size] (keys of a layer, then its values), which a step
    returns longer by one. For encoder-decoders, `memory` holds those of the source in the same form.

    Raises:
        ConfigError: the model cannot generate, or has an attention_bias of its own, which would be asked for texts
            that an exported step does not have.
    """

    def __init__(self, transformer: Transformer) -> None:
        self.config = transformer.config
        self.reader = reader(transformer)
        if not self.reader.hides_padding:
            raise ConfigError(
                f"{type(transformer).__name__}.attention_bias is asked for the text so far, which an exported decoding "
                "step does not have: export the model with decoding=False."
            )
        prove(self.reader, transformer)
        self.layers: list[str] = []
        self.memory_layers: list[str] = []

    def prefill(self, input_ids: Any, attention_mask: Any) -> dict[str, Any]:
        """Reads prompts (of encoder-decoders: sources).

        Args:
            input_ids: int32 [batch, length].
            attention_mask: int32 [batch, length], 0 at padding, wherever it is.

        Returns:
            logits [batch, vocab] of the next token, cache, mask [batch, past]; for encoder-decoders logits, cache,
            memory, mask [batch, length] of the source.
        """
        real = attention_mask != 0
        input_ids, wrong = self._checked(input_ids, ~real)
        wrong = tf.reduce_sum(wrong, axis=1) + fault(tf.reduce_any(real, axis=1), "A prompt without a token.", real)
        tokens, real = aligned_right(input_ids, real)
        logits, _, _, prompt = self.reader.prefill(tokens, real)
        self.layers, self.memory_layers = list(prompt.keys_values), list(prompt.source)
        logits += tf.expand_dims(wrong, 1)
        state = {"logits": logits, "cache": packed(prompt.keys_values), "mask": tf.cast(real, tf.int32)}
        return state | {"memory": packed(prompt.source)} if prompt.source else state

    def step(self, token: Any, cache: Any, mask: Any, memory: Any = None) -> dict[str, Any]:
        """Reads one token a row; returns the entries of the state that change by it.

        Args:
            token: int32 [batch].
            cache, mask, memory: what `prefill` or the last step returned.
        """
        rows, past = tf.shape(token)[0], tf.shape(cache)[3]
        position = tf.reduce_sum(mask, axis=1) if memory is None else tf.fill([rows], past)
        token, wrong = self._checked(token)
        if (most := self.config.max_position_embeddings) is not None:
            wrong += fault(position < most, "No position is left: the text is as long as the model takes.", position)
        prompt = Prompt(
            keys_values=unpacked(cache, self.layers),
            tokens=tf.zeros([rows, past], tf.int32),  # tfloader's attention_bias reads no more than their number
            length=past,
            padding=past - position,
            source={} if memory is None else unpacked(memory, self.memory_layers),
            source_mask=mask,
        )
        one_slot = tf.zeros([rows, cache.shape[2], 1, cache.shape[4]], cache.dtype)
        new = StepCache({name: (one_slot, one_slot) for name in self.layers}, tf.expand_dims(token, 1), tf.constant(0))
        logits, _, new = self.reader.step(tf.expand_dims(token, 1), position, self.reader.prepared(prompt, 1), new)
        logits += tf.expand_dims(wrong, 1)
        longer = {"logits": logits, "cache": tf.concat([cache, packed(new.keys_values)], axis=3)}
        if memory is None:
            longer["mask"] = tf.concat([mask, tf.ones([rows, 1], tf.int32)], axis=1)
        return longer

    def step_inputs(self, prefilled: Mapping[str, Any]) -> dict[str, tf.TensorSpec]:
        """The specs of what `step` takes, from what `prefill` returns."""
        state = {name: open_spec(value) for name, value in prefilled.items() if name != "logits"}
        return {"token": tf.TensorSpec([None], tf.int32), **state}

    def _checked(self, ids: Any, free: Any = None) -> tuple[Any, Any]:
        most = self.config.vocab_size
        return checked_ids(ids, most, f"A token is not from 0 to {most - 1}.", free)


def aligned_right(tokens: Any, real: Any) -> tuple[Any, Any]:
    """Tokens and whether they are real, with each row's padding moved to its left."""
    real = tf.cast(real, tf.int32)
    order = tf.argsort(real, axis=1, stable=True)
    return tf.gather(tokens, order, batch_dims=1), tf.gather(real, order, batch_dims=1) != 0


def packed(pairs: Mapping[str, Any]) -> Any:
    """Keys and values of all layers as one tensor."""
    return tf.stack([part for pair in pairs.values() for part in pair])


def unpacked(cache: Any, layers: list[str]) -> dict[str, Any]:
    return {name: (cache[2 * index], cache[2 * index + 1]) for index, name in enumerate(layers)}


def open_spec(value: Any) -> tf.TensorSpec:
    """A cache's spec fixes layers, heads and head size; a mask's nothing."""
    shape = [None, None] if len(value.shape) == 2 else [value.shape[0], None, value.shape[2], None, value.shape[4]]
    return tf.TensorSpec(shape, value.dtype)
