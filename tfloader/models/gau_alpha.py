"""GAU-alpha: RoFormerV2 with gated attention units for blocks (Su et al., 2022, after Hua et al., 2022)."""

from __future__ import annotations

from typing import Any

from tfloader import layers as tfl
from tfloader.layers.activations import activation
from tfloader.models.roformer_v2 import RoFormerV2


class GAUAlpha(RoFormerV2):
    """One gated attention unit a block, which is attention and feed-forward in one; an encoder.

    `intermediate_size` is the unit's width, `attention_head_size` that of its queries and keys.
    """

    applications = ("encoder",)
    refuses = RoFormerV2.refuses | dict.fromkeys(
        ("custom_position_ids", "custom_attention_mask", "residual_attention_scores"),
        "the gated attention unit has no place for it",
    )

    def attention_bias(self, inputs: dict[str, Any]) -> None:
        """None: the unit counts the keys that it sees, and takes Keras' mask."""

    def embed_positions(self, x: Any, position_ids: Any) -> Any:
        return x  # the unit rotates its queries and keys itself

    def block(self, x: Any, index: int) -> Any:
        name = f"Transformer-{index}-GatedAttentionUnit"
        unit = self.layer(
            name,
            tfl.GatedAttentionUnit,
            units=self.config.intermediate_size,
            key_size=self.config.head_size,
            activation=activation(self.config.hidden_act),
            use_bias=False,
            rotary=True,
            normalization="softmax_plus",
            attention_dropout=self.config.attention_probs_dropout_prob,
            kernel_initializer=self.initializer,
        )
        return self.norm(f"{name}-Norm", self.residual(name, x, unit(x)))
