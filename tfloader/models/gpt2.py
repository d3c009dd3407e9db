"""GPT-2 (Radford et al., 2019)."""

from __future__ import annotations

from typing import Any

from tfloader import layers as tfl
from tfloader.models.transformer import Transformer


class GPT2(Transformer):
    """Pre-norm blocks with a causal mask, final norm, logits through the tied embedding; input Input-Token.

    Args:
        final_activation: None or "linear" for logits [batch, length, vocab], True or "softmax" for probabilities.
        custom_position_ids: adds the input Input-Position.
        custom_attention_mask: adds the input Input-Mask (0 = hidden), for batches padded on the left.
    """

    applications = ("lm",)
    bert4keras_defaults = {"lm": {"final_activation": "softmax"}}
    as_language_model = {"final_activation": None}
    # bert4keras took id 0 for padding, and gelu for the exact one.
    bert4keras_habits = {
        "hidden_act": lambda act: "gelu" if act == "gelu_tanh" else act,
        "pad_token_id": lambda _: 0,
    }

    def __init__(
        self,
        config,
        *,
        final_activation: bool | str | None = None,
        custom_position_ids: bool = False,
        custom_attention_mask: bool = False,
        **options,
    ):
        super().__init__(config, **options)
        self.final_activation = final_activation
        self.custom_position_ids = custom_position_ids
        self.custom_attention_mask = custom_attention_mask

    def make_inputs(self) -> dict[str, Any]:
        names = ["Input-Token"]
        if self.custom_position_ids:
            names.append("Input-Position")
        if self.custom_attention_mask:
            names.append("Input-Mask")
        return {name: self.input(name) for name in names}

    def embed(self, inputs: dict[str, Any]) -> Any:
        positions = self.layer(
            "Embedding-Position",
            tfl.PositionEmbedding,
            input_dim=self.config.max_position_embeddings,
            embeddings_initializer=self.initializer,
        )
        x = self.token_embedding()(inputs["Input-Token"])
        return self.after_embedding(positions(x, position_ids=inputs.get("Input-Position")))

    def after_embedding(self, x: Any) -> Any:
        rate = self.config.embedding_dropout_prob
        return self.dropout("Embedding-Dropout", x, self.config.hidden_dropout_prob if rate is None else rate)

    def block(self, x: Any, index: int) -> Any:
        attention = f"Transformer-{index}-MultiHeadSelfAttention"
        y = self.attention(attention, self.norm(f"{attention}-Norm", x), self.bias)
        x = self.add(f"{attention}-Add", x, self.dropout(f"{attention}-Dropout", y))
        feed_forward = f"Transformer-{index}-FeedForward"
        y = self.feed_forward(feed_forward, self.norm(f"{feed_forward}-Norm", x))
        return self.add(f"{feed_forward}-Add", x, self.dropout(f"{feed_forward}-Dropout", y))

    def head(self, x: Any) -> Any:
        return self.language_model(self.norm("Output-Norm", x))

    def language_model(self, x: Any) -> Any:
        return self.activate("LM-Activation", self.token_embedding()(x, reverse=True), self.final_activation)
