"""RoFormerV2: RoFormer without biases, with norms that have no weights (Su et al., 2022)."""

from __future__ import annotations

from typing import Any

from tfloader import layers as tfl
from tfloader.errors import ConfigError
from tfloader.models.roformer import RoFormer


class RoFormerV2(RoFormer):
    """RoFormer without biases, with weightless RMS norms; its masked-language-model head is the tied embedding alone.

    RoFormer's options, less with_pool, with_nsp and layer_norm_cond, for which it has no weights.
    """

    heads = tuple(head for head in RoFormer.heads if head.part == "mlm")
    refuses = RoFormer.refuses | dict.fromkeys(("with_pool", "with_nsp", "layer_norm_cond"), "it has no weights")
    task_heads = {}
    vocabulary_axes = {"Embedding-Token/embeddings": 0}
    bert4keras_habits = {name: habit for name, habit in RoFormer.bert4keras_habits.items() if name != "mlm_norm_eps"}

    def __init__(self, config, **options):
        super().__init__(config, **options)
        if self.with_mlm and config.embedding_size not in (None, config.hidden_size):
            raise ConfigError(
                f"A {config.family!r} model with embedding_size {config.embedding_size} beside hidden_size "
                f"{config.hidden_size} has no output layer: the published code leaves it random. Load the encoder."
            )

    def dense(self, name: str, units: int, activation: Any = None, **arguments: Any) -> Any:
        return super().dense(name, units, activation, use_bias=False, **arguments)

    def norm(self, name: str, x: Any, rms: bool = True, epsilon: float | None = None) -> Any:
        return self.layer(name, tfl.PlainRMSNormalization, epsilon=epsilon or self.config.layer_norm_eps)(x)

    def after_embedding(self, x: Any) -> Any:
        return self.norm("Embedding-Norm", self.dropout("Embedding-Dropout", x))

    def attention(self, name: str, x: Any, bias: Any, memory: Any = None, **arguments: Any) -> Any:
        return super().attention(name, x, bias, memory, use_bias=False, **arguments)

    def feed_forward(self, name: str, x: Any, **arguments: Any) -> Any:
        return super().feed_forward(name, x, use_bias=False, **arguments)

    def language_model(self, x: Any) -> Any:
        return self.activate("MLM-Activation", self.token_embedding()(x, reverse=True), self.with_mlm)
