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
        name: folder in tests/fixtures/checkpoints.
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

    @property
    def path(self) -> str:
        return str(CHECKPOINTS / self.name)

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        result = dict(np.load(CHECKPOINTS / self.name / "inputs.npz"))
        return result | dict(np.load(CHECKPOINTS / self.name / "outputs.npz"))

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
T5 = ("input_ids", "decoder_input_ids")

CASES = [
    Case("bert_google", "google_bert", GOOGLE, HEADS, ALL_HEADS),
    Case("hf_bert", "hf_bert", HF, HEADS, ALL_HEADS),
    Case("hf_bert_bin_old", "hf_bert", HF, HEADS, ALL_HEADS),
    Case("hf_bert_h5", "hf_bert_h5", HF, HEADS, ALL_HEADS),
    Case("hf_bert_sharded", "hf_bert", HF, HEADS, ALL_HEADS),
    Case("hf_bert_noprefix", "hf_bert", HF, ("pooled_output",), {"with_pool": True, "custom_attention_mask": True}),
    Case("gpt2_openai", "openai_gpt2", ("tokens",), ("logits",)),
    Case("hf_gpt2", "hf_gpt2", ("input_ids",), ("logits",)),
    Case("hf_gpt2_noprefix", "hf_gpt2", ("input_ids",), ("logits",)),
    Case("hf_gpt2_h5", "hf_gpt2_h5", ("input_ids",), ("logits",)),
    Case("gpt2_ml", "gpt2_ml", ("tokens",), ("logits",)),
    Case("t5_mesh_v10", "t5_mesh", T5, ("decoder_logits",)),
    Case("t5_mesh_v11", "t5_mesh", T5, ("decoder_logits",)),
    Case("mt5_mesh", "mt5_mesh", T5, ("decoder_logits",)),
    Case("hf_t5_v10", "hf_t5", T5, ("decoder_logits",)),
    Case("hf_t5_v11", "hf_t5", T5, ("decoder_logits",)),
    Case("hf_t5_h5", "hf_t5_h5", T5, ("decoder_logits",)),
]
NEEDS_TORCH = {"hf_bert_bin_old"}


def case(name: str) -> Case:
    return next(item for item in CASES if item.name == name)


def relative_error(found: Any, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest magnitude of what is expected."""
    return float(np.abs(np.asarray(found, "float32") - expected).max() / np.abs(expected).max())


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
