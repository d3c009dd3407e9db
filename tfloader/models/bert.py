"""BERT (Devlin et al., 2018), as encoder, as language model, and as UniLM (Dong et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfloader import layers as tfl
from tfloader.errors import ConfigError
from tfloader.layers.activations import activation
from tfloader.models.heads import FOR_TOKENS, Head, TaskHead, outputs_or, pooled
from tfloader.models.transformer import Transformer


class SingleStack(Transformer):
    """Embeddings of tokens, segments and positions, and post-norm blocks: what BERT and the GPTs share.

    Args:
        hierarchical_position: True (alpha 0.4) or alpha: n positions serve n^2.
        custom_position_ids: adds the input Input-Position.
        custom_attention_mask: adds the input Input-Mask (0 = hidden), which replaces "id is padding".
    """

    def __init__(
        self,
        config,
        *,
        hierarchical_position: bool | float | None = None,
        custom_position_ids: bool = False,
        custom_attention_mask: bool = False,
        **options,
    ):
        if not config.shared_segment_embeddings:
            config = config.replace(mask_zero_segments=False)  # concerns only these
        super().__init__(config, **options)
        self.hierarchical_position = 0.4 if hierarchical_position is True else hierarchical_position or None
        self.custom_position_ids = custom_position_ids
        self.custom_attention_mask = custom_attention_mask

    @property
    def left_out(self) -> set[str]:
        has_table = self.config.type_vocab_size and not self.config.shared_segment_embeddings
        return super().left_out | (set() if has_table else {"segments"})

    def beyond_the_weights(self) -> list[str]:
        return super().beyond_the_weights() + ["hierarchical_position"] * bool(self.hierarchical_position)

    def no_generation_with(self) -> list[str]:
        return super().no_generation_with() + ["shared_segment_embeddings"] * self.config.shared_segment_embeddings

    def make_inputs(self) -> dict[str, Any]:
        names = ["Input-Token"]
        if self.config.type_vocab_size or self.config.shared_segment_embeddings:
            names.append("Input-Segment")
        if self.custom_position_ids:
            names.append("Input-Position")
        if self.custom_attention_mask:
            names.append("Input-Mask")
        return {name: self.input(name) for name in names}

    def attention_bias(self, inputs: dict[str, Any]) -> Any:
        bias = super().attention_bias(inputs)
        if self.config.mask_zero_segments:
            padding = self.layer("Segment-Mask", tfl.AttentionMask, pad_token_id=self.config.pad_token_id)
            bias = self.add("Attention-Segment-Mask", bias, padding(inputs["Input-Segment"]))
        return bias

    def embed(self, inputs: dict[str, Any]) -> Any:
        x = self.token_embedding()(inputs["Input-Token"])
        if "Input-Segment" in inputs:
            x = self.add("Embedding-Token-Segment", x, self.segment_embedding()(inputs["Input-Segment"]))
        x = self.embed_positions(x, inputs.get("Input-Position"))
        x = self.after_embedding(x)
        if self.config.embedding_size not in (None, self.config.hidden_size):
            x = self.dense("Embedding-Mapping", self.config.hidden_size)(x)
        return x

    def after_embedding(self, x: Any) -> Any:
        return self.dropout("Embedding-Dropout", self.norm("Embedding-Norm", x))

    def segment_embedding(self) -> Any:
        if self.config.shared_segment_embeddings:
            return self.token_embedding()
        return self.layer(
            "Embedding-Segment",
            tfl.SegmentEmbedding,
            input_dim=self.config.type_vocab_size,
            output_dim=self.config.embedding_size or self.config.hidden_size,
            embeddings_initializer=self.initializer,
        )

    @property
    def position_rows(self) -> Any:
        """Rows of the position table."""
        return self.config.max_position_embeddings

    def embed_positions(self, x: Any, position_ids: Any) -> Any:
        most = self.config.max_position_embeddings
        if not self.hierarchical_position and position_ids is None and most and (self.sequence_length or 0) > most:
            more = f", or hierarchical_position=True, with which they serve {most**2}"
            raise ConfigError(
                f"sequence_length={self.sequence_length}, but this model has {most} positions. Give at most that"
                f"{'' if 'hierarchical_position' in self.refuses else more}."
            )
        layer = self.layer(
            "Embedding-Position",
            tfl.PositionEmbedding,
            input_dim=self.position_rows,
            hierarchical=self.hierarchical_position,
            embeddings_initializer=self.initializer,
        )
        return layer(x, position_ids=position_ids)

    def block(self, x: Any, index: int) -> Any:
        epsilon = self.config.block_norm_eps
        attention = f"{self.block_name(index)}-MultiHeadSelfAttention"
        x = self.residual(attention, x, self.attention(attention, x, self.bias))
        x = self.norm(f"{attention}-Norm", x, epsilon=epsilon)
        feed_forward = f"{self.block_name(index)}-FeedForward"
        x = self.residual(feed_forward, x, self.feed_forward(feed_forward, x))
        return self.norm(f"{feed_forward}-Norm", x, epsilon=epsilon)

    def block_name(self, index: int) -> str:
        """What the names of a block's layers begin with; blocks of one name have the same layers."""
        return f"Transformer-{index}"


