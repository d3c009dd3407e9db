"""A language model read with a cache: whole prompts at once, then one token a row at a time.

A copy of the family's `Transformer` does it, of the same class and with the same layers. It differs in data alone:
`form` calls layers in their fused forms, `cache` is the store that attention asks, and `head` gives logits.
`attention_bias` is asked in a step as well, with the text so far, and the row of the one query is taken of its answer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from tfloader import layers as tfl
from tfloader.errors import ConfigError
from tfloader.generation.cache import Prompt, PromptStore, Read, StepCache, StepStore
from tfloader.generation.fused import FORMS, FusedOperations, current, fused, measured_once, no_copy, per_key, visible
from tfloader.generation.sampling import put
from tfloader.layers.attention import hidden
from tfloader.layers.products import computing_with
from tfloader.models.transformer import Transformer


class Built(dict):
    """A model's layers, of which no more are made."""

    def __setitem__(self, name: str, layer: Any) -> None:
        raise ConfigError(f"Generation needs the layer {name!r}, without which this model was built.")


def for_generation(transformer: Transformer) -> Transformer:
    """A copy of the same class, which shares the layers, calls them in their fused forms, and gives logits."""
    found = copy.copy(transformer)
    vars(found).update(transformer.as_language_model, form=fused, layers=Built(transformer.layers))
    return found


def reader(transformer: Transformer) -> Prompts:
    """What reads with this model.

    Raises:
        ConfigError: the model is not a language model, or has an option with which generation is not implemented.
    """
    if not transformer.can_generate:
        raise ConfigError(
            f"This {transformer.config.family!r} model is an encoder and cannot generate. "
            "Load it with application='lm' or 'unilm' (--application lm)."
        )
    unsupported = transformer.no_generation_with()
    if unsupported:
        raise ConfigError(f"Generation is not implemented for a model with {', '.join(unsupported)}.")
    return (Sources if transformer.answers_sources else Prompts)(transformer)


class Prompts:
    """Reads prompts and what continues them.

    Attributes:
        shares_prompts: whether rows may share the keys and values of their prompt: a class of attention that is not
            tfloader's may do with keys what cannot be done in parts.
        hides_padding: whether `attention_bias` is tfloader's, and so hides what Input-Mask says.
    """

    def __init__(self, transformer: Transformer) -> None:
        self.model: Any = for_generation(transformer)
        self.config = transformer.config
        self.dtype = transformer.dtype_policy.compute_dtype
        attentions = [layer for layer in transformer.layers.values() if isinstance(layer, tfl.MultiHeadAttention)]
        self.shares_prompts = all(type(layer) in FORMS for layer in attentions)
        self.hides_padding = type(transformer).attention_bias.__module__.startswith("tfloader.")
        self._all_positions = False
        self._hidden: Any = None
        head = self.model.head
        language_model: Any = getattr(self.model, "language_model", None)

        def watched_head(x: Any) -> Any:
            self._hidden = x
            return head(x)

        def last_position(x: Any) -> Any:
            self._hidden = x
            whole = self._all_positions or current().stepping
            return language_model(x if whole else x[:, -1:])

        self.model.head, self.model.language_model = watched_head, last_position

    def text(self, tokens: Any, real: Any) -> tuple[Any, Any]:
        """What new tokens are written behind."""
        return tf.constant(tokens, tf.int32), tf.constant(real, tf.bool)

    def prefill(self, tokens: Any, real: Any, kernels: Callable[..., Any] = no_copy) -> Read:
        """Reads prompts int32 [rows, length], padded on the left, where `real` bool [rows, length] is False.

        Args:
            kernels: is told of the layers whose kernels steps will read; see `FusedOperations`.
        """
        store = PromptStore()
        with computing_with(FusedOperations(kernels=kernels)):
            x, position = self.states(tokens, real, store)
            logits = tf.cast(self.model.head(x)[:, -1], tf.float32)
        padding = tf.reduce_sum(tf.cast(~real, tf.int32), axis=1)
        no_source = tf.zeros([tf.shape(tokens)[0], 0], tf.int32)
        prompt = Prompt(store.keys_values, tokens, tf.shape(tokens)[1], padding, store.source, no_source)
        return Read(logits, self._hidden, position[:, -1] + 1, prompt)

    def score(self, tokens: Any, real: Any) -> Any:
        """[rows] sums of the log-probabilities of all tokens but the first."""
        x, _ = self.states(tokens, real, PromptStore())
        self._all_positions = True
        try:
            logits = self.model.head(x[:, :-1])
        finally:
            self._all_positions = False
        scores = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        scores = tf.gather(scores, tokens[:, 1:], axis=2, batch_dims=2)
        return tf.reduce_sum(tf.where(real[:, :-1], scores, 0.0), axis=1)

    def states(self, tokens: Any, real: Any, store: PromptStore) -> tuple[Any, Any]:
        """Last hidden states and positions of whole prompts; all of a prompt is of segment 0."""
        mask = tf.cast(real, tf.int32)
        position = tf.maximum(tf.cumsum(mask, axis=1) - 1, 0)
        inputs = self.inputs(tokens, position, mask, 0)
        self.model.cache = store
        self.model.bias = self.with_padding_hidden(self.model.attention_bias(inputs), mask)
        with computing_with(replace(current(), shape=measured_once(tokens), made={})):
            return self.model.blocks(self.model.embed(inputs))[-1], position

    def prepared(self, prompt: Prompt, copies: int) -> Prompt:
        """With what is the same in all steps."""
        return prompt

    def step(self, token: Any, position: Any, prompt: Prompt, cache: StepCache, copies: int = 1) -> Any:
        """Reads one token a row.

        Args:
            token: int32 [rows, 1]; position: int32 [rows].
            copies: rows that share a row of what the prompt has.

        Returns:
            float32 logits [rows, vocab], last hidden states [rows, size], and the cache with the token in it.
        """
        first_query = cache.slot + prompt.length if prompt.keys_values else cache.slot
        cache = cache._replace(tokens=put(cache.tokens, token[:, 0], cache.slot))
        store = self.model.cache = StepStore(prompt, cache, copies)
        with computing_with(replace(current(), stepping=True, first_query=first_query, made={})):
            self.look_back(prompt, cache)
            segment = int(self.config.application == "unilm")
            inputs = self.inputs(token, position[:, None], tf.ones_like(token), segment)
            logits = self.model.head(self.model.blocks(self.model.embed(inputs))[-1])
        cache = cache._replace(keys_values=store.keys_values, slot=cache.slot + 1)
        return tf.cast(logits[:, 0], tf.float32), self._hidden[:, 0], cache

    def look_back(self, prompt: Prompt, cache: StepCache) -> None:
        """Sets what the query of a step may see."""
        inputs = self.inputs_so_far(prompt, cache)
        bias = self.with_padding_hidden(self.model.attention_bias(inputs), inputs["Input-Mask"])
        self.model.bias = query_row(bias)

    def inputs_so_far(self, prompt: Prompt, cache: StepCache) -> dict[str, Any]:
        """The inputs of the text that the keys are of, [rows, slots]; what is not written yet is hidden."""
        tokens = tf.concat([prompt.tokens, cache.tokens], axis=1) if prompt.keys_values else cache.tokens
        slot = tf.range(tf.shape(tokens)[1])
        mask = tf.cast((slot >= prompt.padding[:, None]) & (slot <= current().first_query), tf.int32)
        position = tf.maximum(tf.cumsum(mask, axis=1) - 1, 0)
        new = tf.cast(slot >= prompt.length, tf.int32) * mask if self.config.application == "unilm" else 0
        return self.inputs(tokens, position, mask, new)

    def inputs(self, tokens: Any, position: Any, mask: Any, segment: Any) -> dict[str, Any]:
        inputs = {"Input-Token": tokens, "Input-Position": position, "Input-Mask": mask}
        if self.config.type_vocab_size:
            inputs["Input-Segment"] = tf.broadcast_to(segment, tf.shape(tokens))
        return inputs

    def with_padding_hidden(self, bias: Any, mask: Any) -> Any:
        """A bias that may not heed the mask, so that it does."""
        if self.hides_padding:
            return bias
        seen = per_key(mask != 0)
        return (
            visible(seen, self.dtype) if bias is None else tf.where(seen, bias, tf.cast(hidden(self.dtype), bias.dtype))
        )


