"""RoBERTa (Liu et al., 2019): BERT that counts positions of real tokens only, and has one kind of segment."""

from __future__ import annotations

from typing import Any

from tfloader import layers as tfl
from tfloader.errors import ConfigError
from tfloader.models.bert import BERT
from tfloader.models.heads import TaskHead, first_through_dense


class RoBERTa(BERT):
    """BERT with one input, Input-Token: the only segment is added to all tokens, padding has a position of its own.

    BERT's options, less hierarchical_position and shared_segment_embeddings. Positions that you give yourself
    (custom_position_ids) count from 0; the table's rows begin with pad_token_id + 1 others.
    """

    task_heads = {
        **BERT.task_heads,
        "classification": TaskHead(first_through_dense("Classifier-Dense", "tanh"), "Classifier-Output"),
    }
    applications = ("encoder", "lm")
    fixed_tokens = ("pad_token_id",)  # positions are counted from it on
    refuses = dict.fromkeys(("hierarchical_position", "shared_segment_embeddings"), "not possible for RoBERTa")

    def __init__(self, config, **options):
        if config.pad_token_id is None:
            raise ConfigError("RoBERTa counts its positions from pad_token_id on: it cannot be None.")
        super().__init__(config, **options)

    @property
    def position_rows(self) -> int:
        return super().position_rows + (self.config.pad_token_id or 0) + 1

    def make_inputs(self) -> dict[str, Any]:
        inputs = super().make_inputs()
        if self.config.type_vocab_size == 1:
            del inputs["Input-Segment"]
        return inputs

    def embed(self, inputs: dict[str, Any]) -> Any:
        tokens, given = inputs["Input-Token"], inputs.get("Input-Position")
        rows = self.layer("Position-Rows", tfl.PositionRows, pad_token_id=self.config.pad_token_id)
        inputs = {**inputs, "Input-Position": rows(tokens, position_ids=given)}
        if self.config.type_vocab_size == 1:
            inputs["Input-Segment"] = self.layer("Segment-Zeros", tfl.Zeros)(tokens)
        return super().embed(inputs)
