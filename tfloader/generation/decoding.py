"""The decoding core: one prefill of the prompts, then a compiled loop of one-token steps.

`Decoder` is made once for a model and keeps its compiled functions. They are traced with open shapes: another prompt
length, number of rows or maximum length compiles nothing. The loop runs until its buffer of recent keys is full
(`SLOTS` steps) or all rows are done; between such stretches the host moves the buffer to where it is only read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfloader.errors import ConfigError
from tfloader.generation import processors
from tfloader.generation.beam import BeamSearch
from tfloader.generation.cache import REMEMBERED, cached, visible
from tfloader.generation.options import GenerationOptions
from tfloader.generation.sampling import OneToken
from tfloader.models.t5 import T5
from tfloader.models.transformer import Transformer

SLOTS = 64


class Generated(NamedTuple):
    """What came out.

    Attributes:
        sequences: for each prompt its returned sequences in turn: lists of new token ids, without the prompt, up to
            and including the stop token.
        scores: [sequences] sum of the log-probabilities of the chosen tokens; for beams divided by
            length ** length_penalty, as they were ranked.
        token_scores: for each sequence the log-probabilities of its tokens, where they were asked for.
    """

    sequences: list[list[int]]
    scores: np.ndarray
    token_scores: list[np.ndarray] | None = None


class Decoder:
    """Generates token ids with a language model.

    Args:
        transformer: a built GPT-2, GPT2_ML, T5, or BERT with application "lm" or "unilm".

    Attributes:
        traces: how often a function was traced since the decoder was made.
    """

    def __init__(self, transformer: Transformer) -> None:
        self.transformer = transformer
        self.model = cached(transformer)
        self.config = transformer.config
        self.is_t5 = isinstance(transformer, T5)
        self.dtype = transformer.dtype_policy.compute_dtype
        self.traces = 0
        self._prefill: Callable | None = None
        self._score: Callable | None = None
        self._loops: dict[Any, Callable] = {}

    def generate(self, tokens: np.ndarray, real: np.ndarray, options: GenerationOptions) -> Generated:
        """Continues prompts until every row has stopped or has `max_new_tokens` new tokens.

        Args:
            tokens: int32 [rows, length]; for T5 the source.
            real: bool [rows, length], False at padding; prompts end at the last column (padding on the left).
        """
        *_, (state, selector) = self.stretches(tokens, real, options)
        sequences, scores, token_scores = selector.results(state)
        return Generated(sequences, scores, token_scores if options.return_scores else None)

    def stretches(
        self, tokens: np.ndarray, real: np.ndarray, options: GenerationOptions, steps: int | None = None
    ) -> Iterator[tuple[dict[str, Any], Any]]:
        """Yields (state, selector) after each stretch of at most `steps` steps."""
        options.check(self.config.vocab_size, len(tokens))
        self._check_length(tokens.shape[1], options.max_new_tokens)
        selector = (BeamSearch if options.num_beams > 1 else OneToken)(options, self.config)
        logits, fixed, position, start = self._read(tokens, real)
        state = selector.start(logits, *start, room=SLOTS)
        copies = selector.copies
        state["position"] = tf.repeat(position, copies)
        state["slot"] = tf.constant(0)
        state["recent"] = self._fresh_slots(fixed["frozen"], copies)
        state["stop_at"] = tf.constant(options.max_new_tokens)
        numbers = {name: tf.convert_to_tensor(value) for name, value in processors.numbers(options).items()}
        loop = self._loop(selector, options)
        while True:
            budget = tf.constant(SLOTS if steps is None else steps)
            state = loop(state, fixed, numbers, budget)
            processors.raise_fault(int(state["fault"]), options)
            finished = bool(selector.is_finished(state))
            yield state, selector
            if finished:
                return
            if int(state["slot"]) == slots_of(state["recent"]):
                state, fixed = self._make_room(state, fixed, selector)

    def score(self, tokens: np.ndarray, real: np.ndarray) -> np.ndarray:
        """[rows] sums of the log-probabilities of all tokens but the first; arguments as for `generate`."""
        if self.is_t5:
            raise ConfigError("T5 scores targets for sources: use the model itself, which gives the logits.")
        if self._score is None:
            spec = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.bool)
            self._score = tf.function(self._score_prompt, input_signature=spec, autograph=False)
        return self._score(tf.constant(tokens, tf.int32), tf.constant(real, tf.bool)).numpy()

    def _score_prompt(self, tokens: Any, real: Any) -> Any:
        self.traces += 1
        x, _ = self._read_prompt(tokens, real)
        scores = tf.nn.log_softmax(tf.cast(self.model.head(x[:, :-1]), tf.float32))
        scores = tf.gather(scores, tokens[:, 1:], axis=2, batch_dims=2)
        return tf.reduce_sum(tf.where(real[:, :-1], scores, 0.0), axis=1)

    # ---- the parts

    def _read(self, tokens: np.ndarray, real: np.ndarray) -> tuple[Any, dict[str, Any], Any, tuple[Any, Any]]:
        if self._prefill is None:
            spec = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.bool)
            read = self._prefill_t5 if self.is_t5 else self._prefill_prompt
            self._prefill = tf.function(read, input_signature=spec, autograph=False)
        logits, fixed, position = self._prefill(tf.constant(tokens, tf.int32), tf.constant(real, tf.bool))
        if self.is_t5:
            tokens = np.full((len(tokens), 1), self._start_id(), "int32")
            real = np.ones_like(tokens, bool)
        return logits, fixed, position, (tf.constant(tokens, tf.int32), tf.constant(real, tf.bool))

    def _prefill_prompt(self, tokens: Any, real: Any) -> tuple[Any, dict[str, Any], Any]:
        self.traces += 1
        x, position = self._read_prompt(tokens, real)
        logits = tf.cast(self.model.head(x[:, -1:])[:, 0], tf.float32)
        fixed = {
            "frozen": self.model.frozen,
            "frozen_bias": visible(real[:, None, None, :], self.dtype),
            "memory": {},
            "memory_bias": tf.zeros((0,), self.dtype),
        }
        return logits, fixed, position[:, -1] + 1

    def _read_prompt(self, tokens: Any, real: Any) -> tuple[Any, Any]:
        """Last hidden states and positions of whole prompts; a UniLM's prompt sees itself on both sides."""
        model = self._reading()
        allowed = real[:, None, None, :]
        if self.config.application == "lm":
            place = tf.range(tf.shape(tokens)[1])
            allowed = tf.logical_and(allowed, (place[None, :] <= place[:, None])[None, None])
        model.bias = visible(allowed, self.dtype)
        position = tf.maximum(tf.cumsum(tf.cast(real, tf.int32), axis=1) - 1, 0)
        x = model.embed(self._inputs(tokens, position, segment=0))
        for index in range(self.config.num_hidden_layers):
            x = model.block(x, index)
        return x, position

    def _prefill_t5(self, tokens: Any, real: Any) -> tuple[Any, dict[str, Any], Any]:
        self.traces += 1
        model = self._reading()
        model.remembering = False
        context, memory_bias = model.encode(tokens, tf.cast(real, tf.int32))
        model.remembering = True
        rows = tf.shape(tokens)[0]
        start = tf.fill([rows, 1], self._start_id())
        logits = tf.cast(model.decode(start, context, memory_bias)[:, -1], tf.float32)
        fixed = {
            "frozen": model.frozen,
            "frozen_bias": tf.zeros([rows, 1, 1, 1], self.dtype),
            "memory": model.memory,
            "memory_bias": memory_bias,
        }
        return logits, fixed, tf.ones([rows], tf.int32)

    def _step(self, state: dict[str, Any], fixed: dict[str, Any], copies: int) -> tuple[Any, dict[str, Any]]:
        """Reads the last token of each row; returns the logits of the next one and the written buffers."""
        model = self.model
        model.stepping, model.copies, model.slot = True, copies, state["slot"]
        model.frozen, model.recent, model.memory = fixed["frozen"], dict(state["recent"]), fixed["memory"]
        seen = (tf.range(slots_of(state["recent"])) <= state["slot"])[None, None, None, :]
        model.bias = (fixed["frozen_bias"], visible(seen, self.dtype))
        last = state["last"][:, None]
        if self.is_t5:
            logits = model.decode(last, REMEMBERED, fixed["memory_bias"])
        else:
            x = model.embed(self._inputs(last, state["position"][:, None], int(self.config.application == "unilm")))
            for index in range(self.config.num_hidden_layers):
                x = model.block(x, index)
            logits = model.head(x)
        return tf.cast(logits[:, 0], tf.float32), model.recent

    def _loop(self, selector: Any, options: GenerationOptions) -> Callable:
        key = processors.signature(options)
        if key not in self._loops:
            process = processors.build(options, self.config.vocab_size)

            def loop(state: Any, fixed: Any, numbers: Any, budget: Any) -> Any:
                self.traces += 1

                def more(state: Any, done_steps: Any) -> Any:
                    room = state["slot"] < slots_of(state["recent"])
                    return room & (done_steps < budget) & ~selector.is_finished(state)

                def body(state: Any, done_steps: Any) -> Any:
                    state, parents = selector.select(state, process, numbers)
                    if parents is not None:
                        state["recent"] = tf.nest.map_structure(lambda x: tf.gather(x, parents), state["recent"])

                    def read() -> Any:
                        return self._step(state, fixed, selector.copies)

                    def skip() -> Any:
                        return state["logits"], state["recent"]

                    state["logits"], state["recent"] = tf.cond(selector.is_finished(state), skip, read)
                    state["slot"] += 1
                    state["position"] += 1
                    return state, done_steps + 1

                return tf.while_loop(more, body, (state, tf.constant(0)), parallel_iterations=1)[0]

            self._loops[key] = self._open_shapes(loop)
        return self._loops[key]

    def _open_shapes(self, function: Callable) -> Callable:
        """A tf.function that is traced once, at its first call, for all sizes that later calls may have."""
        compiled: list[Callable] = []

        def call(*arguments: Any) -> Any:
            if not compiled:
                signature = tf.nest.map_structure(_open, arguments)
                compiled.append(tf.function(function, input_signature=signature, autograph=False))
            return compiled[0](*arguments)

        return call

    def _reading(self) -> Any:
        model = self.model
        model.stepping, model.copies = False, 1
        model.frozen, model.recent, model.memory = {}, {}, {}
        return model

    def _inputs(self, tokens: Any, position: Any, segment: int) -> dict[str, Any]:
        inputs = {"Input-Token": tokens, "Input-Position": position}
        if self.config.type_vocab_size:
            inputs["Input-Segment"] = tf.fill(tf.shape(tokens), segment)
        return inputs

    def _fresh_slots(self, frozen: dict[str, Any], copies: int) -> dict[str, Any]:
        def zeros(x: Any) -> Any:
            return tf.zeros([x.shape[0] * copies, x.shape[1], SLOTS, x.shape[3]], x.dtype)

        return tf.nest.map_structure(zeros, frozen)

    def _make_room(self, state: Any, fixed: Any, selector: Any) -> tuple[Any, Any]:
        """After a full buffer: one row a prompt freezes it, rows that share a prompt get a longer one."""
        state, fixed = dict(state), dict(fixed)
        for name in selector.columns:
            state[name] = tf.pad(state[name], [[0, 0]] * (len(state[name].shape) - 1) + [[0, SLOTS]])
        if selector.copies > 1:
            longer = [[0, 0], [0, 0], [0, SLOTS], [0, 0]]
            state["recent"] = tf.nest.map_structure(lambda x: tf.pad(x, longer), state["recent"])
            return state, fixed
        fixed["frozen"] = tf.nest.map_structure(
            lambda old, new: tf.concat([old, new], axis=2), fixed["frozen"], state["recent"]
        )
        fixed["frozen_bias"] = tf.pad(fixed["frozen_bias"], [[0, 0], [0, 0], [0, 0], [0, SLOTS]])
        state["recent"] = tf.nest.map_structure(tf.zeros_like, state["recent"])
        state["slot"] = tf.constant(0)
        return state, fixed

    def _start_id(self) -> int:
        start = self.config.decoder_start_token_id
        return self.config.pad_token_id if start is None else start

    def _check_length(self, prompt: int, new: int) -> None:
        most = self.config.max_position_embeddings
        if not self.is_t5 and most is not None and prompt + new > most:
            raise ConfigError(
                f"The longest prompt has {prompt} tokens; with max_new_tokens={new} that exceeds the model's {most} "
                f"positions. Shorten the prompt or ask for at most {max(most - prompt, 0)} new tokens."
            )


def slots_of(recent: dict[str, Any]) -> Any:
    """How many steps a buffer holds."""
    keys, _ = next(iter(recent.values()))
    return tf.shape(keys)[2]


def _open(value: Any) -> tf.TensorSpec:
    """A spec that fixes only what the model fixes: heads and head size of keys and values."""
    value = tf.convert_to_tensor(value)
    shape = [None] * len(value.shape)
    if len(shape) == 4 and value.dtype.is_floating and value.shape[1] != 1:
        shape = [None, value.shape[1], None, value.shape[3]]
    return tf.TensorSpec(shape, value.dtype)
