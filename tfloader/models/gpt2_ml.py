"""GPT2_ML, the Chinese 1.5B model (imcaspar/gpt2-ml, 2019): GROVER's blocks (Zellers et al., 2019)."""

from __future__ import annotations

from typing import Any

from tfloader.models.gpt2 import GPT2


class GPT2_ML(GPT2):  # noqa: N801 (the name users know)
    """GPT-2 with a norm after the embedding, none before attention, two around the feed-forward, none at the end."""

    task_heads = {}
    bert4keras_habits = {"pad_token_id": lambda _: 0}

    def after_embedding(self, x: Any) -> Any:
        return super().after_embedding(self.norm("Embedding-Norm", x))

    def block(self, x: Any, index: int) -> Any:
        attention = f"Transformer-{index}-MultiHeadSelfAttention"
        x = self.residual(attention, x, self.attention(attention, x, self.bias))
        feed_forward = f"Transformer-{index}-FeedForward"
        y = self.feed_forward(feed_forward, self.norm(f"{feed_forward}-Norm-0", x))
        return self.norm(f"{feed_forward}-Norm-1", self.residual(feed_forward, x, y))

    def head(self, x: Any) -> Any:
        return self.language_model(x)
