"""NEZHA in Hugging Face folders, which transformers read up to version 4, and as Huawei published it for PyTorch.

Huawei's files have BERT's names and `"use_relative_position": true`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tfloader.config import Key
from tfloader.naming import hf_bert
from tfloader.naming.base import Naming, renamed

BERT, NEZHA = "bert.", "nezha."
NAMING = Naming(
    rows=renamed(hf_bert.NAMING.rows, {"bert.embeddings.position_embeddings": None, BERT: NEZHA}),
    old_names=(*hf_bert.NAMING.old_names, (r"^bert\.", NEZHA)),
    ignorable=(*hf_bert.NAMING.ignorable, r"\.relative_positions_encoding\.positions_encoding$"),
    duplicates=tuple(replace(copy, of=copy.of.replace(BERT, NEZHA)) for copy in hf_bert.NAMING.duplicates),
)

DIALECT = replace(
    hf_bert.DIALECT,
    name="Hugging Face NEZHA",
    keys=(
        *(key for key in hf_bert.DIALECT.keys if key.ours != "max_position_embeddings"),
        Key("relative_attention_max_distance", "max_relative_position", 64),
    ),
    only={
        **{key: values for key, values in hf_bert.DIALECT.only.items() if key != "position_embedding_type"},
        "use_relative_position": (True,),
    },
    # As long as its own code can read; distances have no end.
    harmless=(*hf_bert.DIALECT.harmless, "max_position_embeddings"),
    constants={"model_type": "nezha"},
)


def _architecture(names: Collection[str]) -> tuple[str, str]:
    architecture, prefix = hf_bert.RELEASE.architecture(names)
    return architecture.replace("Bert", "Nezha"), prefix.replace(BERT, NEZHA)


RELEASE = replace(
    hf_bert.RELEASE,
    name="hf_nezha",
    title="Hugging Face NEZHA",
    family="nezha",
    signature="nezha.embeddings.word_embeddings.weight",
    lacks=("nezha.embeddings.position_embeddings.weight",),
    naming=NAMING,
    config_files=("config.json", "bert_config.json"),
    dialects=(DIALECT,),
    architecture=_architecture,
)
