"""T5 1.0, T5 1.1, FLAN-T5 and mT5 in Hugging Face folders.

Kernels are [out, in]. Logits are scaled by d_model ** -0.5 exactly where the output layer is the tied embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfloader.config import TransformerConfig, shown
from tfloader.errors import ConfigError
from tfloader.naming import huggingface
from tfloader.naming.base import Duplicate, Naming, Row, Transpose, row
from tfloader.naming.dialect import Dialect, Key, same
from tfloader.naming.release import Release, TextFormat

ENCODER, DECODER = "Encoder-Transformer-{layer}", "Decoder-Transformer-{decoder_layer}"
ENCODER_BLOCK, DECODER_BLOCK = "encoder.block.{layer}.layer", "decoder.block.{decoder_layer}.layer"
OUTPUT_LAYERS = {"lm_head.weight", "decoder/logits/kernel", "Decoder-Output-LM/kernel"}  # as the releases name them
EMBEDDINGS = {"shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
POSITIONS = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"

# T5 1.0 has `wi`; 1.1 and mT5 the activated `wi_0` and the linear `wi_1`.
ATTENTION = (("query", "q"), ("key", "k"), ("value", "v"), ("output_dense", "o"))
FEED_FORWARD = (("intermediate", "wi"), ("gate", "wi_0"), ("up", "wi_1"), ("output_dense", "wo"))


def dense(ours: str, theirs: str, names: tuple[tuple[str, str], ...], part: str) -> tuple[Row, ...]:
    return tuple(row(f"{ours}/{a}/kernel", f"{theirs}.{b}.weight", Transpose(), part) for a, b in names)


NAMING = Naming(
    rows=(
        row("Embedding-Token/embeddings", "shared.weight"),
        row("Encoder-Embedding-Relative-Position/embeddings", f"encoder.{POSITIONS}", part="encoder"),
        row(f"{ENCODER}-MultiHeadSelfAttention-Norm/scale", f"{ENCODER_BLOCK}.0.layer_norm.weight", part="encoder"),
        *dense(f"{ENCODER}-MultiHeadSelfAttention", f"{ENCODER_BLOCK}.0.SelfAttention", ATTENTION, "encoder"),
        row(f"{ENCODER}-FeedForward-Norm/scale", f"{ENCODER_BLOCK}.1.layer_norm.weight", part="encoder"),
        *dense(f"{ENCODER}-FeedForward", f"{ENCODER_BLOCK}.1.DenseReluDense", FEED_FORWARD, "encoder"),
        row("Encoder-Output-Norm/scale", "encoder.final_layer_norm.weight", part="encoder"),
        row("Decoder-Embedding-Relative-Position/embeddings", f"decoder.{POSITIONS}", part="decoder"),
        row(f"{DECODER}-MultiHeadSelfAttention-Norm/scale", f"{DECODER_BLOCK}.0.layer_norm.weight", part="decoder"),
        *dense(f"{DECODER}-MultiHeadSelfAttention", f"{DECODER_BLOCK}.0.SelfAttention", ATTENTION, "decoder"),
        row(f"{DECODER}-MultiHeadCrossAttention-Norm/scale", f"{DECODER_BLOCK}.1.layer_norm.weight", part="decoder"),
        *dense(f"{DECODER}-MultiHeadCrossAttention", f"{DECODER_BLOCK}.1.EncDecAttention", ATTENTION, "decoder"),
        row(f"{DECODER}-FeedForward-Norm/scale", f"{DECODER_BLOCK}.2.layer_norm.weight", part="decoder"),
        *dense(f"{DECODER}-FeedForward", f"{DECODER_BLOCK}.2.DenseReluDense", FEED_FORWARD, "decoder"),
        row("Decoder-Output-Norm/scale", "decoder.final_layer_norm.weight", part="decoder"),
        row("Decoder-Output-LM/kernel", "lm_head.weight", Transpose(), "lm", untied=True),
    ),
    old_names=(huggingface.WRAPPED,),
    # A first release of the conversion stored a position table for the cross attention that was never used.
    ignorable=(r"^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$",),
    duplicates=(
        Duplicate("encoder.embed_tokens.weight", "shared.weight"),
        Duplicate("decoder.embed_tokens.weight", "shared.weight"),
        Duplicate("lm_head.weight", "shared.weight"),  # where the output layer is tied
    ),
)


def _feed_forward(kind: Any, raw: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether it is gated, and our name of the activation.

    "gated-gelu" is the tanh approximation (T5 1.1's own choice). transformers also writes down what it takes
    feed_forward_proj to mean, and believes that when it reads; so it must not say anything else.
    """
    gated = isinstance(kind, str) and kind.startswith("gated-")
    theirs = "gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-") if gated else kind
    names = huggingface.ACTIVATIONS
    if not isinstance(theirs, str) or theirs not in names:
        supported = ", ".join(names)
        raise ConfigError(f"feed_forward_proj = {shown(kind)} is not implemented; supported: [gated-] {supported}")
    if raw.get("is_gated_act", gated) is not gated:
        raise ConfigError(f"is_gated_act = {shown(raw['is_gated_act'])} contradicts feed_forward_proj = {kind!r}")
    said = raw.get("dense_act_fn", theirs)
    if not isinstance(said, str) or names.get(said) != names[theirs]:
        raise ConfigError(f"dense_act_fn = {shown(said)} contradicts feed_forward_proj = {kind!r}")
    return gated, names[theirs]


