"""The gated attention unit against bert4keras' numbers."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from tests.conftest import FIXTURES
from tfloader import ConfigError
from tfloader.layers import GatedAttentionUnit

FOLDER = FIXTURES / "num_layers"
CASES = np.load(FOLDER / "cases.npz")
OPTIONS = {
    name: case
    for name, case in json.loads((FOLDER / "cases.json").read_text()).items()
    if "GatedAttention" in name and case.get("self_attention", True)
}


def fixture_name(weight):
    if weight.name in ("kernel", "bias"):
        return "/".join(weight.path.split("/")[-2:])
    part, kind = weight.name.split("_")
    return f"{part}_scaleoffset/{kind}"


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-7), ("float32", 2e-6), ("bfloat16", 4e-2)])
def test_outputs_equal_bert4keras(name, dtype, rtol):
    options = dict(OPTIONS[name])
    masked, biased, rotary = options.pop("mask"), options.pop("a_bias"), options.pop("p_bias") == "rotary"
    layer = GatedAttentionUnit(
        **{key: value for key, value in options.items() if key != "layer"}, rotary=rotary, dtype=dtype
    )
    x, expected = CASES[f"{name}/x0"], CASES[f"{name}/out"]
    layer.build(x.shape)
    for weight in layer.weights:
        weight.assign(CASES[f"{name}/w/{fixture_name(weight)}"])
    allowed = CASES[f"{name}/x_a_bias"] if biased else None
    found = np.asarray(layer(x, allowed=allowed, mask=CASES[f"{name}/mask"] if masked else None)).astype("float64")
    np.testing.assert_allclose(found, expected, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("normalization", ["squared_relu", "softmax", "softmax_plus"])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_padding_changes_nothing_and_a_row_of_it_gives_no_nan(normalization, dtype):
    layer = GatedAttentionUnit(6, 4, normalization=normalization, dtype=dtype)
    x = np.random.default_rng(0).normal(size=(2, 4, 5)).astype("float32")
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)
    found = layer(x, mask=mask)
    junk = np.where(mask[:, :, None], x, 100.0)
    np.testing.assert_array_equal(layer(junk, mask=mask)[0, :2], found[0, :2])
    assert np.isfinite(np.asarray(found, "float32")).all()


def test_a_saved_unit_gives_the_same_and_uses_the_mask_of_keras(tmp_path):
    tokens = np.array([[3, 1, 4, 0, 0], [1, 5, 9, 2, 6]])
    inputs = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(10, 8, mask_zero=True)(inputs)
    unit = GatedAttentionUnit(6, 4, "relu", False, rotary=True, normalization="softmax_plus", attention_scale=False)
    model = keras.Model(inputs, unit(embedded))
    expected = model.predict_on_batch(tokens)
    np.testing.assert_allclose(model.predict_on_batch(tokens[:1, :3]), expected[:1, :3], atol=1e-6)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras").predict_on_batch(tokens), expected)


def test_an_unknown_normalization_is_refused():
    with pytest.raises(ConfigError, match="softmax_plus"):
        GatedAttentionUnit(4, 4, normalization="tanh")
