"""ALBERT (Lan et al., 2019): BERT with small embeddings, whose layers share their weights."""

from __future__ import annotations

from typing import Any

from tfloader.models.bert import BERT
from tfloader.naming.base import counts


class ALBERT(BERT):
    """BERT whose layers apply the same blocks, in `num_hidden_groups` groups; its heads and inputs are BERT's.

    A shared block's layers have one name ("Transformer-FeedForward") and are applied once a layer, so they have no
    `.output` of their own: hidden states of single layers are in `transformer.hidden_states`. with_nsp gives the
    sentence-order prediction.

    Args:
        unshared: every layer gets weights of its own that start from the shared ones (bert4keras' albert_unshared);
            what is saved then has as many groups as layers.
    """

    bert4keras_habits = {**BERT.bert4keras_habits, "block_norm_eps": lambda _: 1e-7}
    # bert4keras had BERT's epsilon here.
    aliases = {"albert_unshared": {"unshared": True, "block_norm_eps": None}}

    def __init__(self, config, *, unshared: bool = False, **options):
        if unshared:
            config = config.replace(num_hidden_groups=config.num_hidden_layers or 1)
        super().__init__(config, **options)
        self.block_names = [names["block"] for names in counts(config)["group"]]

    def block(self, x: Any, index: int) -> Any:
        first = index * self.config.inner_group_num
        for inner in range(first, first + self.config.inner_group_num):
            x = super().block(x, inner)
        return x

    def block_name(self, index: int) -> str:
        return self.block_names[index]
