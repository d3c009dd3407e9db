"""One continuation a row: the most likely token each time, or one drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfloader.config import TransformerConfig
from tfloader.generation.draws import draw, uniform
from tfloader.generation.options import GenerationOptions
from tfloader.generation.processors import Context, fault


class Rows(NamedTuple):
    """What greedy decoding, sampling and contrastive search carry from step to step.

    Attributes:
        tokens, real: int32, bool [rows, columns] prompt (padded on the left) and what was generated, then free columns.
        token_scores: float32 [rows, columns] log-probabilities of the new tokens.
        used: int32, columns in use; generated: int32, new tokens among them; stop_at: int32, new tokens at most.
        last: int32 [rows] the newest token; done: bool [rows].
        fault: int32, see `processors.fault`.
        streams: uint64 [rows] of sampling, see `draws`; else ().
        context, shares, candidate_scores: of contrastive search, see there; else ().
    """

    tokens: Any
    real: Any
    token_scores: Any
    used: Any
    generated: Any
    stop_at: Any
    last: Any
    done: Any
    fault: Any
    streams: Any = ()
    context: Any = ()
    shares: Any = ()
    candidate_scores: Any = ()


class OneToken:
    """Greedy decoding and sampling.

    Attributes:
        copies: rows of the model for each prompt, which share its keys and values.
        written: rows of the state for each prompt.
        repeats: how often each prompt is read, for rows that share nothing.
        columns: fields of the state that grow with the text, on their last axis.
        reads_hidden: whether `select` needs the last hidden states.
    """

    columns = ("tokens", "real", "token_scores")
    reads_hidden = False

    def __init__(self, options: GenerationOptions, config: TransformerConfig) -> None:
        self.options = options
        rows = options.num_return_sequences
        # Texts that slide apart are read anew each on its own.
        self.copies, self.repeats = (1, rows) if options.sliding_context else (rows, 1)
        self.written = self.copies
        # Fills a row that has stopped; no output shows it.
        self.pad_token_id = next(item for item in (options.pad_token_id, config.pad_token_id, 0) if item is not None)

    def start(self, tokens: Any, real: Any, room: int, hidden: Any) -> Any:
        """The state before the first token.

        Args:
            tokens, real: [prompts, length].
            room: how many tokens may come before the state is made larger.
            hidden: [prompts, length, size], the model's last hidden states.
        """
        tokens, real = (tf.pad(tf.repeat(item, self.written, axis=0), [[0, 0], [0, room]]) for item in (tokens, real))
        rows, columns = tokens.shape
        return Rows(
            tokens=tokens,
            real=real,
            token_scores=tf.zeros([rows, columns]),
            used=tf.constant(columns - room),
            generated=tf.constant(0),
            stop_at=tf.constant(self.options.max_new_tokens),
            last=tf.zeros([rows], tf.int32),
            done=tf.zeros([rows], tf.bool),
            fault=tf.constant(0),
        )

    def select(
        self, state: Any, logits: Any, hidden: Any, process: Callable, numbers: dict[str, Any]
    ) -> tuple[Any, Any]:
        """Chooses the next token of each row, given logits [rows, vocab] and last hidden states [rows, size].

        Returns:
            The state, and the row that each new row continues; None: rows stay where they are.
        """
        used, done = state.used, state.done
        context = Context(state.tokens[:, :used], state.real[:, :used], state.generated)
        processed = process(logits, context, numbers)
        if self.options.do_sample:
            chosen = draw(processed, uniform(state.streams, state.generated))
        else:
            chosen = tf.argmax(processed, axis=-1, output_type=tf.int32)
        chosen = tf.where(done, self.pad_token_id, chosen)
        return state._replace(
            fault=fault(logits, processed, ~done),
            token_scores=put(state.token_scores, log_probability(logits, chosen), used),
            tokens=put(state.tokens, chosen, used),
            real=put(state.real, ~done, used),
            done=done | is_one_of(chosen, numbers["eos_token_id"]),
            last=chosen,
            used=used + 1,
            generated=state.generated + 1,
        ), None

    def is_finished(self, state: Any) -> Any:
        return tf.reduce_all(state.done) | (state.generated >= state.stop_at) | (state.fault > 0)

    def results(self, state: Any) -> tuple[list[list[int]], np.ndarray, list[np.ndarray], np.ndarray]:
        """The fields of `decoding.Generated`."""
        first, used = int(state.used - state.generated), int(state.used)
        real = state.real.numpy()[:, first:used]
        lengths = real.sum(axis=1)
        tokens = [row[:n].tolist() for row, n in zip(state.tokens.numpy()[:, first:used], lengths, strict=True)]
        scores = [row[:n] for row, n in zip(state.token_scores.numpy()[:, first:used], lengths, strict=True)]
        prompts = np.arange(len(tokens)) // self.options.num_return_sequences
        return tokens, np.array([row.sum() for row in scores], "float32"), scores, prompts


def log_probability(logits: Any, chosen: Any) -> Any:
    """[rows] of the chosen ones; for one token of each row TensorFlow's log_softmax takes ten times as long."""
    logits -= tf.reduce_max(logits, axis=-1, keepdims=True)
    return tf.gather(logits, chosen, axis=1, batch_dims=1) - tf.math.log(tf.reduce_sum(tf.exp(logits), axis=-1))


def put(table: Any, values: Any, column: Any) -> Any:
    """The table [..., columns] with one column replaced by values [...]."""
    here = tf.range(tf.shape(table)[-1]) == column
    return tf.where(here, values[..., None], table)


def is_one_of(tokens: Any, ids: Any) -> Any:
    """Which tokens are among ids [n]; n may be 0."""
    return tf.reduce_any(tokens[..., None] == ids, axis=-1)