def _finish_read(fields: dict[str, Any], raw: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    fields["gated_feed_forward"], fields["hidden_act"] = _feed_forward(fields["hidden_act"], raw)
    fields["attention_probs_dropout_prob"] = fields["hidden_dropout_prob"]
    if fields.get("num_decoder_layers") is None:
        fields["num_decoder_layers"] = fields.get("num_hidden_layers")
    fields["tie_word_embeddings"], fields["scale_logits"] = _tied_and_scaled(fields, raw, tensors)


def _tied_and_scaled(fields: Mapping[str, Any], raw: Mapping[str, Any], tensors: Mapping[str, Any]) -> tuple:
    """Whether the output layer is the embedding, and whether logits are scaled.

    transformers 4 scales what the config calls tied. transformers 5 calls every model tied, lets a stored lm_head
    win, scales T5 by a key of its own and mT5 never (measured with 5.23).
    """
    tied = fields["tie_word_embeddings"]
    version = str(raw.get("transformers_version", "4")).partition(".")[0]
    by_version_5 = "scale_decoder_outputs" in raw or (
        raw.get("model_type") == "mt5" and version.isdecimal() and int(version[:9]) >= 5
    )
    if not by_version_5:
        return tied, tied
    if tensors:
        # T5 1.0, the one that is scaled, may be stored by its output layer alone; T5 1.1 has one of its own.
        alone = tied and raw.get("scale_decoder_outputs") is True and "lm_head.weight" in tensors
        tied = not OUTPUT_LAYERS & set(tensors) or (alone and not EMBEDDINGS & set(tensors))
    return tied, raw.get("scale_decoder_outputs", False)


def _finish_write(config: TransformerConfig, raw: dict[str, Any]) -> None:
    names = huggingface.ACTIVATIONS.items()
    plain = next((theirs for theirs, ours in names if ours == config.hidden_act), config.hidden_act)
    if config.gated_feed_forward and config.hidden_act == "gelu":
        plain = "gelu_python"  # "gated-gelu" would mean the approximation
    if config.gated_feed_forward and config.hidden_act == "gelu_tanh":
        plain = "gelu"
    raw["feed_forward_proj"] = f"gated-{plain}" if config.gated_feed_forward else plain
    raw["is_encoder_decoder"] = True
    if config.scale_logits and raw["model_type"] == "mt5":
        raise ConfigError(
            "A Hugging Face mt5 config cannot express scale_logits = True: transformers 5 never scales mT5's logits. "
            "Load the model with model_type='t5', which is the same but for that."
        )
    if config.scale_logits != config.tie_word_embeddings:
        raw["scale_decoder_outputs"] = config.scale_logits


def _dialect(model_type: str, feed_forward: str, tied: bool) -> Dialect:
    """T5's and mT5's files differ in their name and in what silence means."""
    return Dialect(
        name=f"Hugging Face {model_type}",
        keys=(
            *same("vocab_size"),
            Key("hidden_size", "d_model", aliases=("hidden_size",)),
            Key("attention_head_size", "d_kv", aliases=("head_dim",)),
            Key("intermediate_size", "d_ff"),
            Key("num_hidden_layers", "num_layers", aliases=("num_hidden_layers",)),
            *same(num_decoder_layers=None),
            Key("num_attention_heads", "num_heads", aliases=("num_attention_heads",)),
            *same(relative_attention_num_buckets=32, relative_attention_max_distance=128),
            Key("hidden_dropout_prob", "dropout_rate", 0.1),
            Key("layer_norm_eps", "layer_norm_epsilon", 1e-6),
            Key("hidden_act", "feed_forward_proj", feed_forward),
            *same(tie_word_embeddings=tied, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0),
        ),
        only={
            **{name: allowed for name, allowed in huggingface.ONLY.items() if name != "is_encoder_decoder"},
            "is_encoder_decoder": (True,),
            "is_decoder": (False,),
            "scale_decoder_outputs": (False, True),
        },
        harmless=(*huggingface.HARMLESS, "n_positions|is_gated_act|dense_act_fn"),
        constants={"model_type": model_type},
        finish_read=_finish_read,
        finish_write=_finish_write,
    )


DIALECT = _dialect("t5", "relu", tied=True)
MT5_DIALECT = _dialect("mt5", "gated-gelu", tied=False)

RELEASE = Release(
    name="hf_t5",
    title="Hugging Face T5 / mT5",
    family="t5",
    signature=(("encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight"),),
    naming=NAMING,
    dialects=(DIALECT, MT5_DIALECT),
    text_format=TextFormat(None, "eos", also=("umt5", "longt5")),
    architectures={"decoder": "T5ForConditionalGeneration", None: "T5EncoderModel"},
    **huggingface.FOLDER,
)
H5_RELEASE = huggingface.h5_twin(RELEASE)
