"""GPT-2 in Hugging Face folders. Kernels are [in, out] as in the original, not transposed."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from tfloader.config import Dialect, Key, TransformerConfig
from tfloader.naming import huggingface
from tfloader.naming.base import Duplicate, LeadingOne, Naming, Release, Split, row

BLOCK = "transformer.h.{layer}"
ATTENTION = "Transformer-{layer}-MultiHeadSelfAttention"
FEED_FORWARD = "Transformer-{layer}-FeedForward"


def dense(ours: str, theirs: str) -> tuple:
    return row(f"{ours}/kernel", f"{theirs}.weight"), row(f"{ours}/bias", f"{theirs}.bias")


def norm(ours: str, theirs: str) -> tuple:
    return row(f"{ours}/gamma", f"{theirs}.weight"), row(f"{ours}/beta", f"{theirs}.bias")


NAMING = Naming(
    rows=(
        row("Embedding-Token/embeddings", "transformer.wte.weight"),
        row("Embedding-Position/embeddings", "transformer.wpe.weight"),
        *norm(f"{ATTENTION}-Norm", f"{BLOCK}.ln_1"),
        row(
            [f"{ATTENTION}/{name}/kernel" for name in ("query", "key", "value")],
            f"{BLOCK}.attn.c_attn.weight",
            Split(3),
        ),
        row([f"{ATTENTION}/{name}/bias" for name in ("query", "key", "value")], f"{BLOCK}.attn.c_attn.bias", Split(3)),
        *dense(f"{ATTENTION}/output_dense", f"{BLOCK}.attn.c_proj"),
        *norm(f"{FEED_FORWARD}-Norm", f"{BLOCK}.ln_2"),
        *dense(f"{FEED_FORWARD}/intermediate", f"{BLOCK}.mlp.c_fc"),
        *dense(f"{FEED_FORWARD}/output_dense", f"{BLOCK}.mlp.c_proj"),
        *norm("Output-Norm", "transformer.ln_f"),
    ),
    old_names=(
        (r"^(module\.)+", ""),
        (r"^(wte|wpe|h|ln_f)\.", r"transformer.\1."),  # GPT2Model saved alone, as in the public gpt2 repository
    ),
    ignorable=(r"\.attn\.(bias|masked_bias)$",),  # constant causal masks
    duplicates=(Duplicate("lm_head.weight", "transformer.wte.weight"),),
)


def _default_width(fields: dict[str, Any], raw: Any, tensors: Any) -> None:
    if fields.get("intermediate_size") is None and isinstance(fields.get("hidden_size"), int):
        fields["intermediate_size"] = 4 * fields["hidden_size"]


def _finish_write(config: TransformerConfig, raw: dict[str, Any]) -> None:
    raw["n_ctx"] = config.max_position_embeddings
    if config.intermediate_size == 4 * config.hidden_size:
        raw["n_inner"] = None
    if config.embedding_dropout_prob is None:  # transformers wants a number
        raw["embd_pdrop"] = config.hidden_dropout_prob


DIALECT = Dialect(
    name="Hugging Face GPT-2",
    keys=(
        Key("vocab_size", "vocab_size"),
        Key("max_position_embeddings", "n_positions", aliases=("max_position_embeddings",)),
        Key("hidden_size", "n_embd", aliases=("hidden_size",)),
        Key("num_hidden_layers", "n_layer", aliases=("num_hidden_layers",)),
        Key("num_attention_heads", "n_head", aliases=("num_attention_heads",)),
        Key("intermediate_size", "n_inner", None),
        Key("hidden_act", "activation_function", "gelu_tanh", values=huggingface.ACTIVATIONS),
        Key("layer_norm_eps", "layer_norm_epsilon", 1e-5),
        Key("hidden_dropout_prob", "resid_pdrop", 0.1),
        Key("embedding_dropout_prob", "embd_pdrop", 0.1),
        Key("attention_probs_dropout_prob", "attn_pdrop", 0.1),
        Key("initializer_range", "initializer_range", 0.02),
        Key("bos_token_id", "bos_token_id", None),
        Key("eos_token_id", "eos_token_id", None),
    ),
    fixed={"application": "lm"},
    only={
        **huggingface.ONLY,
        "n_special": (0,),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "tie_word_embeddings": (True,),
    },
    harmless=(*huggingface.HARMLESS, "n_ctx|reorder_and_upcast_attn|pad_token_id|predict_special_tokens|is_decoder"),
    constants={"model_type": "gpt2"},
    finish_read=_default_width,
    finish_write=_finish_write,
)

RELEASE = Release(
    name="hf_gpt2",
    title="Hugging Face GPT-2",
    family="gpt2",
    formats=("safetensors", "torch", "memory"),
    signature="transformer.wte.weight",
    naming=NAMING,
    config_files=("config.json",),
    dialects=(DIALECT,),
    writes="huggingface",
    architecture=lambda names: ("GPT2LMHeadModel", ""),
)


def _h5_naming() -> Naming:
    """There, the biases of the projections are [1, n]."""
    naming = huggingface.h5_naming(NAMING)
    rows = tuple(
        replace(item, op=LeadingOne(item.op)) if re.search(r"\.(attn|mlp)\.c_\w+\.bias$", item.theirs) else item
        for item in naming.rows
    )
    return replace(naming, rows=rows)


H5_RELEASE = Release(
    name="hf_gpt2_h5",
    title="Hugging Face GPT-2 (tf_model.h5)",
    family="gpt2",
    formats=("hdf5",),
    signature=RELEASE.signature,
    naming=_h5_naming(),
    config_files=RELEASE.config_files,
    dialects=RELEASE.dialects,
)
