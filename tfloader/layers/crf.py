"""The linear-chain conditional random field (Lafferty et al., 2001) as the last layer of a tagger."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfloader.layers import chain
from tfloader.layers.tagging import TaggingLayer
from tfloader.layers.viterbi import viterbi_decode
from tfloader.losses.common import as_float32


@keras.saving.register_keras_serializable("tfloader")
class ConditionalRandomField(TaggingLayer):
    """Scores a sequence of tags by the sum of its tags' own scores and of its transitions.

        logits = keras.layers.Dense(num_tags)(features)
        crf = ConditionalRandomField(lr_multiplier=100)
        model = keras.Model(inputs, crf(logits))
        model.compile(optimizer, loss=crf.sparse_loss, metrics=[crf.viterbi_accuracy])
        tags = crf.decode(model.predict(x))
        tagger = keras.Model(inputs, crf.decode(model.output))

    See `TaggingLayer` for masks, labels and `lr_multiplier`.
    """

    def build(self, emissions_shape: Any) -> None:
        super().build(emissions_shape)
        self.stored_transitions = self.add_multiplied_weight("transitions", (self.num_tags, self.num_tags))

    @property
    def transitions(self) -> Any:
        """[tags, tags]: the score of tag i followed by tag j, `lr_multiplier` applied."""
        return self.multiplied(self.stored_transitions)

    trans = transitions  # bert4keras' name

    def sequence_losses(self, labels: Any, emissions: Any) -> Any:
        """[batch]: -log p(labels) of each sequence."""
        tags, wrong = self.tag_ids(labels, emissions)
        packing = chain.Packing(chain.real_positions(emissions))
        emissions = packing.pack(as_float32(emissions))
        transitions = ops.cast(self.transitions, emissions.dtype)
        losses = chain.negative_log_likelihood(emissions, transitions, packing.pack(tags), packing.lengths)
        return ops.add(losses, wrong)

    def greedy_hits(self, labels: Any, emissions: Any) -> Any:
        return self.hits(ops.cast(ops.argmax(emissions, axis=-1), "int32"), labels, emissions)

    def best_paths(self, emissions: Any) -> Any:
        return viterbi_decode(emissions, self.transitions)[0]
