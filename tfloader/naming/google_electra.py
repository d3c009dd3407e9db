"""ELECTRA as Google published it (google-research/electra, 2020), and HFL and CLUE for Chinese in the same form.

A TensorFlow checkpoint holds two models, discriminator and generator, which have the embeddings in common: two
releases, each of which takes the other one's tensors for what is not of the model. Google's files come without a
config; HFL's is Hugging Face's, CLUE's is as BERT's. "gelu" is the exact (erf) form, the epsilon 1e-12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tfloader.config import Dialect, Key
from tfloader.naming import google_bert
from tfloader.naming.base import Naming, Release, Row, renamed, row
from tfloader.naming.hf_electra import DIALECT as HF_DIALECT
from tfloader.naming.hf_electra import GENERATOR_DIALECT as HF_GENERATOR_DIALECT
from tfloader.naming.hf_electra import write_embedding_size

HEAD = {
    "cls/predictions/transform/": "generator_predictions/",
    "cls/predictions/output_bias": "generator_predictions/output_bias",
}


def _rows(scope: str, head: Mapping[str, str]) -> tuple[Row, ...]:
    """BERT's rows as they are named in a scope, with those of its heads that stand in `head`."""
    body = {"bert/embeddings/": "electra/embeddings/", "bert/encoder/": f"{scope}/encoder/"}
    return (
        *renamed(google_bert.NAMING.rows, {**body, **head, "bert/pooler/": None, "cls/": None}),
        row("Embedding-Mapping/kernel", f"{scope}/embeddings_project/kernel"),
        row("Embedding-Mapping/bias", f"{scope}/embeddings_project/bias"),
    )


NAMING = Naming(
    rows=(
        *_rows("electra", head={}),
        row("Discriminator-Dense/kernel", "discriminator_predictions/dense/kernel", part="discriminator"),
        row("Discriminator-Dense/bias", "discriminator_predictions/dense/bias", part="discriminator"),
        row("Discriminator-Prediction/kernel", "discriminator_predictions/dense_1/kernel", part="discriminator"),
        row("Discriminator-Prediction/bias", "discriminator_predictions/dense_1/bias", part="discriminator"),
    ),
    ignorable=(*google_bert.NAMING.ignorable, "^generator(_predictions)?/"),
)

GENERATOR_NAMING = Naming(
    rows=_rows("generator", HEAD),
    ignorable=(*google_bert.NAMING.ignorable, "^(electra/(encoder|embeddings_project)|discriminator_predictions)/"),
)

DIALECT = Dialect(
    name="ELECTRA",
    keys=(
        *(key for key in google_bert.DIALECT.keys if key.ours != "hidden_act"),
        Key("hidden_act", "hidden_act", values={"gelu": "gelu"}),
        Key("embedding_size", "embedding_size", None),
    ),
    fixed=google_bert.DIALECT.fixed,
    only=google_bert.DIALECT.only,
    harmless=google_bert.DIALECT.harmless,
    finish_write=write_embedding_size,
)

RELEASE = Release(
    name="google_electra",
    title="Google ELECTRA (TensorFlow checkpoint)",
    family="electra",
    formats=("tensorflow", "memory"),
    signature="electra/encoder/layer_0/attention/self/query/kernel",
    naming=NAMING,
    config_files=("*discriminator*.json", "electra_config.json", "*config*.json"),
    dialects=(DIALECT, HF_DIALECT),
    writes="tensorflow",
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
