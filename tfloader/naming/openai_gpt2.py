"""GPT-2 as OpenAI published it (openai/gpt-2, 2019): a TensorFlow checkpoint, hparams.json, encoder.json, vocab.bpe.

Kernels are convolutions of width one, [1, in, out]; `c_attn` holds query, key and value side by side.
"""

from __future__ import annotations

from tfloader.naming import hf_gpt2
from tfloader.naming.base import ATTENTION, FEED_FORWARD, OPENAI, QUERY_KEY_VALUE, Naming, row
from tfloader.naming.dialect import Dialect, Key
from tfloader.naming.release import NOTHING_AROUND, TENSORFLOW, TF_OPTIMIZER_SLOTS, Release

BLOCK = "model/h{layer}"
dense, norm = OPENAI.dense, OPENAI.norm

NAMING = Naming(
    rows=(
        row("Embedding-Token/embeddings", "model/wte"),
        row("Embedding-Position/embeddings", "model/wpe"),
        *norm(f"{ATTENTION}-Norm", f"{BLOCK}/ln_1"),
        *dense(QUERY_KEY_VALUE, f"{BLOCK}/attn/c_attn"),
        *dense(f"{ATTENTION}/output_dense", f"{BLOCK}/attn/c_proj"),
        *norm(f"{FEED_FORWARD}-Norm", f"{BLOCK}/ln_2"),
        *dense(f"{FEED_FORWARD}/intermediate", f"{BLOCK}/mlp/c_fc"),
        *dense(f"{FEED_FORWARD}/output_dense", f"{BLOCK}/mlp/c_proj"),
        *norm("Output-Norm", "model/ln_f"),
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
    harmless=("tfloader",),
    finish_read=hf_gpt2.four_times_as_wide,
    finish_write=lambda config, _: hf_gpt2.check_four_times(config, "hparams.json", "huggingface"),
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
    written_config="hparams.json",
    tokenizer_files={"vocab.json": "encoder.json", "merges.txt": "vocab.bpe"},
    text_format=NOTHING_AROUND,
)
