"""NEZHA (Wei et al., 2019): BERT with relative positions."""

from __future__ import annotations

from typing import Any

from tfloader import layers as tfl
from tfloader.models.bert import BERT


class NEZHA(BERT):
    """BERT without a table of positions: the attention knows distances, clipped at relative_attention_max_distance.

    Options and inputs are those of BERT, less custom_position_ids and hierarchical_position.
    """

    attention_class = tfl.RelativeAttention
    refuses = dict.fromkeys(("custom_position_ids", "hierarchical_position"), "NEZHA knows distances, not positions")
    bert4keras_habits = {
        **BERT.bert4keras_habits,
        "layer_norm_eps": lambda _: 1e-7,
        "mlm_norm_eps": lambda _: 1e-12,
        "relative_attention_max_distance": lambda _: 64,
    }

    def embed_positions(self, x: Any, position_ids: Any) -> Any:
        return x

    def attention(self, name: str, x: Any, bias: Any, memory: Any = None, **arguments: Any) -> Any:
        return super().attention(
            name, x, bias, memory, max_distance=self.config.relative_attention_max_distance, **arguments
        )
