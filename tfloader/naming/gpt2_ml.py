"""GPT2_ML, the Chinese 1.5B model (imcaspar/gpt2-ml, 2019), which has the layout of GROVER, not of GPT-2.

"gelu" is the exact (erf) form and the epsilon 1e-5. There are two vocabularies; neither has a padding id.
"""

from __future__ import annotations

from dataclasses import replace

from tfloader.naming import huggingface
from tfloader.naming.base import ATTENTION, FEED_FORWARD, TF, Naming, row
from tfloader.naming.dialect import Dialect, Key, revised
from tfloader.naming.google_bert import GOOGLE_HARMLESS, SIZES
from tfloader.naming.release import NOTHING_AROUND, TENSORFLOW, TF_OPTIMIZER_SLOTS, Release

BLOCK = "newslm/layer{layer:02d}"
dense, norm = TF.dense, TF.norm

NAMING = Naming(
    rows=(
        row("Embedding-Token/embeddings", "newslm/embeddings/word_embed"),
        row("Embedding-Position/embeddings", "newslm/embeddings/pos_embed"),
        *norm("Embedding-Norm", "newslm/embeddings/LayerNorm_embed_norm"),
        *dense(f"{ATTENTION}/query", f"{BLOCK}/query_layer"),
        *dense(f"{ATTENTION}/key", f"{BLOCK}/key_layer"),
        *dense(f"{ATTENTION}/value", f"{BLOCK}/value_layer"),
        *dense(f"{ATTENTION}/output_dense", f"{BLOCK}/context_projection_layer"),
        *norm(f"{FEED_FORWARD}-Norm-0", f"{BLOCK}/LayerNorm_mlp_ln0"),
        *dense(f"{FEED_FORWARD}/intermediate", f"{BLOCK}/intermediate"),
        *dense(f"{FEED_FORWARD}/output_dense", f"{BLOCK}/output"),
        *norm(f"{FEED_FORWARD}-Norm-1", f"{BLOCK}/LayerNorm_mlp_ln1"),
    ),
    ignorable=TF_OPTIMIZER_SLOTS,
)

DIALECT = Dialect(
    name="GPT2_ML",
    keys=(
        *SIZES,
        huggingface.EXACT_GELU,
        Key("max_position_embeddings", "max_position_embeddings", 1024, aliases=("max_position",)),
    ),
    fixed={"layer_norm_eps": 1e-5, "application": "lm", "pad_token_id": None},
    harmless=GOOGLE_HARMLESS,
)
HF_DIALECT = replace(
    DIALECT,
    name="GPT2_ML in Hugging Face layout",
    keys=revised(DIALECT.keys, Key("hidden_act", "hidden_act", values=huggingface.ACTIVATIONS)),
    only=huggingface.ONLY,
    harmless=huggingface.HARMLESS,
    constants={"model_type": "gpt2_ml"},
)

RELEASE = Release(
    name="gpt2_ml",
    title="GPT2_ML (TensorFlow checkpoint)",
    family="gpt2_ml",
    **TENSORFLOW,
    signature="newslm/embeddings/word_embed",
    naming=NAMING,
    config_files=("*config*.json", "mega.json", "base.json", "large.json"),
    dialects=(DIALECT,),
    text_format=NOTHING_AROUND,
)
HF_RELEASE = huggingface.folder_twin(RELEASE, {BLOCK: "newslm/layer/{layer}"}, HF_DIALECT)
