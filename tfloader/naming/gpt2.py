"""GPT-2 as OpenAI published it (openai/gpt-2, 2019), with hparams.json, encoder.json, vocab.bpe, and in Hugging Face
folders.

Kernels are [in, out] in both, and `c_attn` holds query, key and value side by side. OpenAI's are convolutions of width
one, [1, in, out].
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from tfloader.config import TransformerConfig
from tfloader.errors import ConfigError
from tfloader.naming import heads, huggingface
from tfloader.naming.base import (
    ATTENTION,
    CONV1D,
    FEED_FORWARD,
    OPENAI,
    QUERY_KEY_VALUE,
    Duplicate,
    Layout,
    LeadingOne,
    Naming,
    Row,
    Transpose,
    row,
)
from tfloader.naming.constants import causal_masks
from tfloader.naming.dialect import Dialect, Key, same
from tfloader.naming.release import NOTHING_AROUND, TENSORFLOW, TF_OPTIMIZER_SLOTS, Release


def _rows(layout: Layout, root: str, block: str, embedding: str) -> tuple[Row, ...]:
    dense, norm = layout.dense, layout.norm
    return (
        row("Embedding-Token/embeddings", f"{root}.wte{embedding}"),
        row("Embedding-Position/embeddings", f"{root}.wpe{embedding}"),
        *norm(f"{ATTENTION}-Norm", f"{block}.ln_1"),
        *dense(QUERY_KEY_VALUE, f"{block}.attn.c_attn"),
        *dense(f"{ATTENTION}/output_dense", f"{block}.attn.c_proj"),
        *norm(f"{FEED_FORWARD}-Norm", f"{block}.ln_2"),
        *dense(f"{FEED_FORWARD}/intermediate", f"{block}.mlp.c_fc"),
        *dense(f"{FEED_FORWARD}/output_dense", f"{block}.mlp.c_proj"),
        *norm("Output-Norm", f"{root}.ln_f"),
    )


HF_NAMING = Naming(
    rows=(
        *_rows(CONV1D, "transformer", "transformer.h.{layer}", ".weight"),
        *heads.ROWS,
        row("Classifier-Score/kernel", "score.weight", Transpose(), heads.PART),
    ),
    old_names=huggingface.old_names("transformer.", "wte|wpe|h|ln_f"),  # so is the public gpt2 repository
    ignorable=(r"\.attn\.masked_bias$",),  # a large negative number
    buffers=(causal_masks(r"\.attn\.bias$"),),
    duplicates=(Duplicate("lm_head.weight", "transformer.wte.weight"),),
)


def four_times_as_wide(fields: dict[str, Any], raw: Any, tensors: Any) -> None:
    """Where the file does not say how wide the feed-forward is."""
    if fields.get("intermediate_size") is None and isinstance(fields.get("hidden_size"), int):
        fields["intermediate_size"] = 4 * fields["hidden_size"]


def check_four_times(config: TransformerConfig, name: str, other: str) -> None:
    """Refuses another width for a format that cannot say it."""
    if config.intermediate_size != 4 * config.hidden_size:
        raise ConfigError(
            f"{name} cannot express intermediate_size {config.intermediate_size}: there the feed-forward is 4 x n_embd "
            f"= {4 * config.hidden_size} wide, here {config.intermediate_size}. Save with format={other!r}."
        )


def finish_write(config: TransformerConfig, raw: dict[str, Any]) -> None:
    raw["n_ctx"] = config.max_position_embeddings
    if raw.get("n_inner") == 4 * config.hidden_size:
        raw["n_inner"] = None
    if config.embedding_dropout_prob is None:  # transformers wants a number
        raw["embd_pdrop"] = config.hidden_dropout_prob


HF_DIALECT = Dialect(
    name="Hugging Face GPT-2",
    keys=(
        *same("vocab_size"),
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
        *same(initializer_range=0.02, bos_token_id=None, eos_token_id=None),
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
    heads=heads.HeadKeys("GPT2", padding=True),
    finish_read=four_times_as_wide,
    finish_write=finish_write,
)

NAMING = Naming(
    rows=tuple(
        replace(item, theirs=item.theirs.replace(".", "/")) for item in _rows(OPENAI, "model", "model.h{layer}", "")
    ),
    ignorable=TF_OPTIMIZER_SLOTS,
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
    fixed={"hidden_act": "gelu_tanh", "layer_norm_eps": 1e-5, "application": "lm", "intermediate_size": None},
    finish_read=four_times_as_wide,
    finish_write=lambda config, _: check_four_times(config, "hparams.json", "huggingface"),
)

RELEASE = Release(
    name="openai_gpt2",
    title="OpenAI GPT-2 (TensorFlow checkpoint)",
    family="gpt2",
    **TENSORFLOW,
    signature="model/wte",
    naming=NAMING,
    config_files=("hparams.json",),
    dialects=(DIALECT,),
    tokenizer_files={"vocab.json": "encoder.json", "merges.txt": "vocab.bpe"},
    text_format=NOTHING_AROUND,
)

HF_RELEASE = Release(
    name="hf_gpt2",
    title="Hugging Face GPT-2",
    family="gpt2",
    signature="transformer.ln_f.weight",
    naming=HF_NAMING,
    dialects=(HF_DIALECT,),
    text_format=NOTHING_AROUND,
    architectures={None: "GPT2LMHeadModel"},
    **huggingface.FOLDER,
)
# There, the biases of the projections are [1, n].
PROJECTION_BIAS = re.compile(r"\.(attn|mlp)\.c_\w+\.bias$")
HF_H5_RELEASE = huggingface.h5_twin(HF_RELEASE, lambda name, op: LeadingOne(op) if PROJECTION_BIAS.search(name) else op)
