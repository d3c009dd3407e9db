"""OpenAI GPT (Radford et al., 2018) and CDial-GPT (Wang et al., 2020), which is the same with speakers as segments."""

from __future__ import annotations

from typing import Any

from tfloader.models.bert import SingleStack
from tfloader.models.gpt2 import GPT2


class GPT(GPT2):
    """GPT-2 with BERT's blocks, post-norm, and no norm at the end; its options and hierarchical_position.

    Inputs: Input-Token; Input-Segment where there is a table of segments, or with shared_segment_embeddings, when
    segments are ids of tokens (CDial-GPT: [CLS] at the start, then the speakers').
    """

    refuses = {}
    bert4keras_habits = {
        **GPT2.bert4keras_habits,
        "layer_norm_eps": lambda _: 1e-12,
        "mask_zero_segments": lambda _: True,
    }
    task_heads = {"classification": GPT2.task_heads["classification"]}
    block = SingleStack.block

    def head(self, x: Any) -> Any:
        return self.scored(x)
