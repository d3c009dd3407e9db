"""Contrastive search (Su et al., A contrastive framework for neural text generation, 2022).

Of the `top_k` likeliest next tokens v it takes the one with the greatest
    (1 - penalty_alpha) * p(v | text) - penalty_alpha * max over the text of cosine(h(v), h(token)),
h being the model's last hidden states. A candidate's is known only after the model has read it, so the rows of a
prompt are its candidates: each turn judges those that were read, and proposes new ones, which all continue the winner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfloader.config import TransformerConfig
from tfloader.generation.filters import RULED_OUT
from tfloader.generation.options import GenerationOptions
from tfloader.generation.processors import Context, fault
from tfloader.generation.sampling import OneToken, is_one_of, put


class ContrastiveSearch(OneToken):
    """The state of the loop, beside what `OneToken` has, with one row a prompt, or `top_k` for last, logits, hidden:

    hidden: [rows, size] last hidden states of the candidates; context: [prompts, size, columns] those of the text, of
    length 1; shares, candidate_scores: [prompts, top_k] probability of each candidate (-inf where it is ruled out) and
    its log-probability before the processors.

    A token that is ruled out never wins, however unlike the text it is; in Hugging Face's it may.
    """

    columns = (*OneToken.columns, "context")

    def __init__(self, options: GenerationOptions, config: TransformerConfig) -> None:
        super().__init__(options, config)
        self.copies = options.top_k

    def start(self, logits: Any, tokens: Any, real: Any, room: int, hidden: Any) -> dict[str, Any]:
        """The last token of each prompt is its only candidate, in `top_k` copies."""
        directions = tf.transpose(_direction(hidden), (0, 2, 1))
        first, last = tokens[:, :-1], tokens[:, -1]
        prompts, length = first.shape
        wider = [[0, 0], [0, room + 1]]
        return {
            "tokens": tf.pad(first, wider),
            "real": tf.pad(real[:, :-1], wider),
            "token_scores": tf.zeros([prompts, length + room + 1]),
            "context": tf.pad(directions[:, :, :-1], [[0, 0], *wider]),
            "logits": tf.repeat(logits, self.copies, axis=0),
            "hidden": tf.repeat(hidden[:, -1], self.copies, axis=0),
            "shares": tf.zeros([prompts, self.copies]),
            "candidate_scores": tf.zeros([prompts, self.copies]),
            "used": tf.constant(length),
            "generated": tf.constant(-1),
            "last": tf.repeat(last, self.copies),
            "done": tf.zeros([prompts], tf.bool),
            "fault": tf.constant(0),
        }

    def select(self, state: dict[str, Any], process: Callable, numbers: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """Judges the candidates, and proposes the next; returns also the row that these continue."""
        state, used, done = dict(state), state["used"], state["done"]
        directions = self.by_prompt(_direction(state["hidden"]))
        best = self.best(directions, state, numbers["penalty_alpha"])

        def winners(x: Any) -> Any:
            return tf.gather(x, best, axis=1, batch_dims=1)

        token = tf.where(done, self.pad_token_id, winners(self.by_prompt(state["last"])))
        state["tokens"] = put(state["tokens"], token, used)
        state["real"] = put(state["real"], ~done, used)
        state["token_scores"] = put(state["token_scores"], winners(state["candidate_scores"]), used)
        state["context"] = put(state["context"], winners(directions), used)
        state["used"] += 1
        state["generated"] += 1
        # The prompt's own last token, judged at first, ends nothing.
        state["done"] = done | (is_one_of(token, numbers["eos_token_id"]) & (state["generated"] > 0))

        raw = winners(self.by_prompt(state["logits"]))
        context = Context(state["tokens"][:, : used + 1], state["real"][:, : used + 1], state["generated"])
        logits = process(raw, context, numbers)
        state["fault"] = fault(raw, logits, ~state["done"] & (state["generated"] < state["stop_at"]))
        found, candidates = tf.math.top_k(logits, k=self.copies)
        shares = tf.gather(tf.nn.softmax(logits), candidates, axis=1, batch_dims=1)
        state["shares"] = tf.where(found > RULED_OUT, shares, RULED_OUT)
        state["candidate_scores"] = tf.gather(tf.nn.log_softmax(raw), candidates, axis=1, batch_dims=1)
        state["last"] = tf.reshape(candidates, [-1])
        rows = tf.range(tf.size(best)) * self.copies + best
        return state, tf.repeat(rows, self.copies)

    def best(self, directions: Any, state: dict[str, Any], alpha: Any) -> Any:
        """[prompts] which candidate wins."""
        likeness = tf.matmul(directions, state["context"])
        likeness = tf.reduce_max(tf.where(state["real"][:, None, :], likeness, -1.0), axis=-1)
        scores = (1.0 - alpha) * state["shares"] - alpha * likeness
        return tf.argmax(scores, axis=1, output_type=tf.int32)

    def by_prompt(self, x: Any) -> Any:
        """[prompts * top_k, ...] -> [prompts, top_k, ...]"""
        return tf.reshape(x, tf.concat([[-1, self.copies], tf.shape(x)[1:]], axis=0))


def _direction(hidden: Any) -> Any:
    return tf.math.l2_normalize(tf.cast(hidden, tf.float32), axis=-1)
