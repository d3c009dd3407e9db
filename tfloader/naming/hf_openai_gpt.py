"""OpenAI GPT and CDial-GPT in Hugging Face folders: GPT-2's names, and a config of its own.

"gelu" there is the tanh approximation, and the feed-forward always four times as wide as the model.
"""

from __future__ import annotations

from typing import Any

from tfloader.config import TransformerConfig
from tfloader.naming import gpt2, huggingface
from tfloader.naming.base import Duplicate, Naming, renamed
from tfloader.naming.dialect import Dialect, Key, revised
from tfloader.naming.release import Release

RENAMED = {
    "transformer.wte.": "transformer.tokens_embed.",
    "transformer.wpe.": "transformer.positions_embed.",
    "transformer.ln_f.": None,
}
ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}

NAMING = Naming(
    rows=renamed(gpt2.HF_NAMING.rows, RENAMED),
    old_names=huggingface.old_names("transformer.", "tokens_embed|positions_embed|h"),
    ignorable=(r"\.attn\.bias$", r"(^|\.)position_ids$"),  # constant causal masks and positions
    duplicates=(Duplicate("lm_head.weight", "transformer.tokens_embed.weight"),),
)


def _finish_write(config: TransformerConfig, raw: dict[str, Any]) -> None:
    gpt2.check_four_times(config, "Hugging Face openai-gpt", "tensorflow")
    gpt2.finish_write(config, raw)


DIALECT = Dialect(
    name="Hugging Face openai-gpt",
    keys=revised(
        gpt2.HF_DIALECT.keys,
        Key("hidden_act", "afn", "gelu_tanh", values=ACTIVATIONS),
        without=("intermediate_size",),
    ),
    fixed={"application": "lm", "intermediate_size": None},
    only={**huggingface.ONLY, "n_special": (0,), "tie_word_embeddings": (True,)},
    harmless=(*huggingface.HARMLESS, "n_ctx|pad_token_id|predict_special_tokens|is_decoder"),
    constants={"model_type": "openai-gpt"},
    notes={"shared_segment_embeddings": False},  # to transformers, token_type_ids are always such segments
    finish_read=gpt2.four_times_as_wide,
    finish_write=_finish_write,
)

RELEASE = Release(
    name="hf_openai_gpt",
    title="Hugging Face OpenAI GPT",
    family="gpt",
    signature="transformer.tokens_embed.weight",
    naming=NAMING,
    dialects=(DIALECT,),
    text_format=gpt2.HF_RELEASE.text_format,
    architectures={None: "OpenAIGPTLMHeadModel"},
    **huggingface.FOLDER,
)
