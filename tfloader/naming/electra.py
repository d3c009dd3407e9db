"""ELECTRA as Google published it (google-research/electra, 2020), HFL and CLUE in the same form, and in Hugging Face
folders. Discriminator and generator are models of one type; their heads tell them apart.

A TensorFlow checkpoint holds both, with the embeddings in common: two releases, each of which takes the other one's
tensors for what is not of the model. Google's files come without a config; HFL's is Hugging Face's, CLUE's is as
BERT's. "gelu" is the exact (erf) form, the epsilon 1e-12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tfloader.naming import google_bert, hf_bert, huggingface
from tfloader.naming.base import TF, TORCH, Naming, Row, renamed
from tfloader.naming.dialect import revised, same
from tfloader.naming.heads import DENSE_ROWS, PART, HeadKeys
from tfloader.naming.release import TENSORFLOW, Release

HF_MAPPING = TORCH.dense("Embedding-Mapping", "electra.embeddings_project")
HF_NAMING = hf_bert.naming_of(
    "electra.",
    {"bert.pooler.": None, "cls.": None},
    (
        *HF_MAPPING,
        *TORCH.dense("Discriminator-Dense", "discriminator_predictions.dense", "discriminator"),
        *TORCH.dense("Discriminator-Prediction", "discriminator_predictions.dense_prediction", "discriminator"),
        *DENSE_ROWS,
        *TORCH.dense("Choice-Dense", "sequence_summary.summary", PART),
    ),
)
HF_GENERATOR_NAMES = {
    "bert.pooler.": None,
    "classifier.": None,
    "qa_outputs.": None,
    "cls.seq_relationship.": None,
    "cls.predictions.decoder.bias": None,
    "cls.predictions.decoder.": "generator_lm_head.",
    "cls.predictions.transform.": "generator_predictions.",
    "cls.predictions.": "generator_lm_head.",
}
HF_GENERATOR_NAMING = hf_bert.naming_of("electra.", HF_GENERATOR_NAMES, HF_MAPPING)


HF_DIALECT = replace(
    hf_bert.DIALECT,
    name="Hugging Face ELECTRA",
    keys=(*hf_bert.DIALECT.keys, *same(embedding_size=128)),
    harmless=(*hf_bert.DIALECT.harmless, "summary_last_dropout"),
    constants={"model_type": "electra"},
    heads=HeadKeys("Electra"),
    finish_write=google_bert.write_embedding_size,
)
HF_GENERATOR_DIALECT = replace(
    HF_DIALECT, name="Hugging Face ELECTRA generator", keys=revised(HF_DIALECT.keys, huggingface.EXACT_GELU)
)

HEAD = {
    "cls/predictions/transform/": "generator_predictions/",
    "cls/predictions/output_bias": "generator_predictions/output_bias",
}


def _rows(scope: str, head: Mapping[str, str]) -> tuple[Row, ...]:
    """BERT's rows as they are named in a scope, with those of its heads that stand in `head`."""
    body = {"bert/embeddings/": "electra/embeddings/", "bert/encoder/": f"{scope}/encoder/"}
    return (
        *renamed(google_bert.NAMING.rows, {**body, **head, "bert/pooler/": None, "cls/": None}),
        *TF.dense("Embedding-Mapping", f"{scope}/embeddings_project"),
    )


NAMING = Naming(
    rows=(
        *_rows("electra", head={}),
        *TF.dense("Discriminator-Dense", "discriminator_predictions/dense", "discriminator"),
        *TF.dense("Discriminator-Prediction", "discriminator_predictions/dense_1", "discriminator"),
    ),
    ignorable=(*google_bert.NAMING.ignorable, "^generator(_predictions)?/"),
)

GENERATOR_NAMING = Naming(
    rows=_rows("generator", HEAD),
    ignorable=(*google_bert.NAMING.ignorable, "^(electra/(encoder|embeddings_project)|discriminator_predictions)/"),
)

DIALECT = replace(
    google_bert.DIALECT,
    name="ELECTRA",
    keys=(*revised(google_bert.DIALECT.keys, huggingface.EXACT_GELU), *same(embedding_size=None)),
    finish_write=google_bert.write_embedding_size,
)

RELEASE = Release(
    name="google_electra",
    title="Google ELECTRA (TensorFlow checkpoint)",
    family="electra",
    **TENSORFLOW,
    signature="electra/encoder/layer_0/attention/self/query/kernel",
    naming=NAMING,
    config_files=("*discriminator*.json", "electra_config.json", "*config*.json"),
    dialects=(DIALECT, HF_DIALECT),
)

GENERATOR_RELEASE = replace(
    RELEASE,
    name="google_electra_generator",
    title="Google ELECTRA generator (TensorFlow checkpoint)",
    family="electra_generator",
    signature="generator/encoder/layer_0/attention/self/query/kernel",
    gives_way_to="google_electra",
    naming=GENERATOR_NAMING,
    dialects=(DIALECT, HF_GENERATOR_DIALECT),
    config_files=("*generator*.json", "electra_config.json", "*config*.json"),
)

HF_RELEASE = Release(
    name="hf_electra",
    title="Hugging Face ELECTRA",
    family="electra",
    signature="electra.embeddings.word_embeddings.weight",
    lacks=("electra.pooler.dense.weight", "generator_predictions.dense.weight"),
    naming=HF_NAMING,
    dialects=(HF_DIALECT,),
    architectures={"discriminator": "ElectraForPreTraining", "mlm": "ElectraForMaskedLM", None: "ElectraModel"},
    body="electra.",
    **huggingface.FOLDER,
)
HF_GENERATOR_RELEASE = replace(
    HF_RELEASE,
    name="hf_electra_generator",
    title="Hugging Face ELECTRA generator",
    family="electra_generator",
    signature="generator_predictions.dense.weight",
    lacks=(),
    naming=HF_GENERATOR_NAMING,
    dialects=(HF_GENERATOR_DIALECT,),
)
