"""The maximum-entropy Markov model (McCallum et al., 2000), in both directions at once, as the last layer of a tagger.

Su, kexue.fm/archives/7213 (2020): a CRF's quality without its sum over paths, since each step is normalised by itself.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfloader.border import public
from tfloader.errors import ConfigError
from tfloader.layers import chain
from tfloader.layers.tagging import TaggingLayer
from tfloader.layers.viterbi import viterbi_decode
from tfloader.losses.common import as_float32


@keras.saving.register_keras_serializable("tfloader")
class MaximumEntropyMarkovModel(TaggingLayer):
    """Scores each tag by its own score and by the transition from its neighbour: forwards and backwards.

    Forwards, p(tag | tag before) = softmax((score + transitions[tag before]) / 2), and softmax(score) at the first
    position; backwards the same from the tag after, with the transitions transposed. The model's log-likelihood of a
    path is the mean of both directions. The loss is that of bert4keras: its negative, as a mean over the real positions
    of the batch; `decode` finds the path where it is highest.

    See `TaggingLayer` for masks, labels and `lr_multiplier`.

    Args:
        hidden_dim: None for a full matrix of transitions, or the rank of one made of two factors [tags, hidden_dim]
            (for very many tags). `lr_multiplier` holds for each factor.
    """

    @public
    def __init__(self, lr_multiplier: float = 1, hidden_dim: int | None = None, **kwargs: Any) -> None:
        super().__init__(lr_multiplier, **kwargs)
        if hidden_dim is not None and hidden_dim < 1:
            raise ConfigError(f"hidden_dim is {hidden_dim!r}; it must be a positive integer or None.")
        self.hidden_dim = hidden_dim

    def build(self, emissions_shape: Any) -> None:
        super().build(emissions_shape)
        if self.hidden_dim is None:
            self.stored = [self.add_multiplied_weight("transitions", (self.num_tags, self.num_tags))]
        else:
            shape = (self.num_tags, self.hidden_dim)
            self.stored = [self.add_multiplied_weight(name, shape) for name in ("left_factor", "right_factor")]

    @property
    def transitions(self) -> Any:
        """[tags, tags]: the score of tag i followed by tag j, `lr_multiplier` applied."""
        return self.transitions_from(ops.arange(self.num_tags))

    trans = transitions  # bert4keras' name

    def transitions_from(self, tags: Any, backwards: bool = False) -> Any:
        """Rows of the transitions, or of the transposed ones, for tags [...]: [..., tags]."""
        weights = [self.multiplied(weight) for weight in self.stored]
        if self.hidden_dim is None:
            return ops.take(ops.transpose(weights[0]) if backwards else weights[0], tags, axis=0)
        here, there = reversed(weights) if backwards else weights
        return ops.matmul(ops.take(here, tags, axis=0), ops.transpose(there))

    def conditionals(self, emissions: Any, tags: Any, lengths: Any) -> Any:
        """log p of every tag given the tag before, and given the tag after, [batch, length, tags] each; all packed."""
        position = ops.arange(ops.shape(tags)[1])
        before, after = ops.roll(tags, 1, axis=1), ops.roll(tags, -1, axis=1)
        ends = position == 0, position == lengths[:, None] - 1
        for neighbours, end, backwards in zip((before, after), ends, (False, True), strict=True):
            rows = ops.cast(self.transitions_from(neighbours, backwards), emissions.dtype)
            yield ops.log_softmax(ops.where(end[..., None], emissions, (emissions + rows) / 2))

    def sequence_losses(self, labels: Any, emissions: Any) -> Any:
        """[batch]: -log p(labels) of each sequence / mean length, so that their mean is that over real positions."""
        tags, packing, conditionals, wrong = self._teacher_forced(labels, emissions)
        likelihoods = [ops.take_along_axis(table, tags[:, :, None], axis=2)[:, :, 0] for table in conditionals]
        losses = ops.sum(ops.where(packing.present, -(likelihoods[0] + likelihoods[1]) / 2, 0.0), axis=1)
        mean_length = ops.mean(ops.cast(packing.lengths, losses.dtype))
        return ops.add(losses / ops.maximum(mean_length, 1e-7), wrong)

    def greedy_hits(self, labels: Any, emissions: Any) -> Any:
        """Mean over the directions of whether each tag is the likeliest beside its true neighbour."""
        tags, packing, conditionals, wrong = self._teacher_forced(labels, emissions)
        hits = [ops.equal(ops.cast(ops.argmax(table, axis=-1), "int32"), tags) for table in conditionals]
        return packing.unpack((ops.cast(hits[0], "float32") + ops.cast(hits[1], "float32")) / 2) + wrong[:, None]

    def tag_probabilities(self, tags: Any, emissions: Any) -> Any:
        """[batch, length]: the geometric mean of a tag's probability given the tag before and given the tag after."""
        tags, packing, conditionals, _ = self._teacher_forced(tags, emissions)
        before, after = (ops.take_along_axis(table, tags[:, :, None], axis=2)[:, :, 0] for table in conditionals)
        return packing.unpack(ops.exp((before + after) / 2))

    def _teacher_forced(self, labels, emissions):
        tags, wrong = self.tag_ids(labels, emissions)
        packing = chain.Packing(chain.real_positions(emissions))
        emissions, tags = packing.pack(as_float32(emissions)), packing.pack(tags)
        return tags, packing, list(self.conditionals(emissions, tags, packing.lengths)), wrong

    def best_paths(self, emissions: Any) -> Any:
        packing = chain.Packing(chain.real_positions(emissions))
        emissions, transitions = self.as_chain(packing.pack(as_float32(emissions)), packing.lengths)
        return packing.unpack(viterbi_decode(emissions, transitions, packing.present)[0])

    def as_chain(self, emissions: Any, lengths: Any) -> Any:
        """Emissions and transitions whose sum along any path is the model's log-likelihood of it; all packed.

        The normaliser of a step depends on the neighbour's tag alone, so it can be added to the neighbour's emission.
        """
        transitions = ops.cast(self.transitions, emissions.dtype)
        position = ops.arange(ops.shape(emissions)[1])
        first = ops.expand_dims(position == 0, 1)
        last = ops.expand_dims(position == ops.expand_dims(lengths, 1) - 1, 2)
        steps = ops.transpose(emissions, (1, 0, 2))

        def normalisers(scores):
            def step(_, emission):
                return ops.logsumexp((ops.expand_dims(emission, 1) + scores) / 2, axis=-1)

            # One position at a time: all pairs of tags at all positions at once would be large.
            return ops.transpose(chain.scan_to_decode(step, ops.zeros_like(emissions[:, 0]), steps), (1, 0, 2))

        from_before, from_after = normalisers(transitions), normalisers(ops.transpose(transitions))
        alone = ops.log_softmax(emissions)
        # Each from its neighbour. Not by ops.roll, which LiteRT does not have.
        from_before = ops.concatenate([from_before[:, 1:], from_before[:, :1]], axis=1)
        from_after = ops.concatenate([from_after[:, -1:], from_after[:, :-1]], axis=1)
        forwards = ops.where(first, alone, emissions / 2) - ops.where(last, 0.0, from_before)
        backwards = ops.where(last, alone, emissions / 2) - ops.where(first, 0.0, from_after)
        return (forwards + backwards) / 2, transitions / 2

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden_dim": self.hidden_dim}
