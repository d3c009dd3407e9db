"""The table that the release tests are parametrised over: adding a release adds a row.

Each fixture was written by the original implementation (its README.md says which) with random weights, and holds
that implementation's outputs for its inputs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.conftest import CHECKPOINTS


@dataclass(frozen=True)
class Case:
    """A fixture, how to ask for all of its model, and what must come out.

    Attributes:
        name: folder in tests/fixtures/checkpoints, if `folder` is not another.
        release: what it must be recognised as.
        inputs: keys of inputs.npz in the order of the model's inputs.
        outputs: keys of outputs.npz in the order of the model's outputs.
        options: builder options that use every tensor of the checkpoint.
        real: key of inputs.npz with 1 where outputs are to be compared; None: everywhere.
    """

    name: str
    release: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    real: str | None = None
    folder: str | None = None

    @property
    def path(self) -> str:
        return str(CHECKPOINTS / (self.folder or self.name))

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        return dict(np.load(f"{self.path}/inputs.npz")) | dict(np.load(f"{self.path}/outputs.npz"))

    @property
    def input_arrays(self) -> list[np.ndarray]:
        return [self.arrays[name] for name in self.inputs]

    @property
    def expected(self) -> list[np.ndarray]:
        return [self.arrays[name] for name in self.outputs]

    def __str__(self) -> str:
        return self.name


GOOGLE = ("input_ids", "segment_ids", "input_mask")
HF = ("input_ids", "token_type_ids", "attention_mask")
HEADS = ("nsp_logits", "mlm_logits")
ALL_HEADS = {"with_nsp": "linear", "with_mlm": "linear", "custom_attention_mask": True}
SOP_HEADS = ("sop_logits", "mlm_logits")
DISCRIMINATOR = {"with_discriminator": "linear", "custom_attention_mask": True}
# The model is only needed where a file holds the discriminator too.
GENERATOR = {"model": "electra_generator", "with_mlm": "linear", "custom_attention_mask": True}
T5 = ("input_ids", "decoder_input_ids")
B4K = ("input_ids", "segment_ids")
MLM = {"with_mlm": "linear", "custom_attention_mask": True}
SIMBERT = {"with_pool": "linear", "application": "unilm", "compat": "bert4keras"}
NEZHA = {"with_nsp": True, "with_mlm": "linear", "hidden_act": "gelu"}  # the fixture is bert4keras', with the exact one
# NEZHA's tensors are named alike, and no published config says which of the two it is for.
ROFORMER = {"model": "roformer", "with_nsp": True, "with_mlm": "linear"}

# What the names of the fixtures with heads for tasks end with.
KINDS = {
    "cls": "classification",
    "token": "token_classification",
    "qa": "question_answering",
    "mc": "multiple_choice",
}
IDS = ("input_ids", "token_type_ids")

CASES = [
    Case("bert_google", "google_bert", GOOGLE, HEADS, ALL_HEADS),
    Case("hf_bert", "hf_bert", HF, HEADS, ALL_HEADS),
    Case("hf_bert_bin_old", "hf_bert", HF, HEADS, ALL_HEADS),
    Case("hf_bert_h5", "hf_bert_h5", HF, HEADS, ALL_HEADS),
    Case("hf_bert_sharded", "hf_bert", HF, HEADS, ALL_HEADS),
    Case("hf_bert_noprefix", "hf_bert", HF, ("pooled_output",), {"with_pool": True, "custom_attention_mask": True}),
    Case("hf_roberta", "hf_roberta", ("input_ids", "attention_mask"), ("mlm_logits",), MLM),
    Case("b4k_simbert", "google_bert", B4K, ("sentence_vector", "unilm_logits"), SIMBERT),
    Case("b4k_nezha", "google_nezha", B4K, ("nsp_probs", "mlm_logits"), NEZHA),
    Case("b4k_nezha_gen", "nezha_gen", ("input_ids",), ("logits",)),
    Case("hf_nezha", "hf_nezha", HF, HEADS, ALL_HEADS),
    Case("b4k_roformer", "roformer", B4K, ("nsp_probs", "mlm_logits"), ROFORMER),
    Case("b4k_roformer_factorized", "roformer", B4K, ("nsp_probs", "mlm_logits"), ROFORMER),
    Case("hf_roformer", "hf_roformer", HF, ("mlm_logits",), {"with_mlm": "linear", "custom_attention_mask": True}),
    Case("b4k_roformer_v2", "roformer_v2", B4K, ("mlm_logits",), {"with_mlm": "linear"}),
    Case("b4k_roformer_v2_factorized", "roformer_v2", B4K, ("sequence_output",)),
    Case("gau_alpha", "gau_alpha", B4K, ("mlm_logits",), {"with_mlm": "linear"}),
    Case("albert_google", "google_albert", GOOGLE, SOP_HEADS, ALL_HEADS),
    Case("hf_albert", "hf_albert", HF, SOP_HEADS, ALL_HEADS),
    Case("electra_google", "google_electra", GOOGLE, ("rtd_logits",), DISCRIMINATOR),
    Case(
        "electra_google_generator",
        "google_electra_generator",
        GOOGLE,
        ("generator_mlm_logits",),
        GENERATOR,
        folder="electra_google",
    ),
    Case("b4k_electra", "google_electra", B4K, ("discriminator_logits",), {"with_discriminator": "linear"}),
    Case("hf_electra", "hf_electra", HF, ("rtd_logits",), DISCRIMINATOR),
    Case("hf_electra_gen", "hf_electra_generator", HF, ("mlm_logits",), GENERATOR),
    Case("b4k_gpt", "b4k_gpt", B4K, ("logits",)),
    Case("b4k_gpt_segtable", "b4k_gpt", B4K, ("logits",)),
    Case("hf_openai_gpt", "hf_openai_gpt", ("input_ids",), ("logits",)),
    Case("b4k_gpt2", "b4k_gpt2", ("input_ids",), ("logits",)),
    Case("gpt2_openai", "openai_gpt2", ("tokens",), ("logits",)),
    Case("hf_gpt2", "hf_gpt2", ("input_ids",), ("logits",)),
    Case("hf_gpt2_noprefix", "hf_gpt2", ("input_ids",), ("logits",)),
    Case("hf_gpt2_h5", "hf_gpt2_h5", ("input_ids",), ("logits",)),
    Case("gpt2_ml", "gpt2_ml", ("tokens",), ("logits",)),
    Case("t5_mesh_v10", "t5_mesh", T5, ("decoder_logits",)),
    Case("t5_mesh_v11", "t5_mesh", T5, ("decoder_logits",)),
    Case("mt5_mesh", "mt5_mesh", T5, ("decoder_logits",)),
    Case("b4k_t5_pegasus", "mt5_mesh", ("input_ids", "short_decoder_input_ids"), ("short_logits",)),
    Case("hf_t5_v10", "hf_t5", T5, ("decoder_logits",)),
    Case("hf_t5_v11", "hf_t5", T5, ("decoder_logits",)),
    Case("hf_t5_h5", "hf_t5_h5", T5, ("decoder_logits",)),
]


HEAD_CASES = [
    Case(f"hf_{family}_{kind}", release, inputs, ("logits",), {"head": head, **options})
    for family, release, inputs, options, kinds in (
        ("bert", "hf_bert", IDS, {}, "cls token qa mc"),
        ("roberta", "hf_roberta", ("input_ids",), {}, "cls token qa mc"),
        ("albert", "hf_albert", IDS, {}, "cls token qa mc"),
        ("electra", "hf_electra", IDS, {}, "cls token qa mc"),
        ("roformer", "hf_roformer", IDS, {}, "cls token qa mc"),
        ("nezha", "hf_nezha", IDS, {}, "cls"),
        ("gpt2", "hf_gpt2", ("input_ids", "attention_mask"), {"custom_attention_mask": True}, "cls token qa"),
        ("gpt", "hf_openai_gpt", ("input_ids",), {}, "cls"),
    )
    for kind, head in KINDS.items()
    if kind in kinds.split()
]
CASES += HEAD_CASES


def case(name: str) -> Case:
    return next(item for item in CASES if item.name == name)


def relative_error(found: Any, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest magnitude of what is expected.

    ELECTRA's own code has no axis for the one logit of each token.
    """
    found = np.asarray(found, "float32")
    found, expected = (item[..., 0] if item.shape[-1:] == (1,) else item for item in (found, expected))
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def saved_tensors(transformer: Any, release: Any) -> dict[str, np.ndarray]:
    """The tensors that `save` would write of a model, under a release's names."""
    from tfloader.weights import tensors_to_save

    return {name: make() for name, _, make in tensors_to_save(transformer, release)}


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


@functools.lru_cache(maxsize=2)
def compiled(model: Any) -> Any:
    """The model as one graph for inputs of every length: for tests that call it token by token."""
    import tensorflow as tf

    shapes = [tf.TensorSpec([None] * len(tensor.shape), tensor.dtype) for tensor in model.inputs]
    graph = tf.function(lambda *arrays: model(arrays if len(arrays) > 1 else arrays[0]), input_signature=shapes)
    return lambda *arrays: graph(*(tf.constant(array, spec.dtype) for array, spec in zip(arrays, shapes, strict=True)))
