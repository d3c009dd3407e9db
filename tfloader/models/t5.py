"""T5 1.0, T5 1.1, FLAN-T5 and mT5 (Raffel et al., 2020; Xue et al., 2021)."""

from __future__ import annotations

from typing import Any

from tfloader import layers as tfl
from tfloader.errors import ConfigError
from tfloader.models.heads import Head
from tfloader.models.transformer import Transformer

PARTS = ("both", "encoder", "decoder")


class T5(Transformer):
    """Pre-norm encoder and decoder without biases, with relative positions and unscaled scores.

    Inputs: Encoder-Input-Token, Decoder-Input-Token. The decoder alone takes Input-Context [batch, length, hidden]
    (the encoder's output) in place of the first.

    Args:
        with_lm: True for probabilities, "linear" for logits [batch, length, vocab], False for hidden states.
        part: "both", or only the "encoder" or "decoder".
        custom_attention_mask: adds the input Encoder-Input-Mask (0 = hidden), which replaces "id is padding"; the
            decoder alone needs it where its contexts are padded.

    Attributes:
        encoder, decoder: the two halves as models that share the layers of `model`.
    """

    heads = (
        Head("encoder", "part", "both", "decoder"),
        Head("decoder", "part", "both", "encoder"),
        Head("lm", "with_lm", "linear", False),
    )
    vocabulary_axes = {"Embedding-Token/embeddings": 0, "Decoder-Output-LM/kernel": 1}
    applications = ("encoder",)
    bert4keras_habits = {
        "hidden_act": lambda act: "gelu" if act == "gelu_tanh" else act,
        "cross_position_bias": lambda _: True,
        "scale_logits": lambda _: True,
    }
    as_language_model = {"with_lm": True}

    def __init__(
        self,
        config,
        *,
        with_lm: bool | str = "linear",
        part: str = "both",
        custom_attention_mask: bool = False,
        **options,
    ):
        super().__init__(config, **options)
        if part not in PARTS:
            raise ConfigError(f"part must be one of {', '.join(PARTS)}, found {part!r}.")
        if self.residual_attention_scores:
            raise ConfigError("residual_attention_scores is not implemented for T5.")
        self.with_lm = with_lm if part != "encoder" else False
        self.part = part
        self.custom_attention_mask = custom_attention_mask

    def build(self) -> T5:
        mask = [self.input("Encoder-Input-Mask")] if self.custom_attention_mask else []
        if self.part != "decoder":
            tokens = self.input("Encoder-Input-Token")
            context, bias = self.encode(tokens, *mask)
            self.encoder = self.make_model([tokens, *mask], context, name="encoder")
            self.model = self.encoder
        if self.part != "encoder":
            targets = self.input("Decoder-Input-Token")
            alone = self.input(
                "Input-Context", self.dtype_policy.compute_dtype, (self.sequence_length, self.config.hidden_size)
            )
            masked = self.padding_bias(mask[0], mask[0]) if mask else None
            self.decoder = self.make_model([alone, targets, *mask], self.decode(targets, alone, masked), name="decoder")
            self.model = self.decoder
        if self.part == "both":
            self.model = self.make_model([tokens, targets, *mask], self.decode(targets, context, bias))
        return self

    def encode(self, tokens: Any, mask: Any = None) -> tuple[Any, Any]:
        """Token ids -> (last hidden states, bias that hides their padding)."""
        padding = self.padding_bias(tokens, mask)
        x = self.dropout("Encoder-Embedding-Dropout", self.token_embedding()(tokens))
        positions = self.relative_positions("Encoder-Embedding-Relative-Position", bidirectional=True)(x, x)
        bias = self.add("Encoder-Attention-Bias", padding, positions)
        for index in range(self.config.num_hidden_layers):
            name = f"Encoder-Transformer-{index}"
            x = self.sublayer(f"{name}-MultiHeadSelfAttention", x, self.t5_attention, bias=bias)
            x = self.sublayer(f"{name}-FeedForward", x, self.t5_feed_forward)
        x = self.norm("Encoder-Output-Norm", x, rms=True)
        return self.dropout("Encoder-Output-Dropout", x), padding

    def decode(self, tokens: Any, context: Any, context_bias: Any) -> Any:
        """Token ids and encoder states -> the decoder's output."""
        x = self.dropout("Decoder-Embedding-Dropout", self.token_embedding()(tokens))
        bias, context_bias = self.decoder_biases(tokens, x, context, context_bias)
        for index in range(self.config.num_decoder_layers):
            name = f"Decoder-Transformer-{index}"
            x = self.sublayer(f"{name}-MultiHeadSelfAttention", x, self.t5_attention, bias=bias)
            x = self.sublayer(
                f"{name}-MultiHeadCrossAttention", x, self.t5_attention, bias=context_bias, memory=context
            )
            x = self.sublayer(f"{name}-FeedForward", x, self.t5_feed_forward)
        x = self.dropout("Decoder-Output-Dropout", self.norm("Decoder-Output-Norm", x, rms=True))
        return self.language_model(x) if self.with_lm else x

    def decoder_biases(self, tokens: Any, x: Any, context: Any, context_bias: Any) -> tuple[Any, Any]:
        """What is added to the scores of the self-attention and of the cross-attention."""
        causal = self.layer("Decoder-Attention-Mask", tfl.AttentionMask, kind="lm")(tokens)
        positions = self.relative_positions("Decoder-Embedding-Relative-Position", bidirectional=False)
        if self.config.cross_position_bias:
            across = positions(x, context)
            context_bias = across if context_bias is None else self.add("Decoder-Cross-Bias", context_bias, across)
        return self.add("Decoder-Attention-Bias", causal, positions(x, x)), context_bias

    def language_model(self, x: Any) -> Any:
        if self.config.scale_logits:
            x = self.layer("Decoder-Output-Scale", tfl.Scale, factor=self.config.hidden_size**-0.5)(x)
        if self.config.tie_word_embeddings:
            x = self.token_embedding()(x, reverse=True)
        else:
            x = self.dense("Decoder-Output-LM", self.config.vocab_size, use_bias=False)(x)
        return self.activate("Decoder-Output-LM-Activation", x, self.with_lm)

    def padding_bias(self, tokens: Any, mask: Any) -> Any:
        layer = self.layer("Encoder-Attention-Mask", tfl.AttentionMask, pad_token_id=self.config.pad_token_id)
        return layer(tokens, mask_input=mask)

    def relative_positions(self, name: str, bidirectional: bool) -> Any:
        return self.layer(
            name,
            tfl.RelativePositionBias,
            num_heads=self.config.num_attention_heads,
            num_buckets=self.config.relative_attention_num_buckets,
            max_distance=self.config.relative_attention_max_distance,
            bidirectional=bidirectional,
            embeddings_initializer=self.initializer,
        )

    def sublayer(self, name: str, x: Any, function: Any, **arguments: Any) -> Any:
        """x + dropout(function(norm(x)))"""
        y = function(name, self.norm(f"{name}-Norm", x, rms=True), **arguments)
        return self.add(f"{name}-Add", x, self.dropout(f"{name}-Dropout", y))

    def t5_attention(self, name: str, x: Any, bias: Any, memory: Any = None) -> Any:
        return self.attention(name, x, bias, memory, use_bias=False, scaled=False)

    def t5_feed_forward(self, name: str, x: Any) -> Any:
        return self.feed_forward(name, x, use_bias=False, dropout=self.config.hidden_dropout_prob)
