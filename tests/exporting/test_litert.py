"""LiteRT's interpreter gives what the Keras model gives, for any batch and length, with built-in operations only."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from tests.exporting.cases import CASES, COUNT, IDS, MASK, relative
from tests.exporting.served import greedy
from tfloader.exporting import export, formats

if not (importlib.util.find_spec("ai_edge_litert") or hasattr(tf.lite, "Interpreter")):
    pytest.skip("the extra `litert` is not installed", allow_module_level=True)


# gpt2_ml is as GPT-2 in all that matters to the converter.
@pytest.mark.parametrize("item", [item for item in CASES if item.name != "gpt2_ml"], ids=str)
def test_ids_and_steps_give_what_the_keras_model_gives(item, tmp_path):
    export(item.model, tmp_path / "out", to="litert", verify=False)
    run = formats.open_litert(str(tmp_path / "out"), "serving_default")
    for batch, length in ((3, 6), (1, 1), (2, 9)):
        inputs = item.arrays(batch, length)
        for name, value in item.expected(inputs).items():
            assert relative(run(**inputs)[name], value) < 2e-5
    for value in run(**item.with_ids_outside()).values():
        assert [bool(np.isnan(row).any()) for row in value] == [False, True, True]
    if "step" in item.signatures:
        prefill, step = (formats.open_litert(str(tmp_path / "out"), name) for name in ("prefill", "step"))
        tokens = greedy(prefill, step, np.array(IDS, "int32"), np.array(MASK, "int32"), COUNT)
        assert tokens == item.greedy
