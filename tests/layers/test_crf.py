"""The CRF against enumeration of all paths, finite differences, and itself in every mode of training."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given

from tests.conftest import FIXTURES
from tests.layers.chains import chains, losses_of, numeric_gradient
from tfloader import ConfigError
from tfloader.layers import ConditionalRandomField

INPUTS = np.load(FIXTURES / "num_crf" / "inputs.npz")
OUTPUTS = np.load(FIXTURES / "num_crf" / "outputs.npz")


def crf_with(transitions, dtype="float64", lr_multiplier=1):
    crf = ConditionalRandomField(lr_multiplier, dtype=dtype)
    crf.build((None, None, len(transitions)))
    crf.stored_transitions.assign(transitions / lr_multiplier)
    return crf


# ---- numbers


@pytest.mark.parametrize(("dtype", "atol"), [("float64", 1e-12), ("float32", 2e-6)])
def test_losses_equal_the_enumerated_ones(dtype, atol):
    crf = crf_with(INPUTS["transitions"], dtype, lr_multiplier=7)
    emissions = crf(INPUTS["emissions"].astype(dtype), mask=INPUTS["mask"])
    found = crf.sequence_losses(INPUTS["tags"], emissions)
    np.testing.assert_allclose(found, -OUTPUTS["plain_log_likelihood"], atol=atol)
    assert float(crf.sparse_loss(INPUTS["tags"], emissions)) == pytest.approx(OUTPUTS["plain_mean_nll"], abs=2e-6)


def test_scores_of_starts_and_ends_can_be_added_to_the_emissions():
    emissions, lengths = INPUTS["emissions"].astype("float64"), INPUTS["mask"].sum(axis=1)
    emissions[:, 0] += INPUTS["start"]
    emissions[np.arange(len(lengths)), lengths - 1] += INPUTS["end"]
    crf = crf_with(INPUTS["transitions"])
    found = crf.sequence_losses(INPUTS["tags"], crf(emissions, mask=INPUTS["mask"]))
    np.testing.assert_allclose(found, -OUTPUTS["startend_log_likelihood"], atol=1e-12)


def test_gradients_equal_the_enumerated_ones():
    crf = crf_with(INPUTS["transitions"])
    emissions = tf.Variable(INPUTS["emissions"].astype("float64"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(crf.sequence_losses(INPUTS["tags"], crf(emissions, mask=INPUTS["mask"])))
    of_emissions, of_transitions = tape.gradient(loss, [emissions, crf.stored_transitions.value])
    np.testing.assert_allclose(of_emissions, OUTPUTS["plain_grad_emissions"], atol=1e-12)
    np.testing.assert_allclose(tf.convert_to_tensor(of_transitions), OUTPUTS["plain_grad_transitions"], atol=1e-12)


@given(chains())
def test_any_mask_gives_the_loss_of_the_real_positions_alone(chain):
    emissions, transitions, real = chain
    tags = np.random.default_rng(0).integers(0, len(transitions), real.shape)
    crf = crf_with(transitions)
    found = crf.sequence_losses(tags, crf(emissions, mask=real))
    np.testing.assert_allclose(found, losses_of(emissions, transitions, tags, real), atol=1e-12)


def test_gradients_equal_finite_differences_where_the_mask_has_holes():
    random = np.random.default_rng(1)
    real = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0]], bool)
    emissions, transitions = random.normal(size=(3, 4, 3)), random.normal(size=(3, 3))
    tags = random.integers(0, 3, (3, 4))
    crf = crf_with(transitions)
    x = tf.constant(emissions)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(crf.sequence_losses(tags, crf(x, mask=real)))
    of_emissions, of_transitions = tape.gradient(loss, [x, crf.stored_transitions.value])
    expected = numeric_gradient(lambda e: losses_of(e, transitions, tags, real).sum(), emissions)
    np.testing.assert_allclose(of_emissions, expected, atol=1e-8)
    assert not np.asarray(of_emissions)[~real].any()
    expected = numeric_gradient(lambda t: losses_of(emissions, t, tags, real).sum(), transitions)
    np.testing.assert_allclose(tf.convert_to_tensor(of_transitions), expected, atol=1e-8)


def test_gradients_of_gradients_equal_finite_differences():
    """What a gradient penalty needs."""
    crf = crf_with(INPUTS["transitions"])

    @tf.function
    def penalty_and_gradient(emissions):
        with tf.GradientTape() as outer:
            outer.watch(emissions)
            with tf.GradientTape() as inner:
                inner.watch(emissions)
                loss = tf.reduce_sum(crf.sequence_losses(INPUTS["tags"], crf(emissions, mask=INPUTS["mask"])))
            penalty = tf.reduce_sum(inner.gradient(loss, emissions) ** 2)
        return penalty, outer.gradient(penalty, emissions)

    emissions = INPUTS["emissions"].astype("float64")
    _, found = penalty_and_gradient(tf.constant(emissions))
    expected = numeric_gradient(lambda x: float(penalty_and_gradient(tf.constant(x))[0]), emissions)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_long_and_well_learned_sequence_keeps_its_small_loss_in_float32():
    random = np.random.default_rng(2)
    tags = random.integers(0, 5, (2, 512))
    emissions = random.normal(size=(2, 512, 5)) + 14 * np.eye(5)[tags]
    transitions = random.normal(size=(5, 5)).astype("float32")
    exact = crf_with(transitions).sequence_losses(tags, emissions.astype("float32").astype("float64"))
    found = crf_with(transitions, "float32").sequence_losses(tags, emissions.astype("float32"))
    assert 1e-3 < exact[0] < 1
    np.testing.assert_allclose(found, exact, rtol=5e-4)


def test_a_row_of_padding_only_has_no_loss_no_gradient_and_no_tags():
    crf = crf_with(INPUTS["transitions"], "float32")
    x = tf.constant(INPUTS["emissions"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        marked = crf(x, mask=np.zeros_like(INPUTS["mask"]))
        losses = crf.sequence_losses(INPUTS["tags"], marked)
    assert not np.any(losses) and not np.any(tape.gradient(losses, x))
    assert (np.asarray(crf.decode(marked)) == -1).all()


def test_one_position_is_a_plain_softmax_even_where_the_length_was_not_traced():
    crf = crf_with(INPUTS["transitions"], "float32")

    @tf.function(input_signature=[tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None), tf.int32)])
    def loss_and_gradient(emissions, tags):
        with tf.GradientTape() as tape:
            tape.watch(emissions)
            losses = crf.sequence_losses(tags, crf(emissions))
        return losses, tape.gradient(losses, emissions)

    emissions, tags = INPUTS["emissions"][:, :1], INPUTS["tags"][:, :1]
    losses, gradient = loss_and_gradient(emissions, tags)
    probabilities = np.exp(emissions) / np.exp(emissions).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(gradient, probabilities - np.eye(4)[tags], atol=1e-6)
    chosen = np.take_along_axis(probabilities, tags[:, :, None], axis=2)[:, 0, 0]
    np.testing.assert_allclose(losses, -np.log(chosen), atol=1e-6)


def test_nan_scores_give_a_nan_loss_and_are_not_taken_for_padding():
    crf = crf_with(INPUTS["transitions"], "float32")
    emissions = INPUTS["emissions"].copy()
    emissions[1, 0] = np.nan
    assert np.isnan(crf.sequence_losses(INPUTS["tags"], crf(emissions, mask=INPUTS["mask"]))).tolist() == [0, 1, 0, 0]


def test_decoding_gives_the_enumerated_path():
    crf = crf_with(INPUTS["transitions"], "float32", lr_multiplier=30)
    found = crf.decode(crf(INPUTS["emissions"], mask=INPUTS["mask"]))
    np.testing.assert_array_equal(found, OUTPUTS["plain_viterbi_path"])


# ---- training in every mode

REAL = np.arange(6) < np.array([6, 1, 4, 3, 5, 2, 6, 4])[:, None]
RANDOM = np.random.default_rng(3)
FEATURES = RANDOM.normal(size=(8, 6, 3)).astype("float32")
TAGS = RANDOM.integers(0, 4, (8, 6))


def tagger(policy="float32"):
    """Features and a mask -> CRF; the same weights each time."""
    keras.utils.set_random_seed(4)
    features, real = keras.Input((None, 3)), keras.Input((None,), dtype="int32")
    logits = keras.layers.Dense(4, dtype=policy, name="logits")(features)
    crf = ConditionalRandomField(10, dtype=policy, name="crf")
    model = keras.Model([features, real], crf(logits, mask=real))
    model.compile(keras.optimizers.SGD(0.05), loss=crf.sparse_loss)
    return model, crf


def expected_loss(model):
    kernel, bias = (np.asarray(weight, "float64") for weight in model.get_layer("logits").get_weights())
    transitions = np.asarray(model.get_layer("crf").transitions, "float64")
    return losses_of(FEATURES.astype("float64") @ kernel + bias, transitions, TAGS, REAL).mean()


def trained(model, junk=0):
    """The losses of two steps; `junk` fills the padding of features and tags."""
    features, tags = np.where(REAL[:, :, None], FEATURES, np.float32(junk)), np.where(REAL, TAGS, junk)
    return model.fit([features, REAL.astype("int32")], tags, epochs=2, verbose=0).history["loss"]


@pytest.mark.parametrize("mode", [{"run_eagerly": True}, {}, {"jit_compile": True}], ids=["eager", "graph", "xla"])
def test_fit_minimises_the_loss_of_the_real_positions(mode):
    model, crf = tagger()
    model.compile(keras.optimizers.SGD(0.05), loss=crf.sparse_loss, **mode)
    before, weights = expected_loss(model), model.get_weights()
    losses = trained(model)
    assert losses[0] == pytest.approx(before, rel=1e-5)
    assert expected_loss(model) < losses[1] < losses[0]
    expected = model.get_weights()
    model.set_weights(weights)
    trained(model, junk=-100)
    for found, wanted in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-7)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
def test_fit_in_reduced_precision_is_masked_and_finite(policy):
    model, crf = tagger(policy)
    model.run_eagerly = not policy.startswith("mixed")
    expected = expected_loss(model)
    losses = trained(model, junk=-100)
    assert losses[0] == pytest.approx(expected, rel=1e-2) and losses[1] < losses[0]
    output = model.predict_on_batch([FEATURES, REAL.astype("int32")])
    assert output.dtype == "float32" and np.isfinite(output).all()
    assert ((np.asarray(crf.decode(output)) >= 0) == REAL).all()


def test_fit_under_a_mirrored_strategy_equals_fit_without(two_replicas):
    model, _ = tagger()
    expected = trained(model)
    with two_replicas.scope():
        mirrored, _ = tagger()
    np.testing.assert_allclose(trained(mirrored, junk=-100), expected, rtol=1e-5)
    for found, wanted in zip(mirrored.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_mask_of_keras_counts_as_one_that_is_given_and_does_not_weigh_the_loss():
    crf = ConditionalRandomField()
    embedding = keras.layers.Embedding(9, 4, mask_zero=True)
    tokens = np.where(REAL, RANDOM.integers(1, 9, REAL.shape), 0)
    inputs = keras.Input((None,), dtype="int32")
    model = keras.Model(inputs, crf(embedding(inputs)))
    output = model.predict_on_batch(tokens)
    np.testing.assert_array_equal(output, crf(embedding(tokens), mask=REAL))
    assert (output[~REAL] < -1e30).all()
    model.compile(loss=crf.sparse_loss)
    expected = losses_of(np.asarray(embedding(tokens)), np.asarray(crf.transitions), TAGS, REAL).mean()
    assert model.evaluate(tokens, TAGS, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_a_saved_tagger_goes_on_training_as_if_it_had_not_been_saved(tmp_path):
    model, crf = tagger()
    model.save(tmp_path / "tagger.keras")
    again = keras.saving.load_model(tmp_path / "tagger.keras")
    assert again.loss.link.find() is again.get_layer("crf")
    np.testing.assert_array_equal(again.get_layer("crf").transitions, crf.transitions)
    assert trained(again) == pytest.approx(trained(model), rel=1e-6)
    for found, expected in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-7)
    uncompiled = keras.saving.load_model(tmp_path / "tagger.keras", compile=False)
    assert [weight.path for weight in uncompiled.weights] == [weight.path for weight in again.weights]


def test_two_crfs_in_one_saved_model_keep_their_own_losses(tmp_path):
    inputs = keras.Input((None, 3))
    crfs = [ConditionalRandomField(name=name) for name in ("first", "second")]
    model = keras.Model(inputs, {crf.name: crf(inputs) for crf in crfs})
    model.compile("sgd", loss={crf.name: crf.sparse_loss for crf in crfs})
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for name, loss in again.loss.items():
        assert loss.link.find() is again.get_layer(name)
    for old, new in zip(crfs, again.layers[1:], strict=True):
        np.testing.assert_array_equal(old.transitions, new.transitions)


def test_a_clone_has_weights_of_its_own():
    model, crf = tagger()
    clone = keras.models.clone_model(model).get_layer("crf")
    clone.stored_transitions.assign(clone.stored_transitions * 0)
    assert clone.sparse_loss.link.find() is clone and crf.sparse_loss.link.find() is crf
    assert np.any(crf.transitions) and not np.any(clone.transitions)


# ---- lr_multiplier

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(1e-3),
    "momentum": lambda: keras.optimizers.SGD(1e-3, momentum=0.9, nesterov=True),
    "rmsprop": lambda: keras.optimizers.RMSprop(1e-3),
    "adagrad": lambda: keras.optimizers.Adagrad(1e-3),
    "adam": lambda: keras.optimizers.Adam(1e-3),
    "adam, clipped": lambda: keras.optimizers.Adam(1e-3, global_clipnorm=0.1),
    "adam, large epsilon": lambda: keras.optimizers.Adam(1e-3, epsilon=0.1),
    "adamw, no decay": lambda: keras.optimizers.AdamW(1e-3, weight_decay=0.0),
    "nadam": lambda: keras.optimizers.Nadam(1e-3),
    "lion": lambda: keras.optimizers.Lion(1e-3),
}


def effective_steps(optimizer, lr_multiplier, start, gradients):
    """How far the transitions move from `start` at each of the gradients with respect to the transitions."""
    crf = crf_with(start, lr_multiplier=lr_multiplier)
    np.testing.assert_allclose(crf.transitions, start, rtol=1e-14)
    positions = [start]
    for gradient in gradients:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(gradient * crf.transitions)
        optimizer.apply(tape.gradient(loss, [crf.stored_transitions.value]), [crf.stored_transitions])
        positions.append(np.asarray(crf.transitions))
    return np.diff(positions, axis=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("multiplier", [100, 0.5])
def test_transitions_move_exactly_the_multiple_under_every_optimizer_that_steps_by_gradients(name, multiplier):
    random = np.random.default_rng(5)
    start, gradients = random.normal(size=(3, 3)), random.normal(size=(4, 3, 3))
    once = effective_steps(OPTIMIZERS[name](), 1, start, gradients)
    found = effective_steps(OPTIMIZERS[name](), multiplier, start, gradients)
    assert np.abs(once).min() > 1e-6
    # Keras casts learning rates to float32 and its moments' factors too; hence not 1e-14.
    np.testing.assert_allclose(found, multiplier * once, rtol=1e-6)


def test_weight_decay_takes_the_same_share_of_the_transitions():
    start, none = np.random.default_rng(6).normal(size=(3, 3)), np.zeros((1, 3, 3))
    (step,) = effective_steps(keras.optimizers.AdamW(0.1, weight_decay=0.5), 100, start, none)
    np.testing.assert_allclose(step, -0.1 * 0.5 * start, rtol=1e-6)


def test_adafactor_scales_its_step_by_the_stored_weights_as_documented():
    start, gradient = np.random.default_rng(7).normal(size=(3, 3)), np.random.default_rng(8).normal(size=(1, 3, 3))
    for multiplier, effective in [(100, 1), (1e5, 100)]:
        root_mean_square = np.sqrt((start**2).mean())
        assert effective == 1 or effective == pytest.approx(multiplier * 1e-3, rel=1e-9)
        once = effective_steps(keras.optimizers.Adafactor(1e-2), 1, start, gradient)
        found = effective_steps(keras.optimizers.Adafactor(1e-2), multiplier, start, gradient)
        factor = effective if effective == 1 else effective / root_mean_square
        np.testing.assert_allclose(found, factor * once, rtol=1e-5)


def test_initial_transitions_do_not_depend_on_the_multiplier():
    spread = []
    for multiplier in (1, 1000):
        keras.utils.set_random_seed(9)
        crf = ConditionalRandomField(multiplier)
        crf.build((None, None, 40))
        spread.append(np.asarray(crf.transitions))
    np.testing.assert_allclose(spread[1], spread[0], rtol=1e-5)
    assert 0.9 < spread[0].max() / np.sqrt(6 / 80) <= 1


@pytest.mark.parametrize("multiplier", [0, -1, float("nan"), float("inf")])
def test_a_multiplier_that_is_no_positive_number_is_refused(multiplier):
    with pytest.raises(ConfigError, match="lr_multiplier"):
        ConditionalRandomField(multiplier)
