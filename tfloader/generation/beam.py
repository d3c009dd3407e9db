"""Beam search that keeps finished hypotheses, with Hugging Face's meaning of its options.

Running and finished hypotheses are two sets of `num_beams` each. A hypothesis that ends among the best `num_beams`
continuations enters the finished set, ranked by sum of log-probabilities / length ** length_penalty, and pushes out
the worst there; it never goes on. A prompt is done when no running hypothesis can enter any more; when that is, is what
`early_stopping` says: True as soon as the finished set is full, False judging the best running one by its present
length, "never" by the greatest length that it may reach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfloader.config import TransformerConfig
from tfloader.generation.options import GenerationOptions
from tfloader.generation.processors import Context, fault
from tfloader.generation.sampling import is_one_of, put

NEVER = -1e9


class BeamSearch:
    """The state of the loop, beside what `OneToken` has ([prompts, beams] in place of rows):

    tokens: [prompts * beams, columns] running hypotheses, best first; running: [prompts, beams] their scores;
    finished_tokens: [prompts, beams, columns]; finished_scores, finished_lengths: [prompts, beams] (NEVER and 0 where
    there is none); open: [prompts] whether a better hypothesis may still come.
    """

    columns = ("tokens", "real", "finished_tokens")

    def __init__(self, options: GenerationOptions, config: TransformerConfig) -> None:
        self.options = options
        self.copies = options.num_beams

    def start(self, logits: Any, tokens: Any, real: Any, room: int) -> dict[str, Any]:
        beams, prompts = self.copies, tokens.shape[0]
        tokens, real = (tf.pad(tf.repeat(item, beams, axis=0), [[0, 0], [0, room]]) for item in (tokens, real))
        return {
            "tokens": tokens,
            "real": real,
            "logits": tf.repeat(logits, beams, axis=0),
            "used": tf.constant(tokens.shape[1] - room),
            "generated": tf.constant(0),
            "last": tf.zeros([prompts * beams], tf.int32),
            # All beams are the same before the first token: only one of them may be continued.
            "running": tf.repeat(tf.constant([[0.0] + [NEVER] * (beams - 1)]), prompts, axis=0),
            "finished_tokens": tf.zeros([prompts, beams, tokens.shape[1]], tf.int32),
            "finished_scores": tf.fill([prompts, beams], NEVER),
            "finished_lengths": tf.zeros([prompts, beams], tf.int32),
            "open": tf.ones([prompts], tf.bool),
            "stuck": tf.constant(False),
            "fault": tf.constant(0),
        }

    def select(self, state: dict[str, Any], process: Callable, numbers: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """Continues the running hypotheses; returns also the row that each new row continues."""
        beams, used = self.copies, state["used"]
        context = Context(state["tokens"][:, :used], state["real"][:, :used], state["generated"])
        scores = process(tf.nn.log_softmax(state["logits"]), context, numbers)
        vocab = tf.shape(scores)[1]
        whole = (-1, beams * vocab)
        broken = fault(tf.reshape(state["logits"], whole), tf.reshape(scores, whole), state["open"])
        scores = tf.reshape(tf.reshape(scores, (-1, beams, vocab)) + state["running"][:, :, None], whole)
        # Enough candidates that `beams` of them go on even if all others end.
        count = beams * max(2, 1 + len(self.options.eos_token_ids))
        scores, flat = tf.math.top_k(scores, k=count)
        beam, token = flat // vocab, flat % vocab

        tokens = tf.reshape(state["tokens"], (-1, beams, tf.shape(state["tokens"])[1]))
        tokens = put(tf.gather(tokens, beam, axis=1, batch_dims=1), token, used)
        state = dict(state)
        state["fault"] = broken
        state["used"] += 1
        state["generated"] += 1
        ends = is_one_of(token, numbers["eos_token_id"]) | (state["generated"] >= state["stop_at"])
        state = self.finish(state, tokens, scores, ends, numbers["length_penalty"])

        running, best = tf.math.top_k(tf.where(ends, scores + NEVER, scores), k=beams)
        tokens, token, beam = (tf.gather(item, best, axis=1, batch_dims=1) for item in (tokens, token, beam))
        state["running"] = running
        state["tokens"] = tf.reshape(tokens, (-1, tf.shape(tokens)[2]))
        state["real"] = put(state["real"], tf.ones_like(state["last"], tf.bool), used)
        state["last"] = tf.reshape(token, [-1])
        state["open"] = state["open"] & self.may_improve(state, numbers["length_penalty"])
        state["stuck"] = tf.reduce_all(ends)
        return state, tf.reshape(beam + tf.range(tf.shape(beam)[0])[:, None] * beams, [-1])

    def finish(self, state: Any, tokens: Any, scores: Any, ends: Any, length_penalty: Any) -> Any:
        """Lets candidates that end, and are among the best `beams`, into the finished set."""
        length = tf.cast(state["generated"], tf.float32)
        among_best = tf.range(tf.shape(scores)[1]) < self.copies
        allowed = ends & among_best & state["open"][:, None]
        if self.options.early_stopping is True:
            allowed &= ~tf.reduce_all(state["finished_lengths"] > 0, axis=1, keepdims=True)
        entering = tf.where(allowed, scores / length**length_penalty, NEVER)
        lengths = tf.where(allowed, state["generated"], 0)
        merged = tf.concat([state["finished_scores"], entering], axis=1)
        state["finished_scores"], best = tf.math.top_k(merged, k=self.copies)
        for name, new in (("finished_tokens", tokens), ("finished_lengths", lengths)):
            state[name] = tf.gather(tf.concat([state[name], new], axis=1), best, axis=1, batch_dims=1)
        return state

    def may_improve(self, state: Any, length_penalty: Any) -> Any:
        """[prompts] whether the best running hypothesis may still beat the worst finished one."""
        length = tf.cast(state["generated"], tf.float32)
        if self.options.early_stopping == "never":
            longest = tf.cast(state["stop_at"], tf.float32)
            length = tf.where(length_penalty > 0, longest, length)
        best = state["running"][:, 0] / length**length_penalty
        full = tf.reduce_all(state["finished_lengths"] > 0, axis=1)
        worst = tf.reduce_min(state["finished_scores"], axis=1)
        if self.options.early_stopping is True:
            return ~full
        return ~full | (best > worst)

    def is_finished(self, state: dict[str, Any]) -> Any:
        ended = (state["generated"] >= state["stop_at"]) | state["stuck"] | (state["fault"] > 0)
        return ended | ~tf.reduce_any(state["open"])

    def results(self, state: dict[str, Any]) -> tuple[list[list[int]], np.ndarray, None]:
        first, wanted = int(state["used"] - state["generated"]), self.options.num_return_sequences
        tokens = state["finished_tokens"].numpy()[:, :wanted, first:]
        lengths = state["finished_lengths"].numpy()[:, :wanted]
        rows = zip(tokens.reshape(-1, tokens.shape[2]), lengths.ravel(), strict=True)
        return [row[:n].tolist() for row, n in rows], state["finished_scores"].numpy()[:, :wanted].ravel(), None
