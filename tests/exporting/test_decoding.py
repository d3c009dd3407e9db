"""The exported functions give the logits of the model that reads the whole text anew."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.exporting.cases import CASES, IDS, MASK
from tfloader.exporting.decoding import CachedDecoding


def read_anew(item, prompt: list[int], new: list[int]) -> np.ndarray:
    """The logits of the next token of one text."""
    if item.name.startswith("hf_t5"):
        inputs = [prompt], [[item.model.transformer.config.decoder_start_token_id, *new]]
    else:
        inputs = [[*prompt, *new]], [[0] * len(prompt) + [1] * len(new)]
    inputs = [np.array(value, "int32") for value in inputs[: len(item.inputs)]]
    return np.asarray(item.model(inputs if len(inputs) > 1 else inputs[0]))[0, -1]


@pytest.mark.parametrize("item", [item for item in CASES if "step" in item.signatures], ids=str)
def test_prefill_and_steps_for_prompts_padded_on_either_side(item):
    decoding = CachedDecoding(item.model.transformer)
    prompts = [[id for id, real in zip(*row, strict=True) if real] for row in zip(IDS, MASK, strict=True)]
    added = [[] for _ in prompts]
    state = decoding.prefill(tf.constant(IDS), tf.constant(MASK))
    for tokens in [[4, 8, 15], [16, 23, 42], [7, 7, 3], [0, 0, 0]]:
        expected = np.stack([read_anew(item, *text) for text in zip(prompts, added, strict=True)])
        np.testing.assert_allclose(state.pop("logits"), expected, atol=2e-5 * np.abs(expected).max(), rtol=0)
        state |= decoding.step(tf.constant(tokens), **state)
        added = [[*row, token] for row, token in zip(added, tokens, strict=True)]
