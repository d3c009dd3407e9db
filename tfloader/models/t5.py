"""T5 1.0, T5 1.1, FLAN-T5 and mT5 (Raffel et al., 2020; Xue et al., 2021)."""

from __future__ import annotations

from typing import Any

from tfloader import layers as tfl
from tfloader.models.encoder_decoder import EncoderDecoder
from tfloader.naming.bert4keras import T5_PEGASUS


class T5(EncoderDecoder):
    """Pre-norm encoder and decoder without biases, with relative positions and unscaled scores.

    Inputs, options and attributes are those of `EncoderDecoder`.
    """

    vocabulary_axes = {"Embedding-Token/embeddings": 0, "Decoder-Output-LM/kernel": 1}
    bert4keras_habits = {
        "hidden_act": lambda act: "gelu" if act == "gelu_tanh" else act,
        "cross_position_bias": lambda _: True,
        "scale_logits": lambda _: True,
    }
    bert4keras_defaults = {"encoder": {"with_lm": True}}
    aliases = {
        f"{name}{suffix}": {"part": part} if part else {}
        for name in ("t5", "t5.1.0", "t5.1.1", "mt5.1.1")
        for suffix, part in (("", None), ("_encoder", "encoder"), ("_decoder", "decoder"))
    } | {
        # For a T5-PEGASUS with another vocabulary than the published one, by which that is recognised.
        "t5_pegasus": {**T5_PEGASUS, "hidden_act": "gelu"}
    }

    def padding_bias(self, tokens: Any, mask: Any = None) -> Any:
        layer = self.layer("Encoder-Attention-Mask", tfl.AttentionMask, pad_token_id=self.config.pad_token_id)
        return layer(tokens, mask_input=mask)

    def embed_source(self, tokens: Any) -> Any:
        return self.dropout("Encoder-Embedding-Dropout", self.token_embedding()(tokens))

    def encoder_bias(self, tokens: Any, padding: Any) -> Any:
        positions = self.relative_positions("Encoder-Embedding-Relative-Position", bidirectional=True)
        return self.add("Encoder-Attention-Bias", padding, positions(tokens, tokens))

    def encoder_block(self, x: Any, index: int, bias: Any) -> Any:
        name = f"Encoder-Transformer-{index}"
        x = self.sublayer(f"{name}-MultiHeadSelfAttention", x, self.t5_attention, bias=bias)
        return self.sublayer(f"{name}-FeedForward", x, self.t5_feed_forward)

    def encoder_output(self, x: Any) -> Any:
        return self.dropout("Encoder-Output-Dropout", self.norm("Encoder-Output-Norm", x, rms=True))

    def attention_bias(self, inputs: dict[str, Any]) -> Any:
        tokens = inputs["Input-Token"]
        causal = self.layer("Decoder-Attention-Mask", tfl.AttentionMask, kind="lm")(tokens)
        return self.add("Decoder-Attention-Bias", causal, self.decoder_positions(tokens, tokens))

    def context_attention_bias(self, inputs: dict[str, Any], context: Any, padding: Any) -> Any:
        if not self.config.cross_position_bias:
            return padding
        positions = self.decoder_positions(inputs["Input-Token"], context)
        return positions if padding is None else self.add("Decoder-Cross-Bias", padding, positions)

    def decoder_positions(self, queries: Any, keys: Any) -> Any:
        return self.relative_positions("Decoder-Embedding-Relative-Position", bidirectional=False)(queries, keys)

    def embed(self, inputs: dict[str, Any]) -> Any:
        return self.dropout("Decoder-Embedding-Dropout", self.token_embedding()(inputs["Input-Token"]))

    def block(self, x: Any, index: int) -> Any:
        name = f"Decoder-Transformer-{index}"
        x = self.sublayer(f"{name}-MultiHeadSelfAttention", x, self.t5_attention, bias=self.bias)
        x = self.sublayer(
            f"{name}-MultiHeadCrossAttention", x, self.t5_attention, bias=self.context_bias, memory=self.context
        )
        return self.sublayer(f"{name}-FeedForward", x, self.t5_feed_forward)

    def head(self, x: Any) -> Any:
        x = self.dropout("Decoder-Output-Dropout", self.norm("Decoder-Output-Norm", x, rms=True))
        return self.language_model(x) if self.with_lm else x

    def language_model(self, x: Any) -> Any:
        if self.config.scale_logits:
            x = self.layer("Decoder-Output-Scale", tfl.Scale, factor=self.config.hidden_size**-0.5)(x)
        if self.config.tie_word_embeddings:
            x = self.token_embedding()(x, reverse=True)
        else:
            x = self.dense("Decoder-Output-LM", self.config.vocab_size, use_bias=False)(x)
        return self.activate("Decoder-Output-LM-Activation", x, self.with_lm)

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
        return self.residual(name, x, function(name, self.norm(f"{name}-Norm", x, rms=True), **arguments))

    def t5_attention(self, name: str, x: Any, bias: Any, memory: Any = None) -> Any:
        return self.attention(name, x, bias, memory, use_bias=False, scaled=False)

    def t5_feed_forward(self, name: str, x: Any) -> Any:
        return self.feed_forward(name, x, use_bias=False, dropout=self.config.hidden_dropout_prob)
