"""ALBERT in Hugging Face folders: config.json beside safetensors or pytorch_model.bin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tfloader.config import LIMITS, TransformerConfig
from tfloader.errors import ConfigError
from tfloader.naming import hf_bert, huggingface
from tfloader.naming.base import TORCH, Row
from tfloader.naming.dialect import same
from tfloader.naming.release import Release

BLOCK = "albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}"
# Where ALBERT has what BERT has.
NAMES = {
    f"{hf_bert.BLOCK}.attention.self.": f"{BLOCK}.attention.",
    f"{hf_bert.BLOCK}.attention.output.": f"{BLOCK}.attention.",
    f"{hf_bert.BLOCK}.intermediate.dense.": f"{BLOCK}.ffn.",
    f"{hf_bert.BLOCK}.output.dense.": f"{BLOCK}.ffn_output.",
    f"{hf_bert.BLOCK}.output.LayerNorm.": f"{BLOCK}.full_layer_layer_norm.",
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


MAPPING = TORCH.dense("Embedding-Mapping", "albert.encoder.embedding_hidden_mapping_in")
KIN = hf_bert.naming_of("albert.", NAMES, MAPPING)
NAMING = replace(KIN, rows=shared(KIN.rows))

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
