"""RoFormer: BERT with rotary positions (Su et al., 2021)."""

from __future__ import annotations

from typing import Any

from tfloader import layers as tfl
from tfloader.models.bert import BERT
from tfloader.models.heads import FOR_TOKENS, TaskHead, first_through_dense, last_position


class RoFormer(BERT):
    """BERT whose queries and keys are rotated by their positions (RoPE), in place of a position table; BERT's options.

    Nothing limits the length of a text but the training; generation stops at `max_position_embeddings`.
    """

    bert4keras_habits = {**BERT.bert4keras_habits, "layer_norm_eps": lambda _: 1e-7, "mlm_norm_eps": lambda _: 1e-12}
    attention_class = tfl.RotaryAttention
    task_heads = {
        **FOR_TOKENS,
        "classification": TaskHead(first_through_dense("Classifier-Dense"), "Classifier-Output"),
        "multiple_choice": TaskHead(last_position, units=1),  # padding or not, as transformers has it
    }
    refuses = {"hierarchical_position": "it has no position table"}

    def embed_positions(self, x: Any, position_ids: Any) -> Any:
        layer = self.layer("Embedding-Rotary-Position", tfl.SinusoidalPosition, size=self.config.head_size)
        self.positions = layer(x, position_ids=position_ids)
        return x
