"""ALBERT as Google published it (google-research/albert, 2019), and brightmart in the same form.

The numbers are those of Google's BERT: "gelu" is the tanh approximation and every LayerNorm has epsilon 1e-12.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfloader.config import TransformerConfig
from tfloader.errors import ConfigError
from tfloader.naming import google_bert
from tfloader.naming.base import TF, Naming, renamed
from tfloader.naming.dialect import Dialect, same
from tfloader.naming.hf_albert import DIALECT as HF_DIALECT
from tfloader.naming.hf_albert import SHARING, UNUSED, check_groups, shared
from tfloader.naming.release import TENSORFLOW, Release

WORDS = "bert/embeddings/word_embeddings"
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
        shape = tensors.get(WORDS, ())
        if len(shape) != 2:
            raise ConfigError("the key 'embedding_size' is missing")
        fields["embedding_size"] = shape[1]


def _finish_write(config: TransformerConfig, raw: dict[str, Any]) -> None:
    raw["embedding_size"] = config.embedding_size or config.hidden_size


DIALECT = Dialect(
    name="Google ALBERT",
    keys=(*google_bert.DIALECT.keys, *same(embedding_size=None), *SHARING),
    fixed=google_bert.DIALECT.fixed,
    only={**google_bert.DIALECT.only, **UNUSED},
    harmless=google_bert.DIALECT.harmless,
    finish_read=_finish_read,
    finish_write=_finish_write,
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
    written_config="albert_config.json",
)
