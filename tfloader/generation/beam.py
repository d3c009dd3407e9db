"""Beam search that keeps finished hypotheses, with Hugging Face's meaning of its options.

Running and finished hypotheses are two sets of `num_beams` each. A hypothesis that ends among the best `num_beams`
continuations enters the finished set, ranked by sum of log-probabilities / length ** length_penalty, and pushes out
the worst there; it never goes on. A prompt is done when no running hypothesis can enter any more; when that is, is what
`early_stopping` says: True as soon as the finished set is full, False judging the best running one by its present
length, "never" by the greatest length that it may reach. Constraints may leave fewer hypotheses than `num_beams`: the
other beams are copies with the score -inf, which nothing comes from, and a search in which none runs is over.

Diverse beam search (Vijayakumar et al., 2018) divides the beams into groups, each a search with both sets of its own.
The groups take turns: from the score of a token a group subtracts `diversity_penalty` for each running hypothesis of
the groups before it that has just been continued with this token. The best of all groups are returned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfloader.config import TransformerConfig
from tfloader.generation.filters import RULED_OUT, places_of
from tfloader.generation.options import GenerationOptions
from tfloader.generation.processors import Context, fault
from tfloader.generation.sampling import is_one_of, put


class Beams(NamedTuple):
    """What beam search carries from step to step; a search is a group of beams of one prompt.

    Attributes:
        tokens, real: int32, bool [searches, beams, columns] running hypotheses, best first.
        running: float32 [searches, beams] their scores; -inf where there is none.
        finished_tokens: int32 [searches, beams, columns] finished hypotheses, best first.
        finished_scores, finished_lengths: float32, int32 [searches, beams]; -inf and 0 where there is none.
        open: bool [searches] whether a better hypothesis may still come.
        last: int32 [searches * beams] the newest tokens; `advance` has them as [searches, beams].
        used, generated, stop_at, fault: as in `sampling.Rows`.
    """

    tokens: Any
    real: Any
    running: Any
    finished_tokens: Any
    finished_scores: Any
    finished_lengths: Any
    open: Any
    last: Any
    used: Any
    generated: Any
    stop_at: Any
    fault: Any


# Its fields with a row for each search.
BY_SEARCH = ("tokens", "real", "running", "finished_tokens", "finished_scores", "finished_lengths", "open")


class BeamSearch:
    """Its attributes are those of `sampling.OneToken`."""

    columns = ("tokens", "real", "finished_tokens")
    repeats = 1
    reads_hidden = False

    def __init__(self, options: GenerationOptions, config: TransformerConfig) -> None:
        self.options = options
        self.copies, self.groups, self.beams = options.num_beams, options.num_beam_groups, options.beams_per_group

    def start(self, tokens: Any, real: Any, room: int, hidden: Any) -> Beams:
        prompts, length = tokens.shape
        searches = prompts * self.groups
        shape = (searches, self.beams, length + room)
        tokens, real = (tf.pad(tf.repeat(item, self.copies, axis=0), [[0, 0], [0, room]]) for item in (tokens, real))
        return Beams(
            tokens=tf.reshape(tokens, shape),
            real=tf.reshape(real, shape),
            # All beams are the same before the first token: only one of them may be continued.
            running=tf.repeat(tf.constant([[0.0] + [RULED_OUT] * (self.beams - 1)]), searches, axis=0),
            finished_tokens=tf.zeros(shape, tf.int32),
            finished_scores=tf.fill(shape[:2], RULED_OUT),
            finished_lengths=tf.zeros(shape[:2], tf.int32),
            open=tf.ones([searches], tf.bool),
            last=tf.zeros([prompts * self.copies], tf.int32),
            used=tf.constant(length),
            generated=tf.constant(0),
            stop_at=tf.constant(self.options.max_new_tokens),
            fault=tf.constant(0),
        )

    def select(
        self, state: Beams, logits: Any, hidden: Any, process: Callable, numbers: dict[str, Any]
    ) -> tuple[Beams, Any]:
        """Continues the running hypotheses, group after group; returns also the row that each new row continues."""
        scores = tf.nn.log_softmax(logits)
        scores = tf.reshape(scores, (-1, self.beams, tf.shape(scores)[1]))
        groups, beams, chosen = [], [], []
        for number in range(self.groups):
            group = state._replace(**{name: getattr(state, name)[number :: self.groups] for name in BY_SEARCH})
            own = scores[number :: self.groups]
            if chosen:
                own -= numbers["diversity_penalty"] * counts(tf.concat(chosen, axis=1), tf.shape(own)[2])[:, None]
            # A search that is over chooses nothing, nor does a beam that no hypothesis lives in.
            live = group.open[:, None]
            group, beam = self.advance(group, own, process, numbers)
            groups.append(group)
            beams.append(beam)
            chosen.append(tf.where(live & (group.running > RULED_OUT), group.last, -1))
        joined = {name: interleaved([getattr(group, name) for group in groups]) for name in (*BY_SEARCH, "last")}
        joined["last"] = tf.reshape(joined["last"], [-1])
        joined["fault"] = tf.reduce_max([group.fault for group in groups])
        beam = interleaved(beams)
        parents = beam + tf.range(tf.shape(beam)[0])[:, None] * self.beams
        state = state._replace(**joined, used=state.used + 1, generated=state.generated + 1)
        return state, tf.reshape(parents, [-1])

    def advance(self, state: Beams, scores: Any, process: Callable, numbers: dict[str, Any]) -> tuple[Beams, Any]:
        """Continues one search a prompt, given log-probabilities [prompts, beams, vocab].

        Returns:
            The state, and which beams the new ones continue, [prompts, beams].
        """
        beams, vocab, used = self.beams, tf.shape(scores)[2], state.used
        tokens, real = (tf.reshape(item[..., :used], (-1, used)) for item in (state.tokens, state.real))
        context = Context(tokens, real, state.generated)
        processed = process(tf.reshape(scores, (-1, vocab)), context, numbers)
        whole = (-1, beams * vocab)
        sums = tf.reshape(tf.reshape(processed, (-1, beams, vocab)) + state.running[:, :, None], whole)
        over = state.finished_scores[:, 0] > RULED_OUT
        broken = fault(tf.reshape(scores, whole), sums, state.open, over)
        # Enough candidates that `beams` of them go on even if all others end.
        count = beams * max(2, 1 + len(self.options.eos_token_ids))
        scores, flat = tf.math.top_k(sums, k=count)
        beam, token = flat // vocab, flat % vocab

        tokens = put(tf.gather(state.tokens, beam, axis=1, batch_dims=1), token, used)
        state = state._replace(fault=broken, generated=state.generated + 1)
        stops = is_one_of(token, numbers["eos_token_id"])
        ends = stops | (state.generated >= state.stop_at)
        state = self.finish(state, tokens, scores, ends, numbers["length_penalty"])

        running, best = tf.math.top_k(tf.where(stops, RULED_OUT, scores), k=beams)
        alive = running > RULED_OUT
        best = tf.where(alive, best, best[:, :1])
        tokens, last, beam = (tf.gather(item, best, axis=1, batch_dims=1) for item in (tokens, token, beam))
        # Where none runs, the text ends before the token, which nothing has allowed.
        real = put(state.real, alive[:, :1], used)
        state = state._replace(tokens=tokens, real=real, running=running, last=last)
        going_on = state.open & alive[:, 0] & self.may_improve(state, numbers["length_penalty"])
        return state._replace(open=going_on), beam

    def finish(self, state: Beams, tokens: Any, scores: Any, ends: Any, length_penalty: Any) -> Beams:
        """After candidates that end, and are among the best `beams`, have come into the finished set."""
        length = tf.cast(state.generated, tf.float32)
        among_best = tf.range(tf.shape(scores)[1]) < self.beams
        allowed = ends & among_best & state.open[:, None] & (scores > RULED_OUT)
        if self.options.early_stopping is True:
            allowed &= tf.reduce_min(state.finished_scores, axis=1, keepdims=True) == RULED_OUT
        entering = tf.where(allowed, scores / length**length_penalty, RULED_OUT)
        lengths = tf.where(allowed, state.generated, 0)
        finished_scores, best = tf.math.top_k(tf.concat([state.finished_scores, entering], axis=1), k=self.beams)
        finished_tokens, finished_lengths = (
            tf.gather(tf.concat([old, new], axis=1), best, axis=1, batch_dims=1)
            for old, new in ((state.finished_tokens, tokens), (state.finished_lengths, lengths))
        )
        return state._replace(
            finished_tokens=finished_tokens, finished_scores=finished_scores, finished_lengths=finished_lengths
        )

    def may_improve(self, state: Beams, length_penalty: Any) -> Any:
        """[searches] whether the best running hypothesis may still beat the worst finished one."""
        length = tf.cast(state.generated, tf.float32)
        if self.options.early_stopping == "never":
            longest = tf.cast(state.stop_at, tf.float32)
            length = tf.where(length_penalty > 0, longest, length)
        best = state.running[:, 0] / length**length_penalty
        worst = tf.reduce_min(state.finished_scores, axis=1)
        if self.options.early_stopping is True:
            return worst == RULED_OUT
        return best > worst

    def is_finished(self, state: Beams) -> Any:
        return (state.generated >= state.stop_at) | (state.fault > 0) | ~tf.reduce_any(state.open)

    def results(self, state: Beams) -> tuple[list[list[int]], np.ndarray, None, np.ndarray]:
        """The best finished hypotheses of all groups of each prompt, as many as there are."""
        first = int(state.used - state.generated)
        scores, lengths, tokens = (
            np.reshape(item.numpy(), (-1, self.copies, *item.shape[2:]))
            for item in (state.finished_scores, state.finished_lengths, state.finished_tokens)
        )
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.options.num_return_sequences]
        scores, lengths = (np.take_along_axis(item, best, axis=1) for item in (scores, lengths))
        tokens = np.take_along_axis(tokens[:, :, first:], best[:, :, None], axis=1)
        exist = lengths > 0
        rows = zip(tokens[exist], lengths[exist], strict=True)
        return [row[:n].tolist() for row, n in rows], scores[exist], None, np.nonzero(exist)[0]


def counts(tokens: Any, vocab: Any) -> Any:
    """How often each token is among tokens [prompts, n]; -1 is none: float32 [prompts, vocab]."""
    places = places_of(tokens >= 0, tokens)
    shape = tf.cast(tf.stack([tf.shape(tokens)[0], vocab]), tf.int64)
    return tf.scatter_nd(places, tf.ones(tf.shape(places)[:1]), shape)


def interleaved(parts: list[Any]) -> Any:
    """The tensor of which the parts are x[0::n], x[1::n], ..."""
    stacked = tf.stack(parts, axis=1)
    return tf.reshape(stacked, tf.concat([[-1], tf.shape(stacked)[2:]], axis=0))
