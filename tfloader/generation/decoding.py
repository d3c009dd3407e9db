"""The decoding core: one prefill of the prompts, then a compiled loop of one-token steps.

`Decoder` is made once for a model and keeps its compiled functions, for all threads. One thread at a time traces, as
layers hold what a trace needs. Functions are traced with open shapes: another prompt
length, number of rows or maximum length compiles nothing. The loop runs until its cache of keys and values is full
(`cache.SLOTS` steps) or all rows are done; between such stretches the host makes the cache longer.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfloader.errors import ConfigError
from tfloader.generation import cache, draws, processors
from tfloader.generation.beam import BeamSearch
from tfloader.generation.cache import Prompt, Read, begin
from tfloader.generation.contrastive import ContrastiveSearch
from tfloader.generation.kernels import KernelCopies
from tfloader.generation.loop import State, decoding_loop
from tfloader.generation.options import GenerationOptions
from tfloader.generation.proof import prove
from tfloader.generation.reading import reader
from tfloader.generation.sampling import OneToken
from tfloader.generation.window import Window, window_for
from tfloader.models.transformer import Transformer

SPARE_MEMORY = 2**30
TRACING = threading.RLock()


class Generated(NamedTuple):
    """What came out.

    Attributes:
        sequences: for each prompt its returned sequences in turn: lists of new token ids, without the prompt, up to
            and including the stop token. Beam search under constraints may find fewer than were asked for.
        scores: [sequences] sum of the log-probabilities of the chosen tokens; for beams as they were ranked: less
            diversity penalties, and divided by length ** length_penalty.
        token_scores: for each sequence the log-probabilities of its tokens, where they were asked for.
        prompts: int64 [sequences] the number of each one's prompt.
    """

    sequences: list[list[int]]
    scores: np.ndarray
    token_scores: list[np.ndarray] | None
    prompts: np.ndarray


class Decoder:
    """Generates token ids with a language model.

    Args:
        transformer: a built GPT-2, GPT2_ML, T5, or BERT with application "lm" or "unilm".
        spare_memory: see `TextGenerator`.

    Attributes:
        traces: how often a function was traced since the decoder was made.
    """

    def __init__(self, transformer: Transformer, spare_memory: int = SPARE_MEMORY) -> None:
        self.transformer: Any = transformer
        self.spare_memory = spare_memory
        self.config = transformer.config
        self.reader = reader(transformer)
        prove(self.reader, transformer)
        self.traces = 0
        self._variables: list[Any] = []

    def stretches(
        self,
        tokens: np.ndarray,
        real: np.ndarray,
        options: GenerationOptions,
        steps: int | None = None,
        stopped: Callable[[Generated], np.ndarray] | None = None,
    ) -> Iterator[tuple[Generated, bool]]:
        """Continues prompts until every row has stopped or has `max_new_tokens` new tokens.

        Yields what there is after each stretch of at most `steps` steps, and whether this is the last one.

        Args:
            tokens: int32 [rows, length]; for encoder-decoders the source.
            real: bool [rows, length], False at padding; prompts end at the last column (padding on the left).
            stopped: says after each stretch which rows are done before they have ended.
        """
        self._forget_functions()
        options.check(self.config.vocab_size, len(tokens))
        one_token = OneToken if options.penalty_alpha is None else ContrastiveSearch
        selector: Any = (one_token if options.num_beams == 1 else BeamSearch)(options, self.config)
        window = window_for(self.config, real, options)
        one_row = self.reader.dtype == "bfloat16" and len(tokens) * selector.repeats * selector.copies == 1
        state, prompt = self._start(tokens, real, options, selector, window)
        numbers = {name: tf.convert_to_tensor(value) for name, value in processors.numbers(options).items()}
        with TRACING:
            self._copies[one_row].refresh()
        kind = one_row, selector.copies, processors.signature(options)

        def loop() -> Callable:
            process = processors.build(options)
            kernels, variables = self._copies[one_row].of, self.transformer.model.variables
            return decoding_loop(self.reader, selector, process, kernels, variables, one_row)

        while True:
            # The token that fresh logits give is no step, but takes a position too.
            room = window.steps_left(state.text_length) - int(state.fresh)
            budget = tf.constant(min(cache.SLOTS if steps is None else steps, room))
            state = self._call(kind, loop, state, prompt, numbers, budget)
            processors.raise_fault(int(state.chosen.fault), options)
            found = Generated(*selector.results(state.chosen))
            if stopped:
                done = state.chosen.done | stopped(found)
                state = state._replace(chosen=state.chosen._replace(done=done))
            finished = bool(selector.is_finished(state.chosen))
            yield found, finished
            if finished:
                return
            if not window.steps_left(state.text_length):
                state, prompt = self._read_anew(state, window, selector)
            elif not state.cache.free:
                chosen = with_columns(state.chosen, selector.columns, cache.SLOTS)
                state = state._replace(chosen=chosen, cache=state.cache.longer())

    def score(self, tokens: np.ndarray, real: np.ndarray) -> np.ndarray:
        """[rows] sums of the log-probabilities of all tokens but the first; arguments as for `stretches`."""
        if self.config.application != "lm":
            raise ConfigError("T5 and UniLM score targets for sources: use the model itself, which gives the logits.")
        longest, most = int(real.sum(axis=1).max()), self.config.max_position_embeddings
        if most is not None and longest > most:
            raise ConfigError(f"The longest text has {longest} tokens, more than the model's {most} positions. Cut it.")
        self._forget_functions()
        score = self._call("score", lambda: self.reader.score, tf.constant(tokens, tf.int32), tf.constant(real))
        return score.numpy()

    # ---- the parts

    def _start(
        self, tokens: np.ndarray, real: np.ndarray, options: GenerationOptions, selector: Any, window: Window
    ) -> tuple[State, Prompt]:
        """The state after prompts, each of which is read `selector.repeats` times."""
        streams = draws.streams(tokens, real, options) if options.do_sample else None
        tokens, real = (np.repeat(item, selector.repeats, axis=0) for item in (tokens, real))
        read = self._read(*window.view(tokens, real, real.sum(axis=1)))
        chosen = selector.start(*self.reader.text(tokens, real), cache.SLOTS + 1, read.hidden)
        if streams is not None:
            chosen = chosen._replace(streams=tf.constant(streams))
        return self._state(chosen, read, selector)

    def _state(self, chosen: Any, read: Read, selector: Any) -> tuple[State, Prompt]:
        prompt, step_cache = begin(read.prompt, selector.copies, self.reader.shares_prompts)
        newest = read.logits, read.hidden[:, -1], read.position
        logits, hidden, position = (tf.repeat(item, selector.copies, axis=0) for item in newest)
        hidden = hidden if selector.reads_hidden else ()
        return State(chosen, step_cache, logits, hidden, position, tf.constant(True)), prompt

    def _read(self, tokens: np.ndarray, real: np.ndarray) -> Read:
        prefill = functools.partial(self.reader.prefill, kernels=self._note)
        return self._call("prefill", lambda: prefill, tf.constant(tokens, tf.int32), tf.constant(real))

    def _read_anew(self, state: State, window: Window, selector: Any) -> tuple[State, Prompt]:
        """When positions run out: the texts are read again, the full ones from their last part."""
        used = int(state.chosen.used)
        tokens, real = (item.numpy()[:, :used] for item in (state.chosen.tokens, state.chosen.real))
        chosen = with_columns(state.chosen, selector.columns, cache.SLOTS + 1 - int(state.cache.free))
        return self._state(chosen, self._read(*window.view(tokens, real, state.text_length)), selector)

    def _call(self, kind: Hashable, make: Callable[[], Callable], *arguments: Any) -> Any:
        """Calls a function, compiled at the first call of its kind for all sizes that later ones may have."""
        with TRACING:
            if kind not in self._functions:
                self._functions[kind] = self._compiled(make(), tf.nest.map_structure(open_spec, arguments))
            function = self._functions[kind]
        return function(*arguments)

    def _compiled(self, function: Callable, signature: tuple[Any, ...]) -> Callable:
        def traced(*arguments: Any) -> Any:
            self.traces += 1
            return function(*arguments)

        # Called as it is, a tf.function would warn of retracing after a few kinds of options.
        return tf.function(traced, input_signature=signature, autograph=False).get_concrete_function()

    def _forget_functions(self) -> None:
        """Drops the compiled functions where the layers' variables are no longer those that they hold (LoRA)."""
        variables = [weight for layer in self.transformer.layers.values() for weight in layer.weights]
        with TRACING:
            if list(map(id, variables)) == list(map(id, self._variables)):
                return
            self._functions: dict[Hashable, Callable] = {}
            # By whether steps are known to have one row.
            self._copies = {
                one_row: KernelCopies(variables, self.reader.dtype, self.spare_memory, transposed=one_row)
                for one_row in (False, True)
            }
            # Kept, so that no other variable gets their ids; at the end, as an interrupt may come before.
            self._variables = variables

    def _note(self, *layers: Any) -> None:
        for copies in self._copies.values():
            copies.note(*layers)


def with_columns(chosen: Any, columns: Sequence[str], more: int) -> Any:
    """With room for more tokens."""
    longer = {name: tf.pad(x := getattr(chosen, name), [[0, 0]] * (x.shape.rank - 1) + [[0, more]]) for name in columns}
    return chosen._replace(**longer)


def open_spec(value: Any) -> tf.TensorSpec:
    """A spec that fixes only what the model fixes: heads and head size of keys and values."""
    value = tf.convert_to_tensor(value)
    sizes = (None, value.shape[1], None, value.shape[3]) if value.shape.rank == 4 else (None,) * value.shape.rank
    return tf.TensorSpec(sizes, value.dtype)
