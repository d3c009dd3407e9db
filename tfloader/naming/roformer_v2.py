"""RoFormerV2 (Su et al., 2022): RoFormer's tables without biases and norms, of which it has none with weights.

The `roformer` package on PyTorch keeps it in folders like Hugging Face's, marked by `"norm_type": "rms_norm"`;
transformers itself has no such model, and would compute something else from them.
"""

from __future__ import annotations

from dataclasses import replace

from tfloader.naming import roformer
from tfloader.naming.base import Duplicate, Naming

WITHOUT_BIASES = {"use_bias": (False, 0)}


def _bare(naming: Naming) -> tuple:
    """The rows of the embeddings and of the blocks' kernels."""
    return tuple(
        item
        for item in naming.rows
        if item.part in (None, "segments") and item.ours[0].endswith(("/embeddings", "/kernel"))
    )


DIALECT = replace(
    roformer.DIALECT,
    name="RoFormerV2",
    keys=roformer.KEYS,
    only=roformer.DIALECT.only | WITHOUT_BIASES,
    constants={"model_type": "roformer_v2"},
)

RELEASE = replace(
    roformer.RELEASE,
    name="roformer_v2",
    title="RoFormerV2 (TensorFlow checkpoint)",
    family="roformer_v2",
    signature="bert/encoder/layer_0/attention/self/query/kernel",
    lacks=("bert/embeddings/LayerNorm/gamma",),
    naming=replace(roformer.RELEASE.naming, rows=_bare(roformer.RELEASE.naming)),
    dialects=(DIALECT,),
)

HF_DIALECT = replace(
    roformer.HF_DIALECT,
    name="RoFormerV2 of the roformer package",
    only=roformer.HF_DIALECT.only | WITHOUT_BIASES | {"norm_type": ("rms_norm",)},
    fixed={"model_type": "roformer_v2"},
    constants={"model_type": "roformer", "norm_type": "rms_norm", "use_bias": False},
)

HF_RELEASE = replace(
    roformer.HF_RELEASE,
    name="hf_roformer_v2",
    title="RoFormerV2 (Hugging Face layout)",
    family="roformer_v2",
    signature="roformer.embeddings.word_embeddings.weight",
    lacks=("roformer.embeddings.LayerNorm.weight",),
    naming=replace(
        roformer.HF_NAMING,
        rows=_bare(roformer.HF_NAMING),
        duplicates=(Duplicate("cls.predictions.decoder.weight", "roformer.embeddings.word_embeddings.weight"),),
    ),
    dialects=(HF_DIALECT,),
    architectures={},
)
