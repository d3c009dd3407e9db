"""GPT-2 (Radford et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfloader.models.bert import SingleStack
from tfloader.models.heads import FOR_TOKENS, TaskHead, last_token


class GPT2(SingleStack):
    """Pre-norm blocks with a causal mask, final norm, logits through the tied embedding; input Input-Token.

    Args:
        final_activation: None or "linear" for logits [batch, length, vocab], True or "softmax" for probabilities.
        custom_position_ids, custom_attention_mask: as for BERT; the mask serves batches padded on the left.
    """

    applications = ("lm",)
    task_heads: Mapping[str, TaskHead] = {
        "classification": TaskHead(last_token, "Classifier-Score", use_bias=False),
        **FOR_TOKENS,
    }
    refuses = {"hierarchical_position": "not implemented for this family"}
    bert4keras_defaults = {"lm": {"final_activation": "softmax"}}
    as_language_model = {"final_activation": None}
    # bert4keras took id 0 for padding, and gelu for the exact one.
    bert4keras_habits = {"hidden_act": lambda act: "gelu" if act == "gelu_tanh" else act, "pad_token_id": lambda _: 0}

    def __init__(self, config, *, final_activation: bool | str | None = None, **options):
        super().__init__(config, **options)
        self.final_activation = final_activation

    def after_embedding(self, x: Any) -> Any:
        return self.dropout("Embedding-Dropout", x, self.config.embedding_dropout_prob)

    def block(self, x: Any, index: int) -> Any:
        attention = f"Transformer-{index}-MultiHeadSelfAttention"
        x = self.residual(attention, x, self.attention(attention, self.norm(f"{attention}-Norm", x), self.bias))
        feed_forward = f"Transformer-{index}-FeedForward"
        return self.residual(feed_forward, x, self.feed_forward(feed_forward, self.norm(f"{feed_forward}-Norm", x)))

    def head(self, x: Any) -> Any:
        return self.scored(self.norm("Output-Norm", x))

    def scored(self, x: Any) -> Any:
        return self.task_head(x) if self.config.head else self.language_model(x)

    def language_model(self, x: Any) -> Any:
        return self.activate("LM-Activation", self.token_embedding()(x, reverse=True), self.final_activation)
