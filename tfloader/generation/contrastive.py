"""Contrastive search (Su et al., A contrastive framework for neural text generation, 2022).

Of the `top_k` likeliest next tokens v it takes the one with the greatest
    (1 - penalty_alpha) * p(v | text) - penalty_alpha * max over the text of cosine(h(v), h(token)),
h being the model's last hidden states. A candidate's is known only after the model has read it, so the rows of a
prompt are its candidates: each turn judges those that were read, and proposes new ones, which all continue the winner.

The state is `sampling.Rows` with a row for each prompt, and
    last: int32 [prompts * top_k] the candidates.
    context: float32 [prompts, size, columns] last hidden states of the text, of length 1.
    shares: float32 [prompts, top_k] the candidates' probabilities, -inf where one is ruled out.
    candidate_scores: float32 [prompts, top_k] their log-probabilities before the processors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfloader.config import TransformerConfig
from tfloader.generation.filters import RULED_OUT
from tfloader.generation.options import GenerationOptions
from tfloader.generation.processors import Context, fault
from tfloader.generation.sampling import OneToken, Rows, is_one_of, put


class ContrastiveSearch(OneToken):
    """A token that is ruled out never wins, however unlike the text it is; in Hugging Face's it may."""

    columns = (*OneToken.columns, "context")
    reads_hidden = True

    def __init__(self, options: GenerationOptions, config: TransformerConfig) -> None:
        super().__init__(options, config)
        self.copies, self.written = options.top_k, 1

    def start(self, tokens: Any, real: Any, room: int, hidden: Any) -> Rows:
        """The last token of each prompt is its only candidate, in `top_k` copies."""
        nothing = tf.zeros([len(tokens), self.copies])
        return (
            super()
            .start(tokens[:, :-1], real[:, :-1], room + 1, hidden)
            ._replace(
                generated=tf.constant(-1),
                last=tf.repeat(tokens[:, -1], self.copies),
                context=tf.pad(tf.transpose(_direction(hidden[:, :-1]), (0, 2, 1)), [[0, 0], [0, 0], [0, room + 1]]),
                shares=nothing,
                candidate_scores=nothing,
            )
        )

    def select(
        self, state: Rows, logits: Any, hidden: Any, process: Callable, numbers: dict[str, Any]
    ) -> tuple[Rows, Any]:
        """Judges the candidates, and proposes the next; returns also the row that these continue."""
        used, done = state.used, state.done
        directions = self.by_prompt(_direction(hidden))
        best = self.best(directions, state, numbers["penalty_alpha"])

        def winners(x: Any) -> Any:
            return tf.gather(x, best, axis=1, batch_dims=1)

        token = tf.where(done, self.pad_token_id, winners(self.by_prompt(state.last)))
        generated = state.generated + 1
        # The prompt's own last token, judged at first, ends nothing.
        done_now = done | (is_one_of(token, numbers["eos_token_id"]) & (generated > 0))
        tokens, real = put(state.tokens, token, used), put(state.real, ~done, used)

        raw = winners(self.by_prompt(logits))
        processed = process(raw, Context(tokens[:, : used + 1], real[:, : used + 1], generated), numbers)
        found, candidates = tf.math.top_k(processed, k=self.copies)
        shares = tf.gather(tf.nn.softmax(processed), candidates, axis=1, batch_dims=1)
        rows = tf.range(tf.size(best)) * self.copies + best
        return state._replace(
            tokens=tokens,
            real=real,
            token_scores=put(state.token_scores, winners(state.candidate_scores), used),
            context=put(state.context, winners(directions), used),
            used=used + 1,
            generated=generated,
            done=done_now,
            fault=fault(raw, processed, ~done_now & (generated < state.stop_at)),
            shares=tf.where(found > RULED_OUT, shares, RULED_OUT),
            candidate_scores=tf.gather(tf.nn.log_softmax(raw), candidates, axis=1, batch_dims=1),
            last=tf.reshape(candidates, [-1]),
        ), tf.repeat(rows, self.copies)

    def best(self, directions: Any, state: Rows, alpha: Any) -> Any:
        """[prompts] which candidate wins."""
        likeness = tf.matmul(directions, state.context)
        likeness = tf.reduce_max(tf.where(state.real[:, None, :], likeness, -1.0), axis=-1)
        scores = (1.0 - alpha) * state.shares - alpha * likeness
        return tf.argmax(scores, axis=1, output_type=tf.int32)

    def by_prompt(self, x: Any) -> Any:
        """[prompts * top_k, ...] -> [prompts, top_k, ...]"""
        return tf.reshape(x, tf.concat([[-1, self.copies], tf.shape(x)[1:]], axis=0))


def _direction(hidden: Any) -> Any:
    return tf.math.l2_normalize(tf.cast(hidden, tf.float32), axis=-1)
