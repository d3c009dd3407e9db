"""NEZHA as Huawei published it (2019), and NEZHA-GEN (2020): TensorFlow checkpoints under Google BERT's names, and
Hugging Face folders, which transformers read up to version 4.

NEZHA has no table of positions, and "gelu" is the tanh approximation, as with Google. NEZHA-GEN, a causal language
model, has one, but none of segments; there "gelu" is the exact form. Huawei's files for PyTorch have BERT's names and
`"use_relative_position": true`.
"""

from __future__ import annotations

from dataclasses import replace

from tfloader.naming import google_bert, hf_bert
from tfloader.naming.base import renamed
from tfloader.naming.dialect import Dialect, Key, revised, same
from tfloader.naming.google_bert import POSITION_TABLE, SEGMENT_TABLE
from tfloader.naming.heads import HeadKeys

HF_KIN = hf_bert.naming_of("nezha.", {hf_bert.POSITION_TABLE: None})
HF_NAMING = replace(
    HF_KIN,
    old_names=(*HF_KIN.old_names, (r"^bert\.", "nezha.")),
    ignorable=(*HF_KIN.ignorable, r"\.relative_positions_encoding\.positions_encoding$"),
)

HF_DIALECT = replace(
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
    heads=HeadKeys("Nezha"),
)

NSP = "cls/seq_relationship/"

DIALECT = Dialect(
    name="NEZHA",
    keys=(
        *google_bert.SIZES,
        google_bert.ACTIVATION,
        google_bert.SEGMENTS,
        Key("relative_attention_max_distance", "max_relative_position", 64),
        *same(layer_norm_eps=1e-12, mlm_norm_eps=None),
    ),
    fixed={"pad_token_id": 0},
    only={"use_relative_position": (True,), "directionality": ("bidi",)},
    harmless=(*google_bert.GOOGLE_HARMLESS, "max_position_embeddings|max_position"),
    constants={"use_relative_position": True},
)

RELEASE = replace(
    google_bert.RELEASE,
    name="google_nezha",
    title="NEZHA (TensorFlow checkpoint)",
    family="nezha",
    signature="bert/embeddings/LayerNorm/gamma",
    lacks=(POSITION_TABLE, "bert/encoder/embedding_hidden_mapping_in/kernel"),
    naming=replace(google_bert.NAMING, rows=renamed(google_bert.NAMING.rows, {POSITION_TABLE: None})),
    dialects=(DIALECT, HF_DIALECT),
)

GEN_DIALECT = replace(
    google_bert.DIALECT,
    name="NEZHA-GEN",
    keys=(
        *google_bert.SIZES,
        Key("hidden_act", "hidden_act", values=google_bert.ACTIVATIONS | {"gelu": "gelu"}),
        google_bert.POSITIONS,
    ),
    fixed={**google_bert.DIALECT.fixed, "application": "lm", "type_vocab_size": 0},
    harmless=(*google_bert.GOOGLE_HARMLESS, "type_vocab_size|segment_vocab_size"),
    constants={"model_type": "nezha_gen"},
    finish_write=None,
)

GEN_RELEASE = replace(
    google_bert.RELEASE,
    name="nezha_gen",
    title="NEZHA-GEN (TensorFlow checkpoint)",
    # Its config is BERT's: these alone tell it from a BERT that has lost its table of segments.
    signature=(POSITION_TABLE, "cls/predictions/output_bias"),
    lacks=(SEGMENT_TABLE, f"{NSP}output_weights"),
    naming=replace(google_bert.NAMING, rows=renamed(google_bert.NAMING.rows, {SEGMENT_TABLE: None, NSP: None})),
    config_files=("*config*.json",),
    dialects=(GEN_DIALECT,),
    model_types=("nezha_gen",),
)

HF_RELEASE = replace(
    hf_bert.RELEASE,
    name="hf_nezha",
    title="Hugging Face NEZHA",
    family="nezha",
    signature="nezha.embeddings.LayerNorm.weight",
    lacks=("nezha.embeddings.position_embeddings.weight",),
    naming=HF_NAMING,
    config_files=("config.json", "bert_config.json"),
    dialects=(HF_DIALECT,),
    architectures={"nsp": "NezhaForPreTraining", "mlm": "NezhaForMaskedLM", None: "NezhaModel"},
    body="nezha.",
)
