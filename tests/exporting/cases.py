"""The models that are exported, and what they are to give."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader.generation.text import TextGenerator

TEXTS = ["The 中国人 aren't naïve,\tΟΔΟΣ!", "", "x"]
# Prompts of different lengths, padded on either side.
IDS = [[7, 3, 9, 11, 2, 5], [0, 0, 8, 4, 6, 3], [9, 1, 0, 0, 0, 0]]
MASK = [[1] * 6, [0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]]
COUNT = 6


@dataclass(frozen=True)
class Case:
    """A fixture, and what is expected of its export.

    Attributes:
        inputs: the names of the model's inputs, in order.
        signatures: what is exported besides `serving_default`.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    signatures: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    @property
    def path(self) -> str:
        return str(CHECKPOINTS / self.name)

    @functools.cached_property
    def model(self) -> keras.Model:
        return tfloader.load(self.path, **self.options)

    def arrays(self, batch: int, length: int) -> dict[str, np.ndarray]:
        """Random ids, the last row of which ends with padding where the model knows it."""
        random = np.random.default_rng(batch)
        config = self.model.transformer.config
        found = {name: random.integers(1, config.vocab_size, (batch, length)).astype("int32") for name in self.inputs}
        if config.pad_token_id is not None:
            found["input_ids"][-1, 1:] = config.pad_token_id
        if "token_type_ids" in found:
            found["token_type_ids"] = np.sort(found["token_type_ids"] % 2, axis=1)
        return found

    def with_ids_outside(self) -> dict[str, np.ndarray]:
        """Three rows, of which the last two have an id that the vocabulary does not."""
        inputs = self.arrays(3, 4)
        inputs["input_ids"][1:, 1] = [-1, self.model.transformer.config.vocab_size]
        return inputs

    def expected(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = [inputs[name] for name in self.inputs]
        found = self.model(values if len(values) > 1 else values[0], training=False)
        return dict(zip(self.outputs, map(np.asarray, keras.tree.flatten(found)), strict=True))

    @functools.cached_property
    def greedy(self) -> list[list[int]]:
        """What the generator continues the prompts with."""
        generator = TextGenerator(self.model)
        return generator.generate_ids(np.array(IDS), np.array(MASK), max_new_tokens=COUNT, eos_token_id=None).sequences


DECODING = ("prefill", "step")
CASES = [
    Case("hf_bert", ("input_ids", "token_type_ids"), ("last_hidden_state",), ("serving_text",)),
    Case("hf_gpt2", ("input_ids",), ("logits",), DECODING, {"num_hidden_layers": 2}),
    Case("gpt2_ml", ("input_ids",), ("logits",), ("serving_text", *DECODING)),
    Case("b4k_bert_unilm", ("input_ids", "token_type_ids"), ("mlm_logits",), DECODING, {"application": "unilm"}),
    Case(
        "hf_t5_v11",
        ("input_ids", "decoder_input_ids"),
        ("logits",),
        DECODING,
        {"num_hidden_layers": 2, "num_decoder_layers": 1},
    ),
]


def case(name: str) -> Case:
    return next(item for item in CASES if item.name == name)


def relative(found: Any, expected: np.ndarray) -> float:
    found = np.asarray(found)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    return float(np.abs(found - expected).max() / np.abs(expected).max())
