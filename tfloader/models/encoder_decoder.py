"""Encoder-decoders: a decoder, with the methods of any `Transformer`, and an encoder whose states it attends to."""

from __future__ import annotations

from typing import Any

from tfloader.errors import ConfigError
from tfloader.models.heads import Head
from tfloader.models.transformer import Transformer

PARTS = ("both", "encoder", "decoder")


class EncoderDecoder(Transformer):
    """Inputs: Encoder-Input-Token, Decoder-Input-Token. The decoder alone takes Input-Context [batch, length, hidden]
    (the encoder's output) in place of the first.

    `attention_bias`, `embed`, `block` and `head` are the decoder's; a family adds `embed_source`, `encoder_bias`,
    `encoder_block` and `encoder_output`, and `context_attention_bias` where more than padding decides.

    Args:
        with_lm: True for probabilities, "linear" for logits [batch, length, vocab], False for hidden states.
        part: "both", or only the "encoder" or "decoder".
        custom_attention_mask: adds the input Encoder-Input-Mask (0 = hidden), which replaces "id is padding"; the
            decoder alone needs it where its contexts are padded.

    Attributes:
        encoder, decoder: the two halves as models that share the layers of `model`.
        context: the encoder's states, as a block of the decoder sees them. While a token is generated their keys and
            values are remembered, and in their place is something of their length.
        context_bias: what is added to the scores of attention to them.
    """

    heads = (
        Head("encoder", "part", "both", "decoder"),
        Head("decoder", "part", "both", "encoder"),
        Head("lm", "with_lm", "linear", False),
    )
    applications = ("encoder",)
    refuses = {"residual_attention_scores": "not implemented for encoder-decoders"}
    as_language_model = {"with_lm": "linear"}
    answers_sources = True

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
        self.with_lm = with_lm if part != "encoder" else False
        self.part = part
        self.custom_attention_mask = custom_attention_mask
        self.context: Any = None
        self.context_bias: Any = None

    # ---- what a family overrides

    def embed_source(self, tokens: Any) -> Any:
        """Token ids -> what the encoder's first block gets."""
        raise NotImplementedError

    def encoder_bias(self, tokens: Any, padding: Any) -> Any:
        """What is added to the scores of the encoder's attention."""
        return padding

    def encoder_block(self, x: Any, index: int, bias: Any) -> Any:
        """One block of the encoder."""
        raise NotImplementedError

    def encoder_output(self, x: Any) -> Any:
        """What the decoder sees of the encoder's last hidden states."""
        return x

    def padding_bias(self, tokens: Any, mask: Any = None) -> Any:
        """Hides the padding of a source."""
        raise NotImplementedError

    def context_attention_bias(self, inputs: dict[str, Any], context: Any, padding: Any) -> Any:
        """What is added to the scores of the attention to the context; padding: what hides that of the source."""
        return padding

    # ---- assembling

    def build(self) -> EncoderDecoder:
        mask = [self.input("Encoder-Input-Mask")] if self.custom_attention_mask else []
        tokens = targets = context = bias = None
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
        x = self.embed_source(tokens)
        bias = self.encoder_bias(tokens, padding)
        for index in range(self.config.num_hidden_layers):
            x = self.encoder_block(x, index, bias)
        return self.encoder_output(x), padding

    def decode(self, tokens: Any, context: Any, context_bias: Any) -> Any:
        """Token ids and the encoder's states and padding -> the decoder's output."""
        inputs = {"Input-Token": tokens}
        x = self.embed(inputs)
        self.look_at(inputs, context, context_bias)
        return self.head(self.blocks(x)[-1])

    def look_at(self, inputs: dict[str, Any], context: Any, padding: Any) -> None:
        """Sets what the decoder's blocks attend to, given the inputs of all its text so far."""
        self.bias = self.attention_bias(inputs)
        self.context = context
        self.context_bias = self.context_attention_bias(inputs, context, padding)

    @property
    def num_blocks(self) -> Any:
        return self.config.num_decoder_layers

    # ---- generation

    @property
    def start_token_id(self) -> int | None:
        """What the decoder's text begins with."""
        start = self.config.decoder_start_token_id
        return self.config.pad_token_id if start is None else start

    @property
    def can_generate(self) -> bool:
        return True

    def no_generation_with(self) -> list[str]:
        return super().no_generation_with() + ["part"] * (self.part != "both")
