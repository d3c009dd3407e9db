"""One continuation a row: the most likely token each time, or one drawn at random."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfloader.config import TransformerConfig
from tfloader.generation.options import GenerationOptions
from tfloader.generation.processors import Context, fault


class OneToken:
    """Greedy decoding and sampling. The state of the loop is a dictionary of tensors:

    tokens, real: [rows, columns], prompt (padded on the left) and what was generated; `used` columns of them;
    generated: number of new tokens; last, done: [rows]; logits: [rows, vocab]; token_scores: [rows, columns];
    fault: see `processors.fault`.

    Attributes:
        copies: rows for each prompt.
        columns: entries of the state that grow with the text, on their last axis.
    """

    columns = ("tokens", "real", "token_scores")

    def __init__(self, options: GenerationOptions, config: TransformerConfig) -> None:
        self.options = options
        self.copies = options.num_return_sequences
        self.pad_token_id = pad_token_id(options, config)
        seed = secrets.randbits(31) if options.seed is None else options.seed
        self.seed = tf.constant(seed, tf.int32)

    def start(self, logits: Any, tokens: Any, real: Any, room: int) -> dict[str, Any]:
        """The state before the first token; logits [prompts, vocab], tokens and real [prompts, length]."""
        tokens, real = (tf.repeat(item, self.copies, axis=0) for item in (tokens, real))
        rows = tokens.shape[0]
        return {
            "tokens": tf.pad(tokens, [[0, 0], [0, room]]),
            "real": tf.pad(real, [[0, 0], [0, room]]),
            "token_scores": tf.zeros([rows, tokens.shape[1] + room]),
            "logits": tf.repeat(logits, self.copies, axis=0),
            "used": tf.constant(tokens.shape[1]),
            "generated": tf.constant(0),
            "last": tf.zeros([rows], tf.int32),
            "done": tf.zeros([rows], tf.bool),
            "seed": self.seed,
            "fault": tf.constant(0),
        }

    def select(self, state: dict[str, Any], process: Callable, numbers: dict[str, Any]) -> tuple[dict[str, Any], None]:
        """Chooses the next token of each row; rows never change places."""
        used, done = state["used"], state["done"]
        context = Context(state["tokens"][:, :used], state["real"][:, :used], state["generated"])
        logits = process(state["logits"], context, numbers)
        if self.options.do_sample:
            seed = tf.stack([state["seed"], state["generated"]])
            chosen = tf.random.stateless_categorical(logits, 1, seed, dtype=tf.int32)[:, 0]
        else:
            chosen = tf.argmax(logits, axis=-1, output_type=tf.int32)
        chosen = tf.where(done, self.pad_token_id, chosen)
        state = dict(state)
        state["fault"] = fault(state["logits"], logits, ~done)
        scores = tf.gather(tf.nn.log_softmax(state["logits"]), chosen, axis=1, batch_dims=1)
        state["token_scores"] = put(state["token_scores"], scores, used)
        state["tokens"] = put(state["tokens"], chosen, used)
        state["real"] = put(state["real"], ~done, used)
        state["done"] = done | is_one_of(chosen, numbers["eos_token_id"])
        state["last"] = chosen
        state["used"] += 1
        state["generated"] += 1
        return state, None

    def is_finished(self, state: dict[str, Any]) -> Any:
        return tf.reduce_all(state["done"]) | (state["generated"] >= state["stop_at"]) | (state["fault"] > 0)

    def results(self, state: dict[str, Any]) -> tuple[list[list[int]], np.ndarray, list[np.ndarray]]:
        """(new token ids of each row, sums of their log-probabilities, the log-probabilities)."""
        first, used = int(state["used"] - state["generated"]), int(state["used"])
        real = state["real"].numpy()[:, first:used]
        lengths = real.sum(axis=1)
        tokens = [row[:n].tolist() for row, n in zip(state["tokens"].numpy()[:, first:used], lengths, strict=True)]
        scores = [row[:n] for row, n in zip(state["token_scores"].numpy()[:, first:used], lengths, strict=True)]
        return tokens, np.array([row.sum() for row in scores], "float32"), scores


def pad_token_id(options: GenerationOptions, config: TransformerConfig) -> int:
    """What fills a row that has stopped; no output shows it."""
    given = options.pad_token_id
    return next((item for item in (given, config.pad_token_id, 0) if item is not None), 0)


def put(table: Any, values: Any, column: Any) -> Any:
    """The table [..., columns] with one column replaced by values [...]."""
    here = tf.range(tf.shape(table)[-1]) == column
    return tf.where(here, values[..., None], table)


def is_one_of(tokens: Any, ids: Any) -> Any:
    """Which tokens are among ids [n]; n may be 0."""
    return tf.reduce_any(tokens[..., None] == ids, axis=-1)
