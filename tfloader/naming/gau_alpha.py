"""GAU-alpha (ZhuiyiTechnology, 2022): BERT's names for the embeddings, its own for the gated attention units.

Hugging Face has no such model: the same layout of files, under its own model_type.
"""

from __future__ import annotations

from dataclasses import replace

from tfloader.config import Key
from tfloader.naming import huggingface, roformer, roformer_v2
from tfloader.naming.base import TF_OPTIMIZER_SLOTS, Naming, Release, row

UNIT = "Transformer-{layer}-GatedAttentionUnit"


def _rows(embeddings: str, unit: str, separator: str) -> tuple:
    """The table under the published names, and under the dotted ones of our Hugging Face layout."""
    return (
        row("Embedding-Token/embeddings", f"{embeddings}{separator}word_embeddings"),
        row("Embedding-Segment/embeddings", f"{embeddings}{separator}token_type_embeddings", part="segments"),
        row(f"{UNIT}/i_dense/kernel", separator.join((unit, "i_dense", "kernel"))),
        row(f"{UNIT}/o_dense/kernel", separator.join((unit, "o_dense", "kernel"))),
        row(f"{UNIT}/q_gamma", separator.join((unit, "q_scaleoffset", "gamma"))),
        row(f"{UNIT}/k_gamma", separator.join((unit, "k_scaleoffset", "gamma"))),
    )


KEYS = (
    *(key for key in roformer.KEYS if key.ours != "embedding_size"),
    Key("attention_head_size", "attention_key_size"),
)

DIALECT = replace(
    roformer_v2.DIALECT,
    name="GAU-alpha",
    keys=KEYS,
    only=roformer_v2.DIALECT.only | {"normalization": ("softmax_plus",)},
    constants={"model_type": "gau_alpha"},
)

RELEASE = Release(
    name="gau_alpha",
    title="GAU-alpha (TensorFlow checkpoint)",
    family="gau_alpha",
    formats=("tensorflow", "memory"),
    signature="GAU_alpha/encoder/layer_0/gau/i_dense/kernel",
    naming=Naming(_rows("bert/embeddings", "GAU_alpha/encoder/layer_{layer}/gau", "/"), ignorable=TF_OPTIMIZER_SLOTS),
    config_files=("bert_config.json", "*config*.json"),
    dialects=(DIALECT,),
    writes="tensorflow",
    written_config="bert_config.json",
)

HF_RELEASE = replace(
    RELEASE,
    name="hf_gau_alpha",
    title="GAU-alpha (Hugging Face layout)",
    formats=("safetensors", "torch", "memory"),
    signature="gau_alpha.encoder.layer.0.gau.i_dense.kernel",
    naming=Naming(_rows("gau_alpha.embeddings", "gau_alpha.encoder.layer.{layer}.gau", ".")),
    config_files=("config.json",),
    dialects=(replace(DIALECT, name="GAU-alpha in Hugging Face layout", harmless=huggingface.HARMLESS),),
    writes="huggingface",
    written_config="config.json",
)
