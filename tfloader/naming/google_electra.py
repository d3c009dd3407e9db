"""ELECTRA as Google published it (google-research/electra, 2020), and HFL and CLUE for Chinese in the same form.

A TensorFlow checkpoint holds two models, discriminator and generator, which have the embeddings in common: two
releases, each of which takes the other one's tensors for what is not of the model. Google's files come without a
config; HFL's is Hugging Face's, CLUE's is as BERT's. "gelu" is the exact (erf) form, the epsilon 1e-12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tfloader.naming import google_bert, huggingface
from tfloader.naming.base import TF, Naming, Row, renamed
from tfloader.naming.dialect import Dialect, revised, same
from tfloader.naming.hf_electra import DIALECT as HF_DIALECT
from tfloader.naming.hf_electra import GENERATOR_DIALECT as HF_GENERATOR_DIALECT
from tfloader.naming.hf_electra import write_embedding_size
from tfloader.naming.release import TENSORFLOW, Release

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

DIALECT = Dialect(
    name="ELECTRA",
    keys=(*revised(google_bert.DIALECT.keys, huggingface.EXACT_GELU), *same(embedding_size=None)),
    fixed=google_bert.DIALECT.fixed,
    only=google_bert.DIALECT.only,
    harmless=google_bert.DIALECT.harmless,
    finish_write=write_embedding_size,
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
    written_config="electra_config.json",
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
