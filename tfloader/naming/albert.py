"""ALBERT as Google published it (google-research/albert, 2019), and brightmart, and in Hugging Face folders.

To Google "gelu" is the tanh approximation and every LayerNorm has epsilon 1e-12, as with its BERT.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tfloader.config import LIMITS, TransformerConfig
from tfloader.errors import ConfigError
from tfloader.naming import google_bert, hf_bert, huggingface
from tfloader.naming.base import TF, TORCH, Naming, Row, renamed
from tfloader.naming.dialect import revised, same
from tfloader.naming.heads import HeadKeys
from tfloader.naming.release import TENSORFLOW, Release

HF_BLOCK = "albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}"
# Where ALBERT has what BERT has.
HF_NAMES = {
    f"{hf_bert.BLOCK}.attention.self.": f"{HF_BLOCK}.attention.",
    f"{hf_bert.BLOCK}.attention.output.": f"{HF_BLOCK}.attention.",
    f"{hf_bert.BLOCK}.intermediate.dense.": f"{HF_BLOCK}.ffn.",
    f"{hf_bert.BLOCK}.output.dense.": f"{HF_BLOCK}.ffn_output.",
    f"{hf_bert.BLOCK}.output.LayerNorm.": f"{HF_BLOCK}.full_layer_layer_norm.",
    "bert.pooler.dense.": "albert.pooler.",
    "cls.seq_relationship.": "sop_classifier.classifier.",
    "cls.predictions.transform.": "predictions.",
    "cls.predictions.": "predictions.",
}


def shared(rows: Iterable[Row]) -> tuple[Row, ...]:
    """BERT's rows for blocks that share their layers (see `counts`)."""
    return tuple(
        replace(item, ours=tuple(path.replace("Transformer-{layer}", "{block}") for path in item.ours)) for item in rows
    )


HF_KIN = hf_bert.naming_of(
    "albert.", HF_NAMES, TORCH.dense("Embedding-Mapping", "albert.encoder.embedding_hidden_mapping_in")
)
HF_NAMING = replace(HF_KIN, rows=shared(HF_KIN.rows))

# Of a file that says nothing of it, all layers are the same block.
SHARING = same(num_hidden_groups=1, inner_group_num=1)
# Keys that neither Google's code nor Hugging Face's has a use for, with the values that they always have.
UNUSED = {
    "net_structure_type": (0,),
    "gap_size": (0,),
    "num_memory_blocks": (0,),
    "down_scale_factor": (1,),
    "layers_to_keep": ([],),
}


def check_groups(fields: dict[str, Any], raw: Mapping[str, Any], tensors: Any) -> None:
    """Google's code and Hugging Face's find a layer's group in floating-point numbers, which can go one astray."""
    layers, groups = fields["num_hidden_layers"], fields["num_hidden_groups"]
    most = LIMITS["num_hidden_layers"]
    if any(not isinstance(number, int) or not 0 < number <= most for number in (layers, groups)):
        return  # no layers, or the config is refused for it
    for layer in range(layers):
        if not int(layer / layers * groups) == int(layer / (layers / groups)) == layer * groups // layers:
            raise ConfigError(f"num_hidden_groups = {groups} is not implemented for {layers} layers.")


def _hf_finish_write(config: TransformerConfig, raw: dict[str, Any]) -> None:
    if config.embedding_size in (None, config.hidden_size):
        raise ConfigError(
            "Hugging Face's ALBERT has a matrix behind the embeddings even where embedding_size equals hidden_size; "
            "this model has none. Save as 'tensorflow'."
        )


HF_DIALECT = replace(
    hf_bert.DIALECT,
    name="Hugging Face ALBERT",
    keys=(*revised(hf_bert.DIALECT.keys, without=("application",)), *same("embedding_size"), *SHARING),
    only={**hf_bert.DIALECT.only, "is_decoder": (False,), **UNUSED},
    constants={"model_type": "albert"},
    heads=HeadKeys("Albert", dropout="classifier_dropout_prob"),
    notes={"application": "encoder"},  # there is no causal ALBERT in Hugging Face's code
    finish_read=check_groups,
    finish_write=_hf_finish_write,
)

BLOCK = "bert/encoder/transformer/group_{group}/inner_group_{inner}"
# Where ALBERT has what BERT has.
NAMES = {
    f"{google_bert.BLOCK}/attention/self/": f"{BLOCK}/attention_1/self/",
    f"{google_bert.BLOCK}/attention/output/dense/": f"{BLOCK}/attention_1/output/dense/",
    f"{google_bert.BLOCK}/attention/output/LayerNorm/": f"{BLOCK}/LayerNorm/",
    f"{google_bert.BLOCK}/intermediate/dense/": f"{BLOCK}/ffn_1/intermediate/dense/",
    f"{google_bert.BLOCK}/output/dense/": f"{BLOCK}/ffn_1/intermediate/output/dense/",
    f"{google_bert.BLOCK}/output/LayerNorm/": f"{BLOCK}/LayerNorm_1/",
}
NAMING = Naming(
    rows=(
        *shared(renamed(google_bert.NAMING.rows, NAMES)),
        *TF.dense("Embedding-Mapping", "bert/encoder/embedding_hidden_mapping_in"),
    ),
    ignorable=google_bert.NAMING.ignorable,
)


def _finish_read(fields: dict[str, Any], raw: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> None:
    """Where a file is silent, Google's code means embeddings of 128, and bert4keras those of hidden_size."""
    check_groups(fields, raw, tensors)
    if fields["embedding_size"] is None:
        names = ("bert/embeddings/word_embeddings", "Embedding-Token/embeddings")
        shape = next((tensors[name] for name in names if name in tensors), ())
        if len(shape) != 2:
            raise ConfigError("the key 'embedding_size' is missing")
        fields["embedding_size"] = shape[1]


DIALECT = replace(
    google_bert.DIALECT,
    name="Google ALBERT",
    keys=(*google_bert.DIALECT.keys, *same(embedding_size=None), *SHARING),
    only={**google_bert.DIALECT.only, **UNUSED},
    finish_read=_finish_read,
    finish_write=google_bert.write_embedding_size,
)

RELEASE = Release(
    name="google_albert",
    title="Google ALBERT (TensorFlow checkpoint)",
    family="albert",
    **TENSORFLOW,
    signature=f"{BLOCK}/attention_1/self/query/kernel".format(group=0, inner=0),
    naming=NAMING,
    config_files=("albert_config.json", "*config*.json"),
    dialects=(DIALECT, HF_DIALECT),
)

HF_RELEASE = Release(
    name="hf_albert",
    title="Hugging Face ALBERT",
    family="albert",
    signature="albert.encoder.embedding_hidden_mapping_in.weight",
    naming=HF_NAMING,
    dialects=(HF_DIALECT,),
    architectures={"nsp": "AlbertForPreTraining", "mlm": "AlbertForMaskedLM", None: "AlbertModel"},
    body="albert.",
    **huggingface.FOLDER,
)