class BERT(SingleStack):
    """Inputs Input-Token and Input-Segment.

    Args:
        with_pool: the [CLS] vector through a dense layer: True for tanh, or an activation's name.
        with_nsp: next-sentence probabilities in place of the pooled vector: True for softmax, or "linear". A head that
            reads the pooled vector is in its place, too.
        with_mlm: masked-language-model output: True for softmax, "linear" for logits, which a language model always
            gives at least.
    """

    heads = (
        Head("pooler", "with_pool", True, False),
        Head("nsp", "with_nsp", "linear", False),
        Head("mlm", "with_mlm", "linear", False),
    )
    task_heads: Mapping[str, TaskHead] = {
        "classification": TaskHead(pooled),
        **FOR_TOKENS,
        "multiple_choice": TaskHead(pooled, units=1),
    }
    vocabulary_axes = {"Embedding-Token/embeddings": 0, "MLM-Bias/bias": 0}
    bert4keras_habits = {
        "hidden_act": lambda act: "gelu" if act == "gelu_tanh" else act,
        "mask_zero_segments": lambda _: True,
    }
    bert4keras_defaults = {"lm": {"with_mlm": True}, "unilm": {"with_mlm": True}}
    aliases = {"roberta": {}}  # the Chinese RoBERTas are BERTs, published as such
    as_language_model = {"with_pool": False, "with_nsp": False, "with_mlm": "linear"}
    ends_with_sep = True  # the configs of Chinese BERTs name RoBERTa's id, which is none of their own

    def __init__(
        self,
        config,
        *,
        with_pool: bool | str = False,
        with_nsp: bool | str = False,
        with_mlm: bool | str = False,
        **options,
    ):
        super().__init__(config, **options)
        self.with_nsp = with_nsp
        self.with_pool = with_pool or bool(with_nsp)
        self.with_mlm = with_mlm or (config.application != "encoder" and "linear")
        if config.application == "unilm" and not (config.type_vocab_size or config.shared_segment_embeddings):
            raise ConfigError("application='unilm' needs segments, but type_vocab_size is 0.")

    def head(self, x: Any) -> Any:
        outputs = []
        reads_pooled = self.config.head and self.task_heads[self.config.head].reads is pooled
        if self.with_nsp or (self.with_pool and not reads_pooled):
            vector = self.pooled(x)
            if self.with_nsp:
                kind = "softmax" if self.with_nsp is True else self.with_nsp
                vector = self.dense("NSP-Proba", 2, activation(kind))(vector)
            outputs.append(vector)
        if self.with_mlm:
            outputs.append(self.language_model(x))
        if self.config.head:
            outputs.append(self.task_head(x))
        return outputs_or(x, outputs)

    def pooled(self, x: Any) -> Any:
        """The first token's vector through the pooler."""
        kind = "tanh" if self.with_pool in (True, False) else self.with_pool
        return self.dense("Pooler-Dense", self.config.hidden_size, activation(kind))(
            self.layer("Pooler", tfl.FirstToken)(x)
        )

    def language_model(self, x: Any) -> Any:
        size = self.config.embedding_size or self.config.hidden_size
        x = self.dense("MLM-Dense", size, activation(self.config.hidden_act))(x)
        x = self.norm("MLM-Norm", x, epsilon=self.config.mlm_norm_eps)
        x = self.token_embedding()(x, reverse=True)
        x = self.layer("MLM-Bias", tfl.Bias)(x)
        return self.activate("MLM-Activation", x, self.with_mlm)
