"""BERT in Hugging Face folders: config.json beside safetensors, pytorch_model.bin or tf_model.h5.

"gelu" here is the exact (erf) form; the epsilon stands in the config.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from tfloader.naming import huggingface
from tfloader.naming.base import ATTENTION, FEED_FORWARD, TORCH, Duplicate, Naming, Row, renamed, row, with_prefix
from tfloader.naming.constants import positions
from tfloader.naming.dialect import Dialect, Key, same
from tfloader.naming.heads import ROWS, HeadKeys
from tfloader.naming.release import Release

BLOCK = "bert.encoder.layer.{layer}"
POSITION_TABLE = "bert.embeddings.position_embeddings.weight"
dense, norm = TORCH.dense, TORCH.norm

NAMING = Naming(
    rows=(
        row("Embedding-Token/embeddings", "bert.embeddings.word_embeddings.weight"),
        row("Embedding-Position/embeddings", POSITION_TABLE),
        row("Embedding-Segment/embeddings", "bert.embeddings.token_type_embeddings.weight", part="segments"),
        *norm("Embedding-Norm", "bert.embeddings.LayerNorm"),
        *dense(f"{ATTENTION}/query", f"{BLOCK}.attention.self.query"),
        *dense(f"{ATTENTION}/key", f"{BLOCK}.attention.self.key"),
        *dense(f"{ATTENTION}/value", f"{BLOCK}.attention.self.value"),
        *dense(f"{ATTENTION}/output_dense", f"{BLOCK}.attention.output.dense"),
        *norm(f"{ATTENTION}-Norm", f"{BLOCK}.attention.output.LayerNorm"),
        *dense(f"{FEED_FORWARD}/intermediate", f"{BLOCK}.intermediate.dense"),
        *dense(f"{FEED_FORWARD}/output_dense", f"{BLOCK}.output.dense"),
        *norm(f"{FEED_FORWARD}-Norm", f"{BLOCK}.output.LayerNorm"),
        *dense("Pooler-Dense", "bert.pooler.dense", "pooler"),
        *dense("NSP-Proba", "cls.seq_relationship", "nsp"),
        *dense("MLM-Dense", "cls.predictions.transform.dense", "mlm"),
        *norm("MLM-Norm", "cls.predictions.transform.LayerNorm", "mlm"),
        row("MLM-Bias/bias", "cls.predictions.bias", part="mlm"),
        *ROWS,
    ),
    old_names=huggingface.old_names("bert."),
    ignorable=(r"(^|\.)embeddings\.token_type_ids$",),
    buffers=(positions(r"(^|\.)embeddings\.position_ids$"),),
    duplicates=(
        Duplicate("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        Duplicate("cls.predictions.decoder.bias", "cls.predictions.bias", written=True),
    ),
)


def naming_of(body: str, names: Mapping[str, str | None], more: Iterable[Row] = ()) -> Naming:
    """BERT's table for one of its kin: what the names of its body begin with, its other names, and its further rows."""
    names = {**names, "bert.": body}
    copies = ((copy, *(with_prefix(name, names) for name in (copy.theirs, copy.of))) for copy in NAMING.duplicates)
    return replace(
        NAMING,
        rows=(*renamed(NAMING.rows, names), *more),
        old_names=huggingface.old_names(body),
        duplicates=tuple(replace(copy, theirs=theirs, of=of) for copy, theirs, of in copies if theirs and of),
    )


DIALECT = Dialect(
    name="Hugging Face BERT",
    keys=(
        *same("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        Key("hidden_act", "hidden_act", values=huggingface.ACTIVATIONS),
        *same("max_position_embeddings", type_vocab_size=2, layer_norm_eps=1e-12, hidden_dropout_prob=0.1),
        *same(attention_probs_dropout_prob=0.1, initializer_range=0.02, pad_token_id=0, eos_token_id=None),
        Key("application", "is_decoder", "encoder", values={False: "encoder", True: "lm"}),  # a decoder is causal
    ),
    only={**huggingface.ONLY, "position_embedding_type": ("absolute",), "tie_word_embeddings": (True,)},
    harmless=huggingface.HARMLESS,
    constants={"model_type": "bert"},
    notes={"application": "encoder", "mlm_norm_eps": None},
    heads=HeadKeys("Bert"),
)

RELEASE = Release(
    name="hf_bert",
    title="Hugging Face BERT",
    family="bert",
    signature=POSITION_TABLE,
    naming=NAMING,
    dialects=(DIALECT,),
    architectures={"nsp": "BertForPreTraining", "mlm": "BertForMaskedLM", None: "BertModel"},
    body="bert.",
    **huggingface.FOLDER,
)
H5_RELEASE = huggingface.h5_twin(RELEASE)
