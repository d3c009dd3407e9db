"""ALBERT in Hugging Face folders: config.json beside safetensors or pytorch_model.bin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tfloader.config import LIMITS, TransformerConfig
from tfloader.errors import ConfigError
from tfloader.naming import hf_bert, huggingface
from tfloader.naming.base import Duplicate, Naming, Release, row
from tfloader.naming.dialect import same
from tfloader.naming.rows import TORCH

BLOCK = "albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}"
ATTENTION = "{block}-MultiHeadSelfAttention"
FEED_FORWARD = "{block}-FeedForward"
dense, norm = TORCH.dense, TORCH.norm

NAMING = Naming(
    rows=(
        row("Embedding-Token/embeddings", "albert.embeddings.word_embeddings.weight"),
        row("Embedding-Position/embeddings", "albert.embeddings.position_embeddings.weight"),
        row("Embedding-Segment/embeddings", "albert.embeddings.token_type_embeddings.weight", part="segments"),
        *norm("Embedding-Norm", "albert.embeddings.LayerNorm"),
        *dense("Embedding-Mapping", "albert.encoder.embedding_hidden_mapping_in"),
        *dense(f"{ATTENTION}/query", f"{BLOCK}.attention.query"),
        *dense(f"{ATTENTION}/key", f"{BLOCK}.attention.key"),
        *dense(f"{ATTENTION}/value", f"{BLOCK}.attention.value"),
        *dense(f"{ATTENTION}/output_dense", f"{BLOCK}.attention.dense"),
        *norm(f"{ATTENTION}-Norm", f"{BLOCK}.attention.LayerNorm"),
        *dense(f"{FEED_FORWARD}/intermediate", f"{BLOCK}.ffn"),
        *dense(f"{FEED_FORWARD}/output_dense", f"{BLOCK}.ffn_output"),
        *norm(f"{FEED_FORWARD}-Norm", f"{BLOCK}.full_layer_layer_norm"),
        *dense("Pooler-Dense", "albert.pooler", "pooler"),
        *dense("NSP-Proba", "sop_classifier.classifier", "nsp"),
        *dense("MLM-Dense", "predictions.dense", "mlm"),
        *norm("MLM-Norm", "predictions.LayerNorm", "mlm"),
        row("MLM-Bias/bias", "predictions.bias", part="mlm"),
    ),
    old_names=huggingface.old_names("albert."),
    ignorable=hf_bert.NAMING.ignorable,
    duplicates=(
        Duplicate("predictions.decoder.weight", "albert.embeddings.word_embeddings.weight"),
        Duplicate("predictions.decoder.bias", "predictions.bias", written=True),
    ),
)

MOST_LAYERS = LIMITS["num_hidden_layers"]
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
    if any(not isinstance(number, int) or not 0 < number <= MOST_LAYERS for number in (layers, groups)):
        return  # no layers, or the config is refused for it
    for layer in range(layers):
        if not int(layer / layers * groups) == int(layer / (layers / groups)) == layer * groups // layers:
            raise ConfigError(f"num_hidden_groups = {groups} is not implemented for {layers} layers.")


def _finish_write(config: TransformerConfig, raw: dict[str, Any]) -> None:
    if config.embedding_size in (None, config.hidden_size):
        raise ConfigError(
            "Hugging Face's ALBERT has a matrix behind the embeddings even where embedding_size equals hidden_size; "
            "this model has none. Save as 'tensorflow'."
        )


DIALECT = replace(
    hf_bert.DIALECT,
    name="Hugging Face ALBERT",
    keys=(*hf_bert.DIALECT.keys, *same("embedding_size"), *SHARING),
    only={**hf_bert.DIALECT.only, "is_decoder": (False,), **UNUSED},
    constants={"model_type": "albert"},
    notes={"application": "encoder"},  # there is no causal ALBERT in Hugging Face's code
    finish_read=check_groups,
    finish_write=_finish_write,
)


RELEASE = Release(
    name="hf_albert",
    title="Hugging Face ALBERT",
    family="albert",
    signature="albert.encoder.embedding_hidden_mapping_in.weight",
    naming=NAMING,
    dialects=(DIALECT,),
    architectures={"nsp": "AlbertForPreTraining", "mlm": "AlbertForMaskedLM", None: "AlbertModel"},
    body="albert.",
    **huggingface.FOLDER,
)
