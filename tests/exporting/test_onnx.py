"""ONNX files give in onnxruntime what the Keras model gives, for any batch and length."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.exporting.cases import CASES, COUNT, IDS, MASK, case, relative
from tests.exporting.served import greedy
from tfloader.exporting import export, formats

for package in formats.FORMATS["onnx"].needs:
    pytest.importorskip(package, reason="the extra `onnx` is not installed")

ERF = "hf_bert"  # the exact gelu, for which ONNX has an operation less than TensorFlow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx")


@pytest.mark.parametrize("item", CASES, ids=str)
def test_ids_and_steps_give_what_the_keras_model_gives(item, root):
    folder = root / item.name
    export(item.model, folder, to="onnx", verify=False)
    run = formats.open_onnx(str(folder), "serving_default")
    for batch, length in ((3, 6), (1, 1), (2, 9)):
        inputs = item.arrays(batch, length)
        found = run(**inputs)
        assert list(found) == list(item.outputs)
        for name, value in item.expected(inputs).items():
            assert relative(found[name], value) < 2e-5
    for value in run(**item.with_ids_outside()).values():
        assert [bool(np.isnan(row).any()) for row in value] == [False, True, True]
    if "step" in item.signatures:
        prefill, step = (formats.open_onnx(str(folder), name) for name in ("prefill", "step"))

        def renamed(**inputs):
            return {name.removeprefix("next_"): value for name, value in step(**inputs).items()}

        tokens = greedy(prefill, renamed, np.array(IDS, "int32"), np.array(MASK, "int32"), COUNT)
        assert tokens == item.greedy


def test_three_graphs_hold_the_weights_once(root):
    item = case("hf_gpt2")
    export(item.model, root / "once", to="onnx")
    sizes = {name: os.path.getsize(root / "once" / name) for name in os.listdir(root / "once")}
    assert {"model.onnx", "prefill.onnx", "step.onnx", "weights.bin"} < set(sizes)
    nbytes = sum(4 * int(np.prod(weight.shape)) for weight in item.model.weights)
    assert sizes["weights.bin"] < 1.5 * nbytes
