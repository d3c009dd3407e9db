"""Beam search that keeps finished hypotheses, with Hugging Face's meaning of its options.

Running and finished hypotheses are two sets of `num_beams` each. A hypothesis that ends among the best `num_beams`
continuations enters the finished set, ranked by sum of log-probabilities / length ** length_penalty, and pushes out
the worst there; it never goes on. A prompt is done when no running hypothesis can enter any more; when that is, is what
`early_stopping` says: True as soon as the finished set is full, False judging the best running one by its present
length, "never" by the greatest length that it may reach.

Diverse beam search (Vijayakumar et al., 2018) divides the beams into groups, each a search with both sets of its own.
The groups take turns: from the score of a token a group subtracts `diversity_penalty` for each running hypothesis of
the groups before it that has just been continued with this token. The best of all groups are returned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfloader.config import TransformerConfig
from tfloader.generation.filters import places_of
from tfloader.generation.options import GenerationOptions
from tfloader.generation.processors import Context, fault
from tfloader.generation.sampling import is_one_of, put

NEVER = -1e9


class BeamSearch:
    """The state of the loop, beside what `OneToken` has; a search is a group of beams of one prompt:

    tokens, real: [searches, beams, columns] running hypotheses, best first; running: [searches, beams] their scores;
    finished_tokens: [searches, beams, columns]; finished_scores, finished_lengths: [searches, beams] (NEVER and 0
    where there is none); open: [searches] whether a better hypothesis may still come; stuck: [searches] whether none
    is left to go on. last, logits: as ever, with searches * beams rows.
    """

    columns = ("tokens", "real", "finished_tokens")
    by_search = (*columns, "running", "finished_scores", "finished_lengths", "open", "stuck")
    repeats = 1

    def __init__(self, options: GenerationOptions, config: TransformerConfig) -> None:
        self.options = options
        self.copies, self.groups, self.beams = options.num_beams, options.num_beam_groups, options.beams_per_group

    def start(self, logits: Any, tokens: Any, real: Any, room: int, hidden: Any) -> dict[str, Any]:
        prompts, length = tokens.shape
        searches = prompts * self.groups
        tokens, real = (tf.pad(tf.repeat(item, self.copies, axis=0), [[0, 0], [0, room]]) for item in (tokens, real))
        shape = (searches, self.beams, length + room)
        return {
            "tokens": tf.reshape(tokens, shape),
            "real": tf.reshape(real, shape),
            "logits": tf.repeat(logits, self.copies, axis=0),
            "used": tf.constant(length),
            "generated": tf.constant(0),
            "last": tf.zeros([prompts * self.copies], tf.int32),
            # All beams are the same before the first token: only one of them may be continued.
            "running": tf.repeat(tf.constant([[0.0] + [NEVER] * (self.beams - 1)]), searches, axis=0),
            "finished_tokens": tf.zeros(shape, tf.int32),
            "finished_scores": tf.fill(shape[:2], NEVER),
            "finished_lengths": tf.zeros(shape[:2], tf.int32),
            "open": tf.ones([searches], tf.bool),
            "stuck": tf.zeros([searches], tf.bool),
            "fault": tf.constant(0),
        }

    def select(self, state: dict[str, Any], process: Callable, numbers: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """Continues the running hypotheses, group after group; returns also the row that each new row continues."""
        scores = tf.nn.log_softmax(state["logits"])
        scores = tf.reshape(scores, (-1, self.beams, tf.shape(scores)[1]))
        context = {name: state[name] for name in ("used", "generated", "stop_at")}
        parts, chosen = [], []
        for group in range(self.groups):
            part = context | {name: state[name][group :: self.groups] for name in self.by_search}
            own = scores[group :: self.groups]
            if chosen:
                own -= numbers["diversity_penalty"] * counts(tf.concat(chosen, axis=1), tf.shape(own)[2])[:, None]
            # A search that is over chooses nothing.
            live = part["open"][:, None]
            parts.append(self.advance(part, own, process, numbers))
            chosen.append(tf.where(live, parts[-1]["last"], -1))
        joined = {name: interleaved([part[name] for part in parts]) for name in (*self.by_search, "last", "beam")}
        beam = joined.pop("beam")
        parents = beam + tf.range(tf.shape(beam)[0])[:, None] * self.beams
        joined["last"] = tf.reshape(joined["last"], [-1])
        joined["fault"] = tf.reduce_max([part["fault"] for part in parts])
        joined |= {name: state[name] + 1 for name in ("used", "generated")}
        return state | joined, tf.reshape(parents, [-1])

    def advance(self, state: dict[str, Any], scores: Any, process: Callable, numbers: dict[str, Any]) -> dict[str, Any]:
        """Continues one search a prompt, given log-probabilities [prompts, beams, vocab].

        Returns the state with `last` and `beam`, [prompts, beams]: the new tokens, and which beams they continue.
        """
        beams, vocab, used = self.beams, tf.shape(scores)[2], state["used"]
        text = (tf.reshape(state[name][..., :used], (-1, used)) for name in ("tokens", "real"))
        context = Context(*text, state["generated"])
        processed = process(tf.reshape(scores, (-1, vocab)), context, numbers)
        whole = (-1, beams * vocab)
        broken = fault(tf.reshape(scores, whole), tf.reshape(processed, whole), state["open"])
        scores = tf.reshape(tf.reshape(processed, (-1, beams, vocab)) + state["running"][:, :, None], whole)
        # Enough candidates that `beams` of them go on even if all others end.
        count = beams * max(2, 1 + len(self.options.eos_token_ids))
        scores, flat = tf.math.top_k(scores, k=count)
        beam, token = flat // vocab, flat % vocab

        tokens = put(tf.gather(state["tokens"], beam, axis=1, batch_dims=1), token, used)
        state = state | {"fault": broken, "generated": state["generated"] + 1}
        stops = is_one_of(token, numbers["eos_token_id"])
        ends = stops | (state["generated"] >= state["stop_at"])
        state |= self.finish(state, tokens, scores, ends, numbers["length_penalty"])

        state["running"], best = tf.math.top_k(tf.where(stops, scores + NEVER, scores), k=beams)
        for name, candidates in (("tokens", tokens), ("last", token), ("beam", beam)):
            state[name] = tf.gather(candidates, best, axis=1, batch_dims=1)
        state["real"] = put(state["real"], tf.ones_like(best, tf.bool), used)
        state["open"] = state["open"] & self.may_improve(state, numbers["length_penalty"])
        state["stuck"] = tf.reduce_all(stops, axis=1)
        return state

    def finish(self, state: Any, tokens: Any, scores: Any, ends: Any, length_penalty: Any) -> dict[str, Any]:
        """The finished set, after candidates that end, and are among the best `beams`, have come into it."""
        length = tf.cast(state["generated"], tf.float32)
        among_best = tf.range(tf.shape(scores)[1]) < self.beams
        allowed = ends & among_best & state["open"][:, None]
        if self.options.early_stopping is True:
            allowed &= ~tf.reduce_all(state["finished_lengths"] > 0, axis=1, keepdims=True)
        entering = tf.where(allowed, scores / length**length_penalty, NEVER)
        lengths = tf.where(allowed, state["generated"], 0)
        merged = tf.concat([state["finished_scores"], entering], axis=1)
        best_scores, best = tf.math.top_k(merged, k=self.beams)
        found = {"finished_scores": best_scores}
        for name, new in (("finished_tokens", tokens), ("finished_lengths", lengths)):
            found[name] = tf.gather(tf.concat([state[name], new], axis=1), best, axis=1, batch_dims=1)
        return found

    def may_improve(self, state: Any, length_penalty: Any) -> Any:
        """[searches] whether the best running hypothesis may still beat the worst finished one."""
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
        ended = (state["generated"] >= state["stop_at"]) | tf.reduce_all(state["stuck"]) | (state["fault"] > 0)
        return ended | ~tf.reduce_any(state["open"])

    def results(self, state: dict[str, Any]) -> tuple[list[list[int]], np.ndarray, None]:
        """The best finished hypotheses of all groups of each prompt."""
        first = int(state["used"] - state["generated"])
        scores, lengths, tokens = (
            np.reshape(state[f"finished_{name}"].numpy(), (-1, self.copies, *state[f"finished_{name}"].shape[2:]))
            for name in ("scores", "lengths", "tokens")
        )
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.options.num_return_sequences]
        scores, lengths = (np.take_along_axis(item, best, axis=1) for item in (scores, lengths))
        tokens = np.take_along_axis(tokens[:, :, first:], best[:, :, None], axis=1)
        rows = zip(tokens.reshape(-1, tokens.shape[2]), lengths.ravel(), strict=True)
        return [row[:n].tolist() for row, n in rows], scores.ravel(), None


def counts(tokens: Any, vocab: Any) -> Any:
    """How often each token is among tokens [prompts, n]; -1 is none: float32 [prompts, vocab]."""
    places = places_of(tokens >= 0, tokens)
    shape = tf.cast(tf.stack([tf.shape(tokens)[0], vocab]), tf.int64)
    return tf.scatter_nd(places, tf.ones(tf.shape(places)[:1]), shape)


def interleaved(parts: list[Any]) -> Any:
    """The tensor of which the parts are x[0::n], x[1::n], ..."""
    stacked = tf.stack(parts, axis=1)
    return tf.reshape(stacked, tf.concat([[-1], tf.shape(stacked)[2:]], axis=0))
