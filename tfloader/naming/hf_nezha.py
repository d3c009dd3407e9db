"""NEZHA in Hugging Face folders, which transformers read up to version 4, and as Huawei published it for PyTorch.

Huawei's files have BERT's names and `"use_relative_position": true`.
"""

from __future__ import annotations

from dataclasses import replace

from tfloader.naming import hf_bert
from tfloader.naming.dialect import Key, revised

KIN = hf_bert.naming_of("nezha.", {hf_bert.POSITION_TABLE: None})
NAMING = replace(
    KIN,
    old_names=(*KIN.old_names, (r"^bert\.", "nezha.")),
    ignorable=(*KIN.ignorable, r"\.relative_positions_encoding\.positions_encoding$"),
)

DIALECT = replace(
    hf_bert.DIALECT,
    name="Hugging Face NEZHA",
    keys=revised(
        hf_bert.DIALECT.keys,
        Key("relative_attention_max_distance", "max_relative_position", 64),
        without=("max_position_embeddings",),
    ),
    only={
        **{key: values for key, values in hf_bert.DIALECT.only.items() if key != "position_embedding_type"},
        "use_relative_position": (True,),
    },
    # As long as its own code can read; distances have no end.
    harmless=(*hf_bert.DIALECT.harmless, "max_position_embeddings"),
    constants={"model_type": "nezha"},
)

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
    architectures={"nsp": "NezhaForPreTraining", "mlm": "NezhaForMaskedLM", None: "NezhaModel"},
    body="nezha.",
)
