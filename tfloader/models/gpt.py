"""OpenAI GPT (Radford et al., 2018) and CDial-GPT (Wang et al., 2020), which is the same with speakers as segments."""

from __future__ import annotations

from typing import Any

from tfloader.models.bert import PostNorm
from tfloader.models.gpt2 import GPT2


class GPT(PostNorm):
    """BERT's blocks with a causal mask, no norm after the embedding, logits through the tied embedding.

    Inputs: Input-Token; Input-Segment where there is a table of segments, or with shared_segment_embeddings, when
    segments are ids of tokens (CDial-GPT: [CLS] at the start, then the speakers').

    Args:
        final_activation: None or "linear" for logits [batch, length, vocab], True or "softmax" for probabilities.
    """

    applications = ("lm",)
    bert4keras_defaults = {"lm": {"final_activation": "softmax"}}
    as_language_model = {"final_activation": None}
    bert4keras_habits = {
        **GPT2.bert4keras_habits,
        "layer_norm_eps": lambda _: 1e-12,
        "mask_zero_segments": lambda _: True,
    }

    def __init__(self, config, *, final_activation: bool | str | None = None, **options):
        super().__init__(config, **options)
        self.final_activation = final_activation

    after_embedding = GPT2.after_embedding  # pyright: ignore[reportAssignmentType]
    language_model = GPT2.language_model

    def head(self, x: Any) -> Any:
        return self.language_model(x)
