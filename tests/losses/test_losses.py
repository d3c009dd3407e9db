"""What every loss promises: right gradients, finite numbers in half precision, masks, configs, one value a row."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfloader import losses
from tfloader.errors import LossError

RANDOM = np.random.default_rng(11)
SCORES = RANDOM.normal(size=(6, 5))
LABELS = np.array([0, 4, 2, 2, 1, 3])
PAIRED = np.repeat([2, 0, 1], 2)
SEVERAL = (RANDOM.random((6, 5)) < 0.4).astype("float64")

CASES = {
    "multilabel": (losses.MultilabelCategoricalCrossentropy, {}, SEVERAL, SCORES),
    "pointer": (
        losses.MultilabelCategoricalCrossentropy,
        {"axis": (-2, -1)},
        SEVERAL.reshape(2, 3, 5),
        SCORES.reshape(2, 3, 5),
    ),
    "soft": (losses.MultilabelCategoricalCrossentropy, {}, RANDOM.random((6, 5)), SCORES),
    "sparse": (losses.SparseMultilabelCategoricalCrossentropy, {}, LABELS[:, None], SCORES),
    "sparse_zero": (losses.SparseMultilabelCategoricalCrossentropy, {"mask_zero": True}, LABELS[:, None], SCORES),
    "normalized": (losses.NormalizedSoftmax, {"scale": 7.0}, LABELS, np.tanh(SCORES)),
    "am": (losses.AMSoftmax, {"scale": 7.0, "margin": 0.2}, LABELS, np.tanh(SCORES)),
    "arc": (losses.ArcFace, {"scale": 7.0, "angular_margin": 0.4}, LABELS, np.tanh(SCORES)),
    "cosent": (losses.CoSENT, {"scale": 3.0}, PAIRED, SCORES),
    "simcse": (losses.SimCSE, {"temperature": 0.5}, PAIRED, SCORES),
    "r_drop": (losses.RDrop, {"alpha": 2.0}, PAIRED, SCORES),
    "smoothed": (losses.SmoothedSparseCategoricalCrossentropy, {"label_smoothing": 0.2}, LABELS, SCORES),
    "ignoring": (losses.SmoothedSparseCategoricalCrossentropy, {"ignore_class": 2}, LABELS, SCORES),
}
# What every score of a masked class may be; cosines and sentence vectors have no masked classes.
MASKABLE = ["multilabel", "pointer", "soft", "sparse", "sparse_zero", "r_drop", "smoothed", "ignoring"]

by_case = pytest.mark.parametrize("case", CASES)


def rows(case, y_pred, **options):
    kind, arguments, y_true, _ = CASES[case]
    return kind(**arguments, reduction=None, **options)(y_true, y_pred)


@by_case
def test_gradients_equal_finite_differences(case):
    y_pred = CASES[case][3]
    weights = RANDOM.normal(size=np.shape(rows(case, y_pred)))

    def total(x):
        return tf.reduce_sum(rows(case, x, dtype="float64") * weights)

    x = tf.constant(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = total(x)
    expected = np.zeros(y_pred.size)
    for i in range(y_pred.size):
        step = np.zeros(y_pred.size)
        step[i] = 1e-5
        step = step.reshape(y_pred.shape)
        expected[i] = (total(y_pred + step) - total(y_pred - step)) / 2e-5
    np.testing.assert_allclose(np.ravel(tape.gradient(loss, x)), expected, atol=1e-7)


@pytest.mark.parametrize("masked", [-np.inf, -1e38, -3.2e4])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("case", MASKABLE)
def test_masked_scores_in_any_precision_give_finite_losses_and_gradients(case, dtype, masked):
    kind, arguments, y_true, y_pred = CASES[case]
    y_true = np.minimum(y_true, 3) if case not in ("multilabel", "pointer", "soft") else np.array(y_true)
    y_pred = np.array(y_pred)
    y_pred[..., 4] = masked  # in float16, -1e38 is -inf
    if case in ("multilabel", "pointer", "soft"):
        y_true[..., 4] = 0
    x = tf.cast(y_pred, dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = kind(**arguments)(y_true, x)
    gradient = np.asarray(tf.cast(tape.gradient(loss, x), "float32"))
    assert loss.dtype == "float32"
    # Smoothing towards a class that is masked by a number that could be a score costs what it says.
    assert np.isfinite(float(loss)) and (float(loss) < 100 or masked == -3.2e4)
    assert np.isfinite(gradient).all()


@by_case
def test_half_precision_costs_only_the_rounding_of_the_scores(case):
    y_pred = np.asarray(CASES[case][3], "float32").astype("float16")
    np.testing.assert_allclose(rows(case, y_pred), rows(case, y_pred.astype("float32")), rtol=1e-6)


@by_case
def test_it_trains_a_compiled_model_in_mixed_precision(case):
    kind, arguments, y_true, y_pred = CASES[case]
    model = keras.Sequential([keras.layers.Dense(5, dtype="mixed_float16")])
    loss = kind(**arguments)
    if case == "pointer":
        loss = losses.MultilabelCategoricalCrossentropy()
    model.compile("sgd", loss)
    x = y_pred.astype("float32")
    assert np.isfinite(model.fit(x, y_true, batch_size=6, shuffle=False, verbose=0).history["loss"][0])


@by_case
def test_a_saved_model_keeps_the_loss_and_its_options(case, tmp_path):
    kind, arguments, _, _ = CASES[case]
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5)])
    model.compile("sgd", kind(**arguments))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").loss
    assert type(again) is kind
    assert again.get_config() == kind(**arguments, name=again.name).get_config()
    assert {name: again.get_config()[name] for name in arguments} == {
        name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()
    }


@pytest.mark.parametrize(
    "function",
    [losses.multilabel_categorical_crossentropy, losses.simcse, losses.margin_softmax],
    ids=lambda f: f.__name__,
)
def test_a_saved_model_keeps_a_loss_that_is_a_function(function, tmp_path):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5)])
    model.compile("sgd", function)
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").loss is function


@by_case
def test_sample_weights_weigh_rows(case):
    kind, arguments, y_true, y_pred = CASES[case]
    values = np.asarray(rows(case, y_pred))
    weights = RANDOM.random(values.shape)
    found = kind(**arguments)(y_true, y_pred, sample_weight=weights)
    assert float(found) == pytest.approx(np.mean(values * weights), rel=1e-5)


ONE_HOT = keras.losses.CategoricalCrossentropy(from_logits=True)
SEQUENCES = np.repeat(LABELS.reshape(2, 3), 2, axis=0)
WEIGHED = {
    "multilabel": (losses.MultilabelCategoricalCrossentropy(), SEVERAL, SCORES),
    "sparse": (losses.SparseMultilabelCategoricalCrossentropy(), SEQUENCES, SCORES[:4]),
    "smoothed": (losses.SmoothedSparseCategoricalCrossentropy(), SEQUENCES, RANDOM.normal(size=(4, 3, 5))),
    "r_drop": (losses.RDrop(), SEQUENCES, RANDOM.normal(size=(4, 3, 5))),
    "one class": (losses.AMSoftmax(), LABELS[:, None], np.tanh(SCORES)),
    "one-hot": (losses.RDrop(ONE_HOT), np.eye(5)[PAIRED], SCORES),
}


@pytest.mark.parametrize("case", WEIGHED)
def test_class_weights_are_for_rows_of_one_class(case):
    loss, y_true, y_pred = WEIGHED[case]
    inputs = keras.Input(y_pred.shape[1:])
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile("sgd", loss, run_eagerly=True)
    weights = {label: 1.0 + label for label in range(5)}
    if not case.startswith("one"):
        with pytest.raises(LossError, match="class_weight: Keras would weigh each row by the position"):
            model.train_on_batch(y_pred, y_true, class_weight=weights)
    else:
        with pytest.warns(UserWarning, match="does not have any trainable weights"):
            found = model.train_on_batch(y_pred, y_true, class_weight=weights)
        labels = LABELS if case == "one class" else PAIRED
        each = np.asarray(type(loss).call(loss, y_true, np.float32(y_pred)))
        assert found == pytest.approx((each * (1 + labels)).mean(), rel=1e-5)


@by_case
def test_labels_of_any_number_of_axes_are_refused(case):
    kind, arguments, y_true, y_pred = CASES[case]
    any_rank = tf.TensorSpec(None, np.asarray(y_true).dtype)
    signature = [any_rank, tf.TensorSpec(y_pred.shape, y_pred.dtype)]
    step = tf.function(kind(**arguments), input_signature=signature, autograph=False)
    with pytest.raises(LossError, match="y has another number of axes than in an earlier call"):
        step(y_true, y_pred)
