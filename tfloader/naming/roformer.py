"""RoFormer (Su et al., 2021) as ZhuiyiTechnology published it, under BERT's names, and in Hugging Face folders.

The published code is bert4keras': "gelu" is the exact (erf) form, the epsilon 1e-7, in the masked-language-model head
1e-12. RoFormer-Sim is such a checkpoint, with a pooler without activation (`with_pool="linear"`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tfloader.config import TransformerConfig
from tfloader.naming import google_bert, hf_bert, huggingface
from tfloader.naming.base import TF, TORCH, renamed
from tfloader.naming.constants import Constant
from tfloader.naming.dialect import Key, same
from tfloader.naming.heads import DENSE_ROWS, HeadKeys
from tfloader.naming.release import TENSORFLOW, Release

ACTIVATIONS = {"swish": "silu"} | google_bert.ACTIVATIONS | {"gelu": "gelu"}
WITH_BIASES = {"use_bias": (True, 1)}

# What bert4keras' code reads, and what it has fixed.
KEYS = (
    *google_bert.SIZES,
    Key("hidden_act", "hidden_act", values=ACTIVATIONS),
    google_bert.POSITIONS,
    google_bert.SEGMENTS,
    *same(embedding_size=None, layer_norm_eps=1e-7, pad_token_id=0),
)

DIALECT = replace(
    google_bert.DIALECT,
    name="RoFormer",
    keys=(*KEYS, *same(mlm_norm_eps=1e-12)),
    fixed={},
    only=google_bert.DIALECT.only | WITH_BIASES,
    constants={"model_type": "roformer"},
    finish_write=None,
)

RELEASE = Release(
    name="roformer",
    title="RoFormer (TensorFlow checkpoint)",
    family="roformer",
    **TENSORFLOW,
    signature="bert/embeddings/LayerNorm/gamma",
    lacks=(google_bert.POSITION_TABLE,),
    naming=replace(
        google_bert.NAMING,
        rows=(
            *renamed(google_bert.NAMING.rows, {google_bert.POSITION_TABLE: None}),
            *TF.dense("Embedding-Mapping", "bert/encoder/embedding_hidden_mapping_in"),
        ),
    ),
    config_files=google_bert.RELEASE.config_files,
    dialects=(DIALECT,),
)


def _table_shape(config: TransformerConfig) -> tuple[int, int]:
    return config.max_position_embeddings or 0, config.head_size


def _table(config: TransformerConfig) -> np.ndarray:
    """The table of positions that Hugging Face stores: all sines, then all cosines."""
    frequencies = 10000.0 ** (-np.arange(0, config.head_size, 2) / config.head_size)
    angles = np.arange(_table_shape(config)[0])[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles[:, : config.head_size // 2])], axis=1).astype("float32")


HF_NAMING = replace(
    hf_bert.naming_of(
        "roformer.",
        {hf_bert.POSITION_TABLE: None},
        (*TORCH.dense("Embedding-Mapping", "roformer.embeddings_project"), *DENSE_ROWS),
    ),
    constants=(Constant("roformer.encoder.embed_positions.weight", _table_shape, _table),),
)

HF_DIALECT = replace(
    hf_bert.DIALECT,
    name="Hugging Face RoFormer",
    keys=(*hf_bert.DIALECT.keys, *same(embedding_size=None)),
    # The last three are keys of the `roformer` package, from which these models came to Hugging Face.
    only=huggingface.ONLY
    | WITH_BIASES
    | {
        "tie_word_embeddings": (True,),
        "rotary_value": (False,),
        "norm_type": ("layer_norm",),
        "pooler_activation": ("tanh",),
    },
    constants={"model_type": "roformer"},
    heads=HeadKeys("RoFormer"),
)

HF_RELEASE = Release(
    name="hf_roformer",
    title="Hugging Face RoFormer",
    family="roformer",
    signature="roformer.embeddings.LayerNorm.weight",
    naming=HF_NAMING,
    dialects=(HF_DIALECT,),
    architectures={"mlm": "RoFormerForMaskedLM", None: "RoFormerModel"},
    body="roformer.",
    **huggingface.FOLDER,
)
