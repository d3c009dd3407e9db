"""GAU-alpha (ZhuiyiTechnology, 2022): BERT's names for the embeddings, its own for the gated attention units.

Hugging Face has no such model: the same layout of files, under its own model_type.
"""

from __future__ import annotations

from dataclasses import replace

from tfloader.naming import huggingface, roformer, roformer_v2
from tfloader.naming.base import Naming, row
from tfloader.naming.dialect import Key, revised
from tfloader.naming.release import TENSORFLOW, TF_OPTIMIZER_SLOTS, Release

UNIT, BLOCK = "Transformer-{layer}-GatedAttentionUnit", "GAU_alpha/encoder/layer_{layer}/gau"

NAMING = Naming(
    rows=(
        row("Embedding-Token/embeddings", "bert/embeddings/word_embeddings"),
        row("Embedding-Segment/embeddings", "bert/embeddings/token_type_embeddings", part="segments"),
        row(f"{UNIT}/i_dense/kernel", f"{BLOCK}/i_dense/kernel"),
        row(f"{UNIT}/o_dense/kernel", f"{BLOCK}/o_dense/kernel"),
        row(f"{UNIT}/q_gamma", f"{BLOCK}/q_scaleoffset/gamma"),
        row(f"{UNIT}/k_gamma", f"{BLOCK}/k_scaleoffset/gamma"),
    ),
    ignorable=TF_OPTIMIZER_SLOTS,
)

DIALECT = replace(
    roformer_v2.DIALECT,
    name="GAU-alpha",
    keys=revised(roformer.KEYS, Key("attention_head_size", "attention_key_size"), without=("embedding_size",)),
    only=roformer_v2.DIALECT.only | {"normalization": ("softmax_plus",)},
    constants={"model_type": "gau_alpha"},
)
HF_DIALECT = replace(DIALECT, name="GAU-alpha in Hugging Face layout", harmless=huggingface.HARMLESS)

RELEASE = Release(
    name="gau_alpha",
    title="GAU-alpha (TensorFlow checkpoint)",
    family="gau_alpha",
    **TENSORFLOW,
    signature="GAU_alpha/encoder/layer_0/gau/i_dense/kernel",
    naming=NAMING,
    config_files=("bert_config.json", "*config*.json"),
    dialects=(DIALECT,),
)
DOTTED = {"bert/": "gau_alpha/", "GAU_alpha/encoder/layer_": "gau_alpha/encoder/layer/"}
HF_RELEASE = huggingface.folder_twin(RELEASE, DOTTED, HF_DIALECT)
