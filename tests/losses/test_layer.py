"""A loss as a layer: what it adds, passes on, averages, and saves."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfloader import losses
from tfloader.errors import LossError


@keras.saving.register_keras_serializable("tests")
class Squares(losses.Loss):
    """Half of the squared difference; counts only unmasked rows of the second input where it has a mask."""

    def compute_loss(self, inputs, mask=None):
        wanted, found = inputs
        assert found.dtype == "float32"
        rows = keras.ops.mean(keras.ops.square(wanted - found), axis=-1) / 2
        if mask is not None and mask[1] is not None:
            real = keras.ops.cast(mask[1], rows.dtype)
            rows = keras.ops.sum(rows * real) / keras.ops.sum(real)
        if "largest" in self.metric_names:
            self.add_metric(keras.ops.max(found), "largest")
        return rows


def model_with_loss(**options):
    x, wanted = keras.Input((3,)), keras.Input((2,))
    found = keras.layers.Dense(2, kernel_initializer="ones")(x)
    return keras.Model([x, wanted], Squares(**{"output_axis": 1, "name": "squares", **options})([wanted, found]))


RANDOM = np.random.default_rng(9)
X, WANTED = (RANDOM.normal(size=(8, size)).astype("float32") for size in (3, 2))


def test_the_loss_trains_a_model_without_y_and_is_in_its_metrics():
    model = model_with_loss(metric_names=["largest"])
    model.compile("sgd")
    found = np.asarray(model([X, WANTED]))
    logs = model.evaluate([X, WANTED], batch_size=4, return_dict=True, verbose=0)
    expected = np.mean((found - WANTED) ** 2) / 2
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)
    assert logs["squares"] == pytest.approx(expected, rel=1e-6)
    assert logs["largest"] == pytest.approx((found[:4].max() + found[4:].max()) / 2, rel=1e-6)
    assert model.fit([X, WANTED], epochs=5, verbose=0).history["loss"][-1] < expected


def test_one_step_moves_the_weights_by_the_gradient():
    model = model_with_loss()
    model.compile(keras.optimizers.SGD(0.1))
    before = [np.array(item) for item in model.trainable_variables]
    difference = np.asarray(model([X, WANTED])) - WANTED
    model.train_on_batch([X, WANTED])
    gradient = X.T @ difference / difference.size
    np.testing.assert_allclose(before[0] - model.trainable_variables[0], 0.1 * gradient, atol=1e-6)


@pytest.mark.parametrize("axis", [None, 0, 1, [1, 0]])
def test_it_passes_on_the_inputs_that_are_asked_for(axis):
    layer = Squares(output_axis=axis)
    found = layer([WANTED, WANTED + 1])
    expected = {None: [WANTED, WANTED + 1], 0: WANTED, 1: WANTED + 1}.get(axis if not isinstance(axis, list) else "")
    expected = [WANTED + 1, WANTED] if isinstance(axis, list) else expected
    keras.tree.map_structure(np.testing.assert_array_equal, found, expected)
    assert float(layer.losses[0]) == 0.5


def test_masks_reach_the_loss_and_go_on():
    tokens = np.array([[1, 2, 0], [2, 0, 0]])
    inputs = keras.Input((3,), dtype="int32")
    vectors = keras.layers.Embedding(3, 2, mask_zero=True)(inputs)
    wanted = keras.Input((3, 2))
    passed = Squares(output_axis=1)([wanted, vectors])
    pooled = keras.layers.GlobalAveragePooling1D()(passed)
    model = keras.Model([inputs, wanted], [passed, pooled])
    target = RANDOM.normal(size=(2, 3, 2)).astype("float32")
    vector, mean = (np.asarray(item) for item in model([tokens, target]))
    real = tokens > 0
    expected = (((vector - target) ** 2).mean(-1) / 2)[real].mean()
    assert float(model.losses[0]) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(mean, (vector * real[..., None]).sum(1) / real.sum(1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_in_mixed_precision_the_loss_is_float32_and_what_passes_keeps_its_dtype(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = model_with_loss()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.output.dtype == policy.removeprefix("mixed_")
    model.compile("sgd")
    assert np.isfinite(model.fit([X, WANTED], verbose=0).history["loss"][0])


def test_a_model_with_it_saves_and_loads(tmp_path):
    model = model_with_loss(metric_names=["largest"])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again([X, WANTED]), model([X, WANTED]))
    assert float(again.losses[0]) == float(model.losses[0])
    again.compile("sgd")
    assert {"loss", "squares", "largest"} <= set(again.evaluate([X, WANTED], return_dict=True, verbose=0))


def test_under_a_mirrored_strategy_the_loss_is_the_mean_over_all_replicas(two_replicas):
    with two_replicas.scope():
        spread = model_with_loss()
        spread.compile(keras.optimizers.SGD(0.1))
    alone = model_with_loss()
    alone.set_weights(spread.get_weights())
    alone.compile(keras.optimizers.SGD(0.1))
    histories = [model.fit([X, WANTED], batch_size=8, verbose=0).history for model in (spread, alone)]
    assert histories[0]["loss"] == pytest.approx(histories[1]["loss"], rel=1e-5)
    for found, expected in zip(spread.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_undeclared_metric_names_the_argument():
    layer = Squares()
    with pytest.raises(LossError, match=r"metric_names=\['accuracy'\]"):
        layer.add_metric(1.0, "accuracy")


def test_a_subclass_without_compute_loss_says_so():
    with pytest.raises(NotImplementedError, match="compute_loss"):
        losses.Loss()([X, WANTED])