class Sources(Prompts):
    """Reads the sources and the answers of an encoder-decoder."""

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer)
        self.encoder: Any = for_generation(transformer)  # nothing of it is remembered

    def text(self, tokens: Any, real: Any) -> tuple[Any, Any]:
        start = tf.fill([len(tokens), 1], self.model.start_token_id)
        return start, tf.ones_like(start, tf.bool)

    def prefill(self, tokens: Any, real: Any, kernels: Callable[..., Any] = no_copy) -> Read:
        store = self.model.cache = PromptStore()
        mask, rows = tf.cast(real, tf.int32), tf.shape(tokens)[0]
        start = tf.fill([rows, 1], self.model.start_token_id)
        with computing_with(FusedOperations(shape=measured_once(tokens))):
            context, padding = self.encoder.encode(tokens, mask)
            with computing_with(replace(current(), kernels=kernels)):
                logits = tf.cast(self.model.decode(start, context, padding)[:, -1], tf.float32)
        zeros = tf.zeros([rows], tf.int32)
        prompt = Prompt(store.keys_values, start, tf.constant(1), zeros, store.source, mask)
        return Read(logits, self._hidden, zeros + 1, prompt)

    def prepared(self, prompt: Prompt, copies: int) -> Prompt:
        bias = self.model.padding_bias(prompt.source_mask, prompt.source_mask)
        return prompt._replace(source_bias=bias if copies == 1 else tf.repeat(bias, copies, axis=0))

    def look_back(self, prompt: Prompt, cache: StepCache) -> None:
        # Of the context blocks see the keys and values that are remembered: the mask stands for its length.
        self.model.look_at(self.inputs_so_far(prompt, cache), prompt.source_mask, prompt.source_bias)
        self.model.bias, self.model.context_bias = map(query_row, (self.model.bias, self.model.context_bias))


def query_row(bias: Any) -> Any:
    """Of a bias on the scores of a whole text, the row of a step's query."""
    if bias is None or bias.shape[-2] == 1:
        return bias
    return tf.gather(bias, current().first_query[None], axis=-2)
