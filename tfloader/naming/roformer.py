"""RoFormer (Su et al., 2021) as ZhuiyiTechnology published it, under BERT's names, and in Hugging Face folders.

The published code is bert4keras': "gelu" is the exact (erf) form, the epsilon 1e-7, in the masked-language-model head
1e-12. RoFormer-Sim is such a checkpoint, with a pooler without activation (`with_pool="linear"`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from tfloader.config import Key, TransformerConfig
from tfloader.naming import google_bert, hf_bert, huggingface
from tfloader.naming.base import Constant, Duplicate, Naming, Release, renamed, row
from tfloader.naming.google_bert import ACTIVATIONS, SIZES

ACTIVATIONS = {"swish": "silu"} | ACTIVATIONS | {"gelu": "gelu"}
WITH_BIASES = {"use_bias": (True, 1)}

# What bert4keras' code reads, and what it has fixed.
KEYS = (
    *SIZES,
    Key("hidden_act", "hidden_act", values=ACTIVATIONS),
    Key("max_position_embeddings", "max_position_embeddings", 512, aliases=("max_position",)),
    Key("type_vocab_size", "type_vocab_size", 2, aliases=("segment_vocab_size",)),
    Key("embedding_size", "embedding_size", None),
    Key("layer_norm_eps", "layer_norm_eps", 1e-7),
    Key("pad_token_id", "pad_token_id", 0),
)

DIALECT = replace(
    google_bert.DIALECT,
    name="RoFormer",
    keys=(*KEYS, Key("mlm_norm_eps", "mlm_norm_eps", 1e-12)),
    fixed={},
    only=google_bert.DIALECT.only | WITH_BIASES,
    constants={"model_type": "roformer"},
    finish_write=None,
)

RELEASE = Release(
    name="roformer",
    title="RoFormer (TensorFlow checkpoint)",
    family="roformer",
    formats=("tensorflow", "memory"),
    signature="bert/embeddings/LayerNorm/gamma",
    lacks=("bert/embeddings/position_embeddings",),
    naming=replace(
        google_bert.NAMING,
        rows=(
            *renamed(google_bert.NAMING.rows, {"bert/embeddings/position_embeddings": None}),
            row("Embedding-Mapping/kernel", "bert/encoder/embedding_hidden_mapping_in/kernel"),
            row("Embedding-Mapping/bias", "bert/encoder/embedding_hidden_mapping_in/bias"),
        ),
    ),
    config_files=google_bert.RELEASE.config_files,
    dialects=(DIALECT,),
    writes="tensorflow",
    written_config="bert_config.json",
)


def _table_shape(config: TransformerConfig) -> tuple[int, int]:
    return config.max_position_embeddings or 0, config.head_size


def _table(config: TransformerConfig) -> np.ndarray:
    """The table of positions that Hugging Face stores: all sines, then all cosines."""
    frequencies = 10000.0 ** (-np.arange(0, config.head_size, 2) / config.head_size)
    angles = np.arange(_table_shape(config)[0])[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles[:, : config.head_size // 2])], axis=1).astype("float32")


HF_NAMING = Naming(
    rows=(
        *renamed(hf_bert.NAMING.rows, {"bert.embeddings.position_embeddings": None, "bert.": "roformer."}),
        *hf_bert.dense("Embedding-Mapping", "roformer.embeddings_project"),
    ),
    old_names=(
        *hf_bert.NAMING.old_names[:-1],
        (r"^(embeddings|embeddings_project|encoder|pooler)\.", r"roformer.\1."),  # RoFormerModel saved alone
    ),
    ignorable=hf_bert.NAMING.ignorable,
    duplicates=(
        Duplicate("cls.predictions.decoder.weight", "roformer.embeddings.word_embeddings.weight"),
        Duplicate("cls.predictions.decoder.bias", "cls.predictions.bias", written=True),
    ),
    constants=(Constant("roformer.encoder.embed_positions.weight", _table_shape, _table),),
)

HF_DIALECT = replace(
    hf_bert.DIALECT,
    name="Hugging Face RoFormer",
    keys=(*hf_bert.DIALECT.keys, Key("embedding_size", "embedding_size", None)),
    # The last three are keys of the `roformer` package, from which these models came to Hugging Face.
    only=huggingface.ONLY
    | WITH_BIASES
    | {
        "tie_word_embeddings": (True,),
        "is_decoder": (False, True),
        "rotary_value": (False,),
        "norm_type": ("layer_norm",),
        "pooler_activation": ("tanh",),
    },
    constants={"model_type": "roformer"},
)


def _architecture(names: Collection[str]) -> tuple[str, str]:
    if any(name.startswith("cls.predictions") for name in names):
        return "RoFormerForMaskedLM", ""
    return "RoFormerModel", "roformer."


HF_RELEASE = Release(
    name="hf_roformer",
    title="Hugging Face RoFormer",
    family="roformer",
    formats=("safetensors", "torch", "memory"),
    signature="roformer.embeddings.LayerNorm.weight",
    naming=HF_NAMING,
    config_files=("config.json",),
    dialects=(HF_DIALECT,),
    writes="huggingface",
    architecture=_architecture,
)
