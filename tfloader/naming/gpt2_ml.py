"""GPT2_ML, the Chinese 1.5B model (imcaspar/gpt2-ml, 2019), which has the layout of GROVER, not of GPT-2.

"gelu" is the exact (erf) form and the epsilon 1e-5. There are two vocabularies; neither has a padding id.
"""

from __future__ import annotations

from tfloader.config import Dialect, Key
from tfloader.naming import huggingface
from tfloader.naming.base import TF_OPTIMIZER_SLOTS, Naming, Release, row
from tfloader.naming.google_bert import GOOGLE_HARMLESS, SIZES

ATTENTION = "Transformer-{layer}-MultiHeadSelfAttention"
FEED_FORWARD = "Transformer-{layer}-FeedForward"


def _rows(block: str, embeddings: str, separator: str) -> tuple:
    """The table under the published names, and under the dotted ones of our Hugging Face layout."""

    def dense(ours: str, theirs: str) -> tuple:
        name = f"{block}{separator}{theirs}{separator}"
        return row(f"{ours}/kernel", f"{name}kernel"), row(f"{ours}/bias", f"{name}bias")

    def norm(ours: str, theirs: str) -> tuple:
        name = f"{theirs}{separator}"
        return row(f"{ours}/gamma", f"{name}gamma"), row(f"{ours}/beta", f"{name}beta")

    return (
        row("Embedding-Token/embeddings", f"{embeddings}{separator}word_embed"),
        row("Embedding-Position/embeddings", f"{embeddings}{separator}pos_embed"),
        *norm("Embedding-Norm", f"{embeddings}{separator}LayerNorm_embed_norm"),
        *dense(f"{ATTENTION}/query", "query_layer"),
        *dense(f"{ATTENTION}/key", "key_layer"),
        *dense(f"{ATTENTION}/value", "value_layer"),
        *dense(f"{ATTENTION}/output_dense", "context_projection_layer"),
        *norm(f"{FEED_FORWARD}-Norm-0", f"{block}{separator}LayerNorm_mlp_ln0"),
        *dense(f"{FEED_FORWARD}/intermediate", "intermediate"),
        *dense(f"{FEED_FORWARD}/output_dense", "output"),
        *norm(f"{FEED_FORWARD}-Norm-1", f"{block}{separator}LayerNorm_mlp_ln1"),
    )


FIXED = {"layer_norm_eps": 1e-5, "application": "lm", "pad_token_id": None}

DIALECT = Dialect(
    name="GPT2_ML",
    keys=(
        *SIZES,
        # The published code computes the exact gelu, whatever stands here.
        Key("hidden_act", "hidden_act", values={"gelu": "gelu"}),
        Key("max_position_embeddings", "max_position_embeddings", 1024, aliases=("max_position",)),
    ),
    fixed=FIXED,
    harmless=GOOGLE_HARMLESS,
)

RELEASE = Release(
    name="gpt2_ml",
    title="GPT2_ML (TensorFlow checkpoint)",
    family="gpt2_ml",
    formats=("tensorflow", "memory"),
    signature="newslm/embeddings/word_embed",
    naming=Naming(_rows("newslm/layer{layer:02d}", "newslm/embeddings", "/"), ignorable=TF_OPTIMIZER_SLOTS),
    config_files=("*config*.json", "mega.json", "base.json", "large.json"),
    dialects=(DIALECT,),
    writes="tensorflow",
)

# Hugging Face has no such model: the same layout of files, under its own model_type.
HF_RELEASE = Release(
    name="hf_gpt2_ml",
    title="GPT2_ML (Hugging Face layout)",
    family="gpt2_ml",
    formats=("safetensors", "torch", "memory"),
    signature="newslm.embeddings.word_embed",
    naming=Naming(_rows("newslm.layer.{layer}", "newslm.embeddings", ".")),
    config_files=("config.json",),
    dialects=(
        Dialect(
            name="GPT2_ML in Hugging Face layout",
            keys=(
                *(key for key in DIALECT.keys if key.ours != "hidden_act"),
                Key("hidden_act", "hidden_act", values=huggingface.ACTIVATIONS),
            ),
            fixed=FIXED,
            only=huggingface.ONLY,
            harmless=huggingface.HARMLESS,
            constants={"model_type": "gpt2_ml"},
        ),
    ),
    writes="huggingface",
)
