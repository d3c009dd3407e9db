"""What Keras 2 saved of models of bert4keras (`save_weights`, "best_model.weights") and keras-bert, by layer.

The layers are named as ours are. Which family it is no name says where two have the same layers: then the config or
`model=` must. Keras 3 reads such files by position, and exchanges the norms' beta and gamma.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from tfloader.naming import albert, electra, gau_alpha, google_bert, gpt, gpt2_ml, nezha, roformer, roformer_v2, t5_mesh
from tfloader.naming.base import Naming, row
from tfloader.naming.release import Release

# Our sublayers and weights -> what they are called in `tfloader.checkpoints.keras2`.
NAMES = {
    "/query/": "/dense_0/",
    "/key/": "/dense_1/",
    "/value/": "/dense_2/",
    "/intermediate/": "/dense_0/",
    "/gate/": "/dense_0/",
    "/up/": "/dense_1/",
    "/output_dense/": "/dense_last/",
    "/i_dense/": "/dense_0/",
    "/o_dense/": "/dense_last/",
    "/q_gamma": "/scale_offset_0/gamma",
    "/k_gamma": "/scale_offset_last/gamma",
    "-Norm/scale": "-Norm/gamma",
    # What stands on top of a model.
    "/dense/": "/dense_0/",
    "/p_dense/": "/dense_0/",
    "/q_dense/": "/dense_last/",
    "/transitions": "/trans",
    "/left_factor": "/l_trans",
    "/right_factor": "/r_trans",
}
# A file's names; what is ignorable are NEZHA's sines and cosines.
FILE = Naming(
    (), old_names=((r"^MLM-Bias/beta$", "MLM-Bias/bias"),), ignorable=(r"^Embedding-Relative-Position/embeddings$",)
)
POSITIONS, NORM = "Embedding-Position/embeddings", "Embedding-Norm/gamma"
BLOCK, SHARED_BLOCK = (f"{block}-MultiHeadSelfAttention/dense_0/kernel" for block in ("Transformer-0", "Transformer"))


def keras2_name(path: str) -> str:
    """What a variable of ours is called in `tfloader.checkpoints.keras2`."""
    for ours, theirs in NAMES.items():
        path = path.replace(ours, theirs)
    return path


def twin(
    release: Release,
    has: tuple[str | tuple[str, ...], ...],
    lacks: tuple[str, ...] = (),
    names: Callable[[str], str] = keras2_name,
    without: str = "(?!)",
) -> Release:
    """A release's models as Keras 2 saved them, whose `has` and `lacks` tell them from others'.

    `without`: a pattern of variables that these models do not have.
    """
    ours = [(path, item) for item in release.naming.rows for path in item.ours if not re.search(without, path)]
    rows = (row(path, names(path), None, item.part, item.untied) for path, item in ours)
    return replace(
        release,
        name=f"{release.name}_keras2",
        title=f"bert4keras' {release.family} (weights of Keras 2)",
        formats=("keras2",),
        signature=("Embedding-Token/embeddings", *has),
        lacks=lacks,
        gives_way_to=None,
        naming=replace(FILE, rows=tuple(rows)),
        writes=None,
        architectures={},
    )


# In keras-bert blocks count from 1, kernels are W and biases b, each with a letter or a number.
KERAS_BERT_NAMES = (
    (r"^Transformer-\{layer\}", "Encoder-{number}"),
    (r"Attention/(q|k|v|o)\w+/kernel$", r"Attention/W\1"),
    (r"Attention/(q|k|v|o)\w+/bias$", r"Attention/b\1"),
    (r"/intermediate/kernel$", "/W1"),
    (r"/intermediate/bias$", "/b1"),
    (r"/output_dense/kernel$", "/W2"),
    (r"/output_dense/bias$", "/b2"),
    (r"^Pooler-Dense/", "NSP-Dense/"),
    (r"^NSP-Proba/", "NSP/"),
    (r"^MLM-Bias/", "MLM-Sim/"),
)


def keras_bert_name(path: str) -> str:
    """What keras-bert called a variable of ours."""
    for pattern, theirs in KERAS_BERT_NAMES:
        path = re.sub(pattern, theirs, path)
    return path


T5_NORM, T5_UP = "Encoder-Output-Norm/gamma", "Encoder-Transformer-0-FeedForward/dense_1/kernel"
OF_GPT2_ML = "Transformer-0-FeedForward-Norm-0/gamma"
RELEASES = (
    twin(google_bert.RELEASE, (BLOCK, POSITIONS, NORM), (OF_GPT2_ML,)),
    twin(electra.RELEASE, (BLOCK, POSITIONS, NORM), (OF_GPT2_ML,)),
    twin(albert.RELEASE, ((SHARED_BLOCK, BLOCK), POSITIONS, NORM), (OF_GPT2_ML,)),
    twin(nezha.RELEASE, (BLOCK, NORM), (POSITIONS,)),
    twin(roformer.RELEASE, (BLOCK, NORM), (POSITIONS,)),
    twin(roformer_v2.RELEASE, (BLOCK,), (POSITIONS, NORM)),
    twin(gau_alpha.RELEASE, ("Transformer-0-GatedAttentionUnit/dense_0/kernel",)),
    twin(gpt.RELEASE, (BLOCK, POSITIONS), (NORM, "Output-Norm/gamma")),
    twin(gpt.GPT2_RELEASE, (BLOCK, POSITIONS, "Output-Norm/gamma")),
    twin(gpt2_ml.RELEASE, (BLOCK, POSITIONS, NORM, OF_GPT2_ML)),
    twin(t5_mesh.RELEASE, (T5_NORM,), (T5_UP,), without="/(gate|up)/"),
    twin(t5_mesh.MT5_RELEASE, (T5_NORM, T5_UP), without="/intermediate/"),
    replace(
        twin(google_bert.RELEASE, ("Encoder-1-MultiHeadSelfAttention/Wq",), names=keras_bert_name),
        name="keras_bert",
        title="keras-bert (weights of Keras 2)",
        dialects=(replace(google_bert.DIALECT, name="keras-bert", fixed={"layer_norm_eps": 1e-14, "pad_token_id": 0}),),
    ),
)
