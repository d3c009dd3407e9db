"""GPT-2 as OpenAI published it (openai/gpt-2, 2019): a TensorFlow checkpoint, hparams.json, encoder.json, vocab.bpe.

Kernels are convolutions of width one, [1, in, out]; `c_attn` holds query, key and value side by side.
"""

from __future__ import annotations

from typing import Any

from tfloader.config import Dialect, Key, TransformerConfig
from tfloader.errors import ConfigError
from tfloader.naming.base import TF_OPTIMIZER_SLOTS, LeadingOne, Naming, Release, Split, row

BLOCK = "model/h{layer}"
ATTENTION = "Transformer-{layer}-MultiHeadSelfAttention"
FEED_FORWARD = "Transformer-{layer}-FeedForward"

NAMING = Naming(
    rows=(
        row("Embedding-Token/embeddings", "model/wte"),
        row("Embedding-Position/embeddings", "model/wpe"),
        row(f"{ATTENTION}-Norm/gamma", f"{BLOCK}/ln_1/g"),
        row(f"{ATTENTION}-Norm/beta", f"{BLOCK}/ln_1/b"),
        row(
            [f"{ATTENTION}/{name}/kernel" for name in ("query", "key", "value")],
            f"{BLOCK}/attn/c_attn/w",
            LeadingOne(Split(3)),
        ),
        row([f"{ATTENTION}/{name}/bias" for name in ("query", "key", "value")], f"{BLOCK}/attn/c_attn/b", Split(3)),
        row(f"{ATTENTION}/output_dense/kernel", f"{BLOCK}/attn/c_proj/w", LeadingOne()),
        row(f"{ATTENTION}/output_dense/bias", f"{BLOCK}/attn/c_proj/b"),
        row(f"{FEED_FORWARD}-Norm/gamma", f"{BLOCK}/ln_2/g"),
        row(f"{FEED_FORWARD}-Norm/beta", f"{BLOCK}/ln_2/b"),
        row(f"{FEED_FORWARD}/intermediate/kernel", f"{BLOCK}/mlp/c_fc/w", LeadingOne()),
        row(f"{FEED_FORWARD}/intermediate/bias", f"{BLOCK}/mlp/c_fc/b"),
        row(f"{FEED_FORWARD}/output_dense/kernel", f"{BLOCK}/mlp/c_proj/w", LeadingOne()),
        row(f"{FEED_FORWARD}/output_dense/bias", f"{BLOCK}/mlp/c_proj/b"),
        row("Output-Norm/gamma", "model/ln_f/g"),
        row("Output-Norm/beta", "model/ln_f/b"),
    ),
    ignorable=TF_OPTIMIZER_SLOTS,
)


def _four_times_as_wide(fields: dict[str, Any], raw: Any, tensors: Any) -> None:
    if isinstance(fields.get("hidden_size"), int):
        fields["intermediate_size"] = 4 * fields["hidden_size"]


def _only_four_times(config: TransformerConfig, raw: dict[str, Any]) -> None:
    if config.intermediate_size != 4 * config.hidden_size:
        raise ConfigError(
            f"hparams.json cannot express intermediate_size {config.intermediate_size}: "
            f"OpenAI's code has 4 x n_embd = {4 * config.hidden_size}. Save with format='huggingface'."
        )


DIALECT = Dialect(
    name="OpenAI GPT-2",
    keys=(
        Key("vocab_size", "n_vocab"),
        Key("max_position_embeddings", "n_ctx"),
        Key("hidden_size", "n_embd"),
        Key("num_attention_heads", "n_head"),
        Key("num_hidden_layers", "n_layer"),
    ),
    # The published code has no dropout; 0.1 is what GPT-2 was trained with (Radford et al., 2019).
    fixed={
        "hidden_act": "gelu_tanh",
        "layer_norm_eps": 1e-5,
        "application": "lm",
        "intermediate_size": 0,
    },
    harmless=("tfloader",),
    finish_read=_four_times_as_wide,
    finish_write=_only_four_times,
)

RELEASE = Release(
    name="openai_gpt2",
    title="OpenAI GPT-2 (TensorFlow checkpoint)",
    family="gpt2",
    formats=("tensorflow", "memory"),
    signature="model/wte",
    naming=NAMING,
    config_files=("hparams.json",),
    dialects=(DIALECT,),
    writes="tensorflow",
    written_config="hparams.json",
    tokenizer_files={"vocab.json": "encoder.json", "merges.txt": "vocab.bpe"},
)
