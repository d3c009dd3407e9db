"""The decoding core: one prefill of the prompts, then a compiled loop of one-token steps.

`Decoder` is made once for a model and keeps its compiled functions. They are traced with open shapes: another prompt
length, number of rows or maximum length compiles nothing. The loop runs until its buffer of keys and values is full
(`SLOTS` steps) or all rows are done; between such stretches the host makes the buffer longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfloader.errors import ConfigError
from tfloader.generation import draws, processors
from tfloader.generation.beam import BeamSearch
from tfloader.generation.cache import REMEMBERED, Place, cached, per_key, visible
from tfloader.generation.contrastive import ContrastiveSearch
from tfloader.generation.lean import held, sequences
from tfloader.generation.options import GenerationOptions
from tfloader.generation.products import KernelCopies, asking
from tfloader.generation.sampling import OneToken
from tfloader.generation.window import Window, window_for
from tfloader.models.t5 import T5
from tfloader.models.transformer import Transformer

SLOTS = 64
SPARE_MEMORY = 2**30


class Generated(NamedTuple):
    """What came out.

    Attributes:
        sequences: for each prompt its returned sequences in turn: lists of new token ids, without the prompt, up to
            and including the stop token.
        scores: [sequences] sum of the log-probabilities of the chosen tokens; for beams as they were ranked: less
            diversity penalties, and divided by length ** length_penalty.
        token_scores: for each sequence the log-probabilities of its tokens, where they were asked for.
    """

    sequences: list[list[int]]
    scores: np.ndarray
    token_scores: list[np.ndarray] | None = None


class Decoder:
    """Generates token ids with a language model.

    Args:
        transformer: a built GPT-2, GPT2_ML, T5, or BERT with application "lm" or "unilm".
        spare_memory: see `TextGenerator`.

    Attributes:
        traces: how often a function was traced since the decoder was made.
    """

    def __init__(self, transformer: Transformer, spare_memory: int = SPARE_MEMORY) -> None:
        self.transformer = transformer
        self.spare_memory = spare_memory
        self.model = cached(transformer)
        self.config = transformer.config
        self.is_t5 = isinstance(transformer, T5)
        self.dtype = transformer.dtype_policy.compute_dtype
        self.traces = 0
        self._variables: list[Any] | None = None
        self._forget_functions()

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
        self._forget_functions()
        options.check(self.config.vocab_size, len(tokens))
        selector = strategy(options)(options, self.config)
        window = window_for(self.config, real, options)
        prompts = tokens, real
        tokens, real = (np.repeat(item, selector.repeats, axis=0) for item in prompts)
        logits, hidden, fixed, position = self._read(*window.view(tokens, real, real.sum(axis=1)))
        state = selector.start(logits, *self._text(tokens, real), SLOTS + 1, hidden)
        if options.do_sample:
            state["streams"] = tf.constant(draws.streams(*prompts, options))
        state["position"] = tf.repeat(position, selector.copies)
        fixed, buffers = self._buffers(fixed, selector)
        state |= buffers
        state["stop_at"] = tf.constant(options.max_new_tokens)
        numbers = {name: tf.convert_to_tensor(value) for name, value in processors.numbers(options).items()}
        one_row = self.dtype == "bfloat16" and len(tokens) * selector.copies == 1
        self._copies[one_row].refresh()
        loop = self._loop(selector, options, one_row)
        while True:
            # The token that fresh logits give is no step, but needs a place too.
            room = window.steps_left(text_length(state)) - int(state["fresh"])
            budget = min(SLOTS if steps is None else steps, room)
            state = loop(state, fixed, numbers, tf.constant(budget))
            processors.raise_fault(int(state["fault"]), options)
            yield state, selector
            if selector.is_finished(state):
                return
            if not window.steps_left(text_length(state)):
                state, fixed = self._read_anew(state, window, selector)
            elif not slots_left(state):
                state = self._make_room(state, selector)

    def score(self, tokens: np.ndarray, real: np.ndarray) -> np.ndarray:
        """[rows] sums of the log-probabilities of all tokens but the first; arguments as for `generate`."""
        if self.config.application != "lm":
            raise ConfigError("T5 and UniLM score targets for sources: use the model itself, which gives the logits.")
        longest, most = int(real.sum(axis=1).max()), self.config.max_position_embeddings
        if most is not None and longest > most:
            raise ConfigError(f"The longest text has {longest} tokens, more than the model's {most} positions. Cut it.")
        self._forget_functions()
        if self._score is None:
            spec = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.bool)
            self._score = compiled(self._score_prompt, spec)
        return self._score(tf.constant(tokens, tf.int32), tf.constant(real, tf.bool)).numpy()

    def _score_prompt(self, tokens: Any, real: Any) -> Any:
        self.traces += 1
        x, _ = self._read_prompt(tokens, real)
        self.model.all_logits = True
        scores = tf.nn.log_softmax(tf.cast(self.model.head(x[:, :-1]), tf.float32))
        scores = tf.gather(scores, tokens[:, 1:], axis=2, batch_dims=2)
        return tf.reduce_sum(tf.where(real[:, :-1], scores, 0.0), axis=1)

    # ---- the parts

    def _forget_functions(self) -> None:
        """Drops the compiled functions where the layers' variables are no longer those that they hold (LoRA)."""
        variables = [weight for layer in self.transformer.layers.values() for weight in layer.weights]
        if self._variables is None or list(map(id, variables)) != list(map(id, self._variables)):
            self._variables = variables  # kept, so that no other variable gets their ids
            self._prefill: Callable | None = None
            self._score: Callable | None = None
            self._loops: dict[Any, Callable] = {}
            # By whether steps are known to have one row.
            self._copies = {
                turned: KernelCopies(variables, self.dtype, self.spare_memory, turned) for turned in (False, True)
            }

    def _note(self, *layers: Any) -> None:
        for copies in self._copies.values():
            copies.note(*layers)

    def _read(self, tokens: np.ndarray, real: np.ndarray) -> tuple[Any, Any, dict[str, Any], Any]:
        """(logits of the next token, last hidden states, what all steps read, position of the next token)."""
        if self._prefill is None:
            spec = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.bool)
            read = self._prefill_t5 if self.is_t5 else self._prefill_prompt
            self._prefill = compiled(read, spec)
        return self._prefill(tf.constant(tokens, tf.int32), tf.constant(real, tf.bool))

    def _text(self, tokens: np.ndarray, real: np.ndarray) -> tuple[Any, Any]:
        """What the new tokens are written behind: the prompt, or T5's start token."""
        if self.is_t5:
            tokens = np.full((len(tokens), 1), self._start_id(), "int32")
            real = np.ones_like(tokens, bool)
        return tf.constant(tokens, tf.int32), tf.constant(real, tf.bool)

    def _prefill_prompt(self, tokens: Any, real: Any) -> tuple[Any, Any, dict[str, Any], Any]:
        self.traces += 1
        with asking(self._note):
            x, position = self._read_prompt(tokens, real)
            logits = tf.cast(self.model.head(x)[:, -1], tf.float32)
        fixed = {
            "frozen": self.model.frozen,
            "frozen_bias": visible(per_key(real), self.dtype),
            "padding": tf.reduce_sum(tf.cast(~real, tf.int32), axis=1),
            "memory": {},
            "memory_bias": tf.zeros((0,), self.dtype),
        }
        return logits, self.model.hidden, fixed, position[:, -1] + 1

    def _read_prompt(self, tokens: Any, real: Any) -> tuple[Any, Any]:
        """Last hidden states and positions of whole prompts; a UniLM's prompt sees itself on both sides."""
        model = self._reading()
        allowed = per_key(real)
        if self.config.application == "lm":
            place = tf.range(tf.shape(tokens)[1])
            allowed = tf.logical_and(allowed, (place[None, :] <= place[:, None])[None, None])
        model.bias = visible(allowed, self.dtype)
        position = tf.maximum(tf.cumsum(tf.cast(real, tf.int32), axis=1) - 1, 0)
        x = model.embed(self._inputs(tokens, position, segment=0))
        with sequences(tokens):
            for index in range(self.config.num_hidden_layers):
                x = model.block(x, index)
        return x, position

    def _prefill_t5(self, tokens: Any, real: Any) -> tuple[Any, Any, dict[str, Any], Any]:
        self.traces += 1
        model = self._reading()
        rows = tf.shape(tokens)[0]
        start = tf.fill([rows, 1], self._start_id())
        with sequences(tokens):
            model.remembering = False
            context, memory_bias = model.encode(tokens, tf.cast(real, tf.int32))
            model.remembering = True
            with asking(self._note):
                logits = tf.cast(model.decode(start, context, memory_bias)[:, -1], tf.float32)
        fixed = {
            "frozen": model.frozen,
            "frozen_bias": tf.zeros([rows, 1, 1, 1], self.dtype),
            "padding": tf.zeros([rows], tf.int32),
            "memory": model.memory,
            "memory_bias": memory_bias,
        }
        return logits, model.hidden, fixed, tf.ones([rows], tf.int32)

    def _step(self, state: dict[str, Any], fixed: dict[str, Any], copies: int, one_row: bool = False) -> dict[str, Any]:
        """Reads the last token of each row; returns the entries of the state that change by that."""
        model = self.model
        model.stepping, model.copies = True, copies
        model.slot, model.place = state["slot"], Place.of(state["slot"], slots_of(state["recent"]), self.config)
        model.frozen, model.recent, model.memory = fixed["frozen"], dict(state["recent"]), fixed["memory"]
        place = tf.range(slots_of(state["recent"]))
        seen = (place >= fixed["padding"][:, None]) & (place <= state["slot"])
        model.bias = (fixed["frozen_bias"], visible(per_key(seen), self.dtype))
        last = tf.reshape(state["last"], (1 if one_row else -1, 1))
        if self.is_t5:
            logits = model.decode(last, REMEMBERED, fixed["memory_bias"])
        else:
            x = model.embed(self._inputs(last, state["position"][:, None], int(self.config.application == "unilm")))
            for index in range(self.config.num_hidden_layers):
                x = model.block(x, index)
            logits = model.head(x)
        found = {"logits": tf.cast(logits[:, 0], tf.float32), "recent": model.recent, "hidden": model.hidden[:, 0]}
        return {name: value for name, value in found.items() if name in state}

    def _loop(self, selector: Any, options: GenerationOptions, one_row: bool) -> Callable:
        key = (one_row, selector.copies, processors.signature(options))
        if key not in self._loops:
            process = processors.build(options, self.config.vocab_size)

            def loop(state: Any, fixed: Any, numbers: Any, budget: Any) -> Any:
                self.traces += 1

                def choose(state: Any) -> tuple[Any, Any]:
                    return selector.select(state, process, numbers)

                def more(state: Any, done_steps: Any) -> Any:
                    return (slots_left(state) > 0) & (done_steps < budget) & ~selector.is_finished(state)

                def body(state: Any, done_steps: Any) -> Any:
                    state |= self._step(state, fixed, selector.copies, one_row)
                    state["slot"] += 1
                    state["position"] += 1
                    state, parents = choose(state)
                    if parents is not None:
                        state["recent"] = tf.nest.map_structure(lambda x: tf.gather(x, parents), state["recent"])
                    return state, done_steps + 1

                # Buffers that went through tf.cond could not be written in place. Nothing of the rows' own is in them
                # where logits are fresh from a prompt: their order does not matter yet.
                rest = {name: value for name, value in state.items() if name != "recent"}
                state = state | tf.cond(state["fresh"], lambda: choose(rest)[0], lambda: rest)
                state["fresh"] = tf.constant(False)
                with held(self.transformer.model.variables, self.dtype), asking(self._copies[one_row].of):
                    return tf.while_loop(more, body, (state, tf.constant(0)), parallel_iterations=1)[0]

            self._loops[key] = self._open_shapes(loop)
        return self._loops[key]

    def _open_shapes(self, function: Callable) -> Callable:
        """A compiled function that is traced once, at its first call, for all sizes that later calls may have."""
        made: list[Callable] = []

        def call(*arguments: Any) -> Any:
            if not made:
                made.append(compiled(function, signature_of(arguments)))
            return made[0](*arguments)

        return call

    def _reading(self) -> Any:
        model = self.model
        model.stepping, model.all_logits, model.copies = False, False, 1
        model.frozen, model.recent, model.memory = {}, {}, {}
        return model

    def _inputs(self, tokens: Any, position: Any, segment: int) -> dict[str, Any]:
        inputs = {"Input-Token": tokens, "Input-Position": position}
        if self.config.type_vocab_size:
            inputs["Input-Segment"] = tf.fill(tf.shape(tokens), segment)
        return inputs

    def _buffers(self, fixed: dict[str, Any], selector: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the steps after a prompt read, and the entries of the state for what they write."""
        prompt, copies = fixed["frozen"], selector.copies
        if copies == 1:
            fixed = fixed | {"frozen": {}, "frozen_bias": fixed["frozen_bias"][..., :0]}
            recent, slot = longer(prompt), slots_of(prompt)
        else:
            fixed = fixed | {"padding": tf.zeros([1], tf.int32)}
            recent = tf.nest.map_structure(
                lambda x: tf.zeros([x.shape[0] * copies, x.shape[1], SLOTS, x.shape[3]], x.dtype), prompt
            )
            slot = tf.constant(0)
        return fixed, {"recent": recent, "slot": slot, "fresh": tf.constant(True)}

    def _make_room(self, state: Any, selector: Any) -> Any:
        """The state with `SLOTS` more slots."""
        return self._widened(state, selector, SLOTS) | {"recent": longer(state["recent"])}

    def _read_anew(self, state: Any, window: Window, selector: Any) -> tuple[Any, Any]:
        """When positions run out: the texts are read again, the full ones from their last part."""
        tokens, real = (state[name].numpy()[:, : int(state["used"])] for name in ("tokens", "real"))
        logits, _, fixed, position = self._read(*window.view(tokens, real, text_length(state)))
        state = self._widened(state, selector, SLOTS + 1 - int(slots_left(state)))
        fixed, buffers = self._buffers(fixed, selector)
        return state | {"logits": logits, "position": position} | buffers, fixed

    def _widened(self, state: Any, selector: Any, by: int) -> Any:
        """The state with room for more tokens."""

        def wider(x: Any) -> Any:
            return tf.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[0, by]])

        return state | {name: wider(state[name]) for name in selector.columns}

    def _start_id(self) -> int:
        start = self.config.decoder_start_token_id
        return self.config.pad_token_id if start is None else start


def strategy(options: GenerationOptions) -> type:
    """Who chooses the next tokens."""
    if options.num_beams > 1:
        return BeamSearch
    return OneToken if options.penalty_alpha is None else ContrastiveSearch


def compiled(function: Callable, signature: tuple[Any, ...]) -> Callable:
    # Called as it is, a tf.function would warn of retracing after a few kinds of options.
    return tf.function(function, input_signature=signature, autograph=False).get_concrete_function()


def slots_of(recent: dict[str, Any]) -> Any:
    """How many keys a buffer holds."""
    keys, _ = next(iter(recent.values()))
    return tf.shape(keys)[2]


def slots_left(state: dict[str, Any]) -> Any:
    return slots_of(state["recent"]) - state["slot"]


def longer(recent: dict[str, Any]) -> dict[str, Any]:
    """A buffer with `SLOTS` more slots."""
    return tf.nest.map_structure(lambda x: tf.pad(x, [[0, 0], [0, 0], [0, SLOTS], [0, 0]]), recent)


def text_length(state: dict[str, Any]) -> np.ndarray:
    """[rows] real tokens of prompt and output; the last was not read yet, unless logits are fresh from a prompt."""
    return state["position"].numpy() + (not state["fresh"])


def signature_of(arguments: Any) -> Any:
    """Specs that fix only what the model fixes: heads and head size of keys and values."""
    if isinstance(arguments, tuple | list):
        return type(arguments)(signature_of(item) for item in arguments)
    if isinstance(arguments, dict):
        return {name: signature_of(item) for name, item in arguments.items()}
    return _open(arguments)


def _open(value: Any) -> tf.TensorSpec:
    value = tf.convert_to_tensor(value)
    shape = [None] * len(value.shape)
    if len(shape) == 4 and value.dtype.is_floating and value.shape[1] != 1:
        shape = [None, value.shape[1], None, value.shape[3]]
    return tf.TensorSpec(shape, value.dtype)
