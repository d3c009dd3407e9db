"""OpenAI GPT and CDial-GPT in Hugging Face folders: GPT-2's names, and a config of its own.

"gelu" there is the tanh approximation, and the feed-forward always four times as wide as the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfloader.config import Dialect, Key, TransformerConfig
from tfloader.errors import ConfigError
from tfloader.naming import hf_gpt2, huggingface
from tfloader.naming.base import Duplicate, Naming, Release, renamed

RENAMED = {
    "transformer.wte.": "transformer.tokens_embed.",
    "transformer.wpe.": "transformer.positions_embed.",
    "transformer.ln_f.": None,
}
ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}

NAMING = Naming(
    rows=renamed(hf_gpt2.NAMING.rows, RENAMED),
    old_names=(
        (r"^(module\.)+", ""),
        (r"^(tokens_embed|positions_embed|h)\.", r"transformer.\1."),  # OpenAIGPTModel saved alone
    ),
    ignorable=(r"\.attn\.bias$", r"(^|\.)position_ids$"),  # constant causal masks and positions
    duplicates=(Duplicate("lm_head.weight", "transformer.tokens_embed.weight"),),
)


def _finish_read(fields: dict[str, Any], raw: Mapping[str, Any], tensors: Any) -> None:
    if isinstance(fields.get("hidden_size"), int):
        fields["intermediate_size"] = 4 * fields["hidden_size"]
    noted = raw.get("tfloader")
    if isinstance(noted, dict):
        fields["shared_segment_embeddings"] = noted.get("shared_segment_embeddings", False)


def _finish_write(config: TransformerConfig, raw: dict[str, Any]) -> None:
    raw["n_ctx"] = config.max_position_embeddings
    if config.intermediate_size != 4 * config.hidden_size:
        raise ConfigError(
            f"This model cannot be written as Hugging Face openai-gpt: there the feed-forward is 4 x n_embd = "
            f"{4 * config.hidden_size} wide, here {config.intermediate_size}. Save with format='tensorflow'."
        )
    if config.embedding_dropout_prob is None:  # transformers wants a number
        raw["embd_pdrop"] = config.hidden_dropout_prob
    if config.shared_segment_embeddings:  # to transformers, token_type_ids are always such segments
        raw["tfloader"] = {"shared_segment_embeddings": True}


_OTHERS = ("intermediate_size", "hidden_act")
DIALECT = Dialect(
    name="Hugging Face openai-gpt",
    keys=(
        *(key for key in hf_gpt2.DIALECT.keys if key.ours not in _OTHERS),
        Key("hidden_act", "afn", "gelu_tanh", values=ACTIVATIONS),
    ),
    fixed={"application": "lm", "intermediate_size": 0},
    only={**huggingface.ONLY, "n_special": (0,), "tie_word_embeddings": (True,)},
    harmless=(*huggingface.HARMLESS, "n_ctx|pad_token_id|predict_special_tokens|is_decoder"),
    constants={"model_type": "openai-gpt"},
    finish_read=_finish_read,
    finish_write=_finish_write,
)

RELEASE = Release(
    name="hf_openai_gpt",
    title="Hugging Face OpenAI GPT",
    family="gpt",
    formats=("safetensors", "torch", "memory"),
    signature="transformer.tokens_embed.weight",
    naming=NAMING,
    config_files=("config.json",),
    dialects=(DIALECT,),
    writes="huggingface",
    architecture=lambda names: ("OpenAIGPTLMHeadModel", ""),
)
