"""ELECTRA (Clark et al., 2020): a generator fills gaps, and a discriminator finds which tokens it filled."""

from __future__ import annotations

from typing import Any

from tfloader.layers.activations import activation
from tfloader.models.bert import BERT
from tfloader.models.heads import FOR_TOKENS, Head, TaskHead, first_through_dense, outputs_or


class ELECTRA(BERT):
    """The discriminator: BERT's blocks without a pooler; inputs Input-Token and Input-Segment.

    Args:
        with_discriminator: for each token, whether it was replaced, [batch, length, 1]: True for the probability,
            "linear" for its logit.
    """

    heads = (Head("discriminator", "with_discriminator", "linear", False),)
    # Always with the exact gelu, whatever the blocks have.
    task_heads = {
        **FOR_TOKENS,
        "classification": TaskHead(first_through_dense("Classifier-Dense", "gelu"), "Classifier-Output"),
        "multiple_choice": TaskHead(first_through_dense("Choice-Dense", "gelu", before=False), units=1),
    }
    refuses = dict.fromkeys(
        ("with_pool", "with_nsp", "with_mlm"),
        "ELECTRA's discriminator has no such head. It has with_discriminator; with_mlm is the generator's "
        "(model='electra_generator').",
    )
    applications = ("encoder",)

    def __init__(self, config, *, with_discriminator: bool | str = False, **options):
        super().__init__(config, **options)
        self.with_discriminator = with_discriminator

    def head(self, x: Any) -> Any:
        outputs = []
        if self.with_discriminator:
            kind = "sigmoid" if self.with_discriminator is True else self.with_discriminator
            y = self.dense("Discriminator-Dense", self.config.hidden_size, activation(self.config.hidden_act))(x)
            outputs.append(self.dense("Discriminator-Prediction", 1, activation(kind))(y))
        if self.config.head:
            outputs.append(self.task_head(x))
        return outputs_or(x, outputs)


class ElectraGenerator(BERT):
    """The generator, a smaller model with the discriminator's embeddings: BERT's blocks and its MLM head."""

    heads = tuple(head for head in BERT.heads if head.part == "mlm")
    task_heads = {}
    refuses = dict.fromkeys(("with_pool", "with_nsp"), "ELECTRA's generator has no such head. It has with_mlm.")
