"""Adversarial methods against the reference of the fixture, and against NumPy over several steps."""

from __future__ import annotations

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfloader
from tests.conftest import CHECKPOINTS, FIXTURES
from tfloader import FGM, PGD, VAT, FreeLB, GradientPenalty, adversarial_training
from tfloader.errors import TfloaderError, TrainingError

INPUTS = np.load(FIXTURES / "num_adversarial" / "inputs.npz")
REFERENCE = np.load(FIXTURES / "num_adversarial" / "outputs.npz")
IDS, LABELS = INPUTS["ids"], INPUTS["labels"]
WEIGHTS = [INPUTS["embeddings"], INPUTS["W"], INPUTS["b"]]
NAMES = ["embeddings", "W", "b"]


def fixture_model(activation=None):
    """logits = tanh(mean of embeddings[ids]) @ W + b"""
    tokens = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(13, 6, name="Embedding-Token")(tokens)
    x = keras.ops.tanh(keras.ops.mean(x, axis=1))
    model = keras.Model(tokens, keras.layers.Dense(4, activation=activation, name="classifier")(x))
    model.set_weights(WEIGHTS)
    return model


def compiled(model, learning_rate=1.0, from_logits=True, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    model.compile(keras.optimizers.SGD(learning_rate), loss, metrics=["accuracy"], **options)
    return model


class ByHand:
    """The model of the fixture and its gradients in float64."""

    def __init__(self):
        self.weights = [np.asarray(weight, "float64") for weight in WEIGHTS]

    def probabilities(self, offset=0.0):
        table, kernel, bias = self.weights
        hidden = np.tanh((table + offset)[IDS].mean(axis=1))
        exponents = np.exp(hidden @ kernel + bias)
        return hidden, exponents / exponents.sum(axis=1, keepdims=True)

    def gradients(self, targets, offset=0.0):
        """Of the mean crossentropy with the target probabilities, which also is that of KL(targets || predictions)."""
        hidden, predicted = self.probabilities(offset)
        by_logits = (predicted - targets) / len(IDS)
        by_mean = by_logits @ self.weights[1].T * (1 - hidden**2)
        by_table = np.zeros_like(self.weights[0])
        np.add.at(by_table, IDS, by_mean[:, None] / IDS.shape[1])
        return [by_table, hidden.T @ by_logits, by_logits.sum(axis=0)]

    def train(self, gradients, learning_rate):
        self.weights = [w - learning_rate * g for w, g in zip(self.weights, gradients, strict=True)]


def climb_by_hand(model, epsilon, step_size, moves):
    """The gradients at the weights and after each move."""
    offset, points = 0.0, [model.gradients(np.eye(4)[LABELS])]
    for _ in range(moves):
        slope = points[-1][0]
        offset = offset + step_size * slope / np.linalg.norm(slope)
        offset = offset * min(1.0, epsilon / np.linalg.norm(offset))
        points.append(model.gradients(np.eye(4)[LABELS], offset))
    return points


def total(*gradients):
    return [sum(parts) for parts in zip(*gradients, strict=True)]


@pytest.mark.parametrize("mode", ["graph", "eager", "xla"])
@pytest.mark.parametrize(
    ("methods", "name"),
    [
        ([FGM(0.5)], "fgm_adv"),
        ([FGM(0.5, clean=True)], "fgm_sum"),
        ([GradientPenalty(1.0)], "gp"),
    ],
    ids=["fgm", "fgm-clean", "penalty"],
)
def test_one_step_takes_the_gradients_of_the_reference(methods, name, mode):
    model = compiled(fixture_model(), run_eagerly=mode == "eager", jit_compile=mode == "xla")
    adversarial_training(model, "Embedding-Token", *methods)
    logs = model.train_on_batch(IDS, LABELS, return_dict=True)
    for before, after, part in zip(WEIGHTS, model.get_weights(), NAMES, strict=True):
        np.testing.assert_allclose(before - after, REFERENCE[f"{name}_grad_{part}"], atol=5e-7)
    np.testing.assert_allclose(logs["loss"], REFERENCE["clean_loss"], rtol=1e-6)


CLIMBS = {
    "FGM": (FGM(0.5), (0.5, 0.5, 1), lambda points: points[1]),
    "FGM with clean": (FGM(0.5, clean=True), (0.5, 0.5, 1), lambda points: total(*points)),
    "PGD": (PGD(0.6, 0.25, 4), (0.6, 0.25, 4), lambda points: points[4]),
    "PGD with clean": (PGD(0.6, 0.25, 4, clean=True), (0.6, 0.25, 4), lambda points: total(points[0], points[4])),
    "FreeLB": (
        FreeLB(0.6, 0.25, 4),
        (0.6, 0.25, 3),
        lambda points: [part / 4 for part in total(*points)],
    ),
}


@pytest.mark.parametrize("name", CLIMBS)
def test_three_steps_equal_numpy(name):
    method, arguments, chosen = CLIMBS[name]
    model, reference = compiled(fixture_model(), 0.5), ByHand()
    adversarial_training(model, "Embedding-Token", method)
    for _ in range(3):
        model.train_on_batch(IDS, LABELS)
        reference.train(chosen(climb_by_hand(reference, *arguments)), 0.5)
    for found, expected in zip(model.get_weights(), reference.weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_climb_stays_in_its_ball_and_leaves_it_without():
    """The case above does reach the ball's edge: else projection would not be tested."""
    offsets = []
    for epsilon in (0.6, 100.0):
        reference = ByHand()
        points = climb_by_hand(reference, epsilon, 0.25, 4)
        offsets.append(points[-1][0])
    assert np.abs(offsets[0] - offsets[1]).max() > 1e-4


def vat_by_hand(model, step, epsilon, xi, iterations, seed):
    _, clean = model.probabilities()
    direction = tf.random.stateless_normal(WEIGHTS[0].shape, (seed, step)).numpy().astype("float64")
    direction /= np.linalg.norm(direction)
    for _ in range(iterations):
        slope = model.gradients(clean, xi * direction)[0]
        direction = slope / np.linalg.norm(slope)
    return model.gradients(clean, epsilon * direction)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("iterations", [1, 3])
def test_virtual_adversarial_training_equals_numpy(from_logits, iterations):
    model = compiled(fixture_model(None if from_logits else "softmax"), 0.5, from_logits)
    adversarial_training(
        model, "Embedding-Token", VAT(2.0, 3.0, iterations, weight=0.7, from_logits=from_logits, seed=5)
    )
    reference = ByHand()
    for step in range(3):
        model.train_on_batch(IDS, LABELS)
        smooth = [0.7 * part for part in vat_by_hand(reference, step, 2.0, 3.0, iterations, 5)]
        reference.train(total(reference.gradients(np.eye(4)[LABELS]), smooth), 0.5)
    for found, expected in zip(model.get_weights(), reference.weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_unlabelled_batches_take_the_place_of_the_training_batch_in_turn(monkeypatch):
    others = np.random.default_rng(0).integers(0, 13, (2, 3, 7)).astype("int32")
    model = compiled(fixture_model(), 0.5)
    vat = VAT(2.0, 3.0, from_logits=True, unlabelled=tf.data.Dataset.from_tensor_slices(others))
    adversarial_training(model, "Embedding-Token", vat)
    reference = ByHand()
    for step in range(3):
        model.train_on_batch(IDS, LABELS)
        supervised = reference.gradients(np.eye(4)[LABELS])
        with monkeypatch.context() as patch:
            patch.setitem(globals(), "IDS", others[step % 2])
            smooth = vat_by_hand(reference, step, 2.0, 3.0, 1, 0)
        reference.train(total(supervised, smooth), 0.5)
    for found, expected in zip(model.get_weights(), reference.weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_methods_together_add_their_gradients():
    """FGM trains on the perturbed loss; the penalty and VAT add the gradients that they add to plain training."""

    def taken(*methods):
        model = compiled(fixture_model())
        adversarial_training(model, "Embedding-Token", *methods)
        model.train_on_batch(IDS, LABELS)
        return [before - after for before, after in zip(WEIGHTS, model.get_weights(), strict=True)]

    penalty, vat, plain = (
        GradientPenalty(0.8),
        VAT(2.0, from_logits=True),
        [REFERENCE[f"clean_grad_{n}"] for n in NAMES],
    )
    together = taken(vat, FGM(0.5), penalty)
    parts = zip(together, taken(FGM(0.5)), taken(penalty), taken(vat), plain, strict=True)
    for found, fgm, with_penalty, with_vat, clean in parts:
        np.testing.assert_allclose(found, fgm + with_penalty + with_vat - 2 * clean, atol=1e-6)


def test_penalty_per_occurrence_squares_each_tokens_gradient():
    model = fixture_model()
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, model(IDS)))
        occurrences = inner.gradient(loss, model.trainable_weights[0].value)
        total_loss = loss + 0.5 * 0.8 * tf.reduce_sum(occurrences.values**2)
    expected = outer.gradient(total_loss, [weight.value for weight in model.trainable_weights])
    adversarial_training(compiled(model), "Embedding-Token", GradientPenalty(0.8, per_occurrence=True))
    model.train_on_batch(IDS, LABELS)
    for before, after, gradient in zip(WEIGHTS, model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(before - after, tf.convert_to_tensor(gradient), atol=5e-7)


# ---- on and off


@pytest.mark.parametrize(
    "switch_on",
    [
        lambda model: adversarial_training(model, "Embedding-Token", 0.5),
        lambda model: adversarial_training(model, "Embedding-Token", epsilon=0.5),
        lambda model: adversarial_training(model, model.get_layer("Embedding-Token"), FGM(0.5)),
    ],
)
@pytest.mark.parametrize("order", ["before compile", "after compile", "after training"])
def test_it_can_be_switched_on_at_any_time_and_stays_through_compile(switch_on, order):
    model = fixture_model()
    if order != "before compile":
        compiled(model)
    if order == "after training":
        model.train_on_batch(IDS, LABELS)
        model.set_weights(WEIGHTS)
    switch_on(model)
    if order == "before compile":
        compiled(model)
    for _ in range(2):
        model.set_weights(WEIGHTS)
        model.fit(IDS, LABELS, batch_size=5, verbose=0)
        np.testing.assert_allclose(WEIGHTS[1] - model.get_weights()[1], REFERENCE["fgm_adv_grad_W"], atol=5e-7)
        compiled(model)


def test_it_can_be_switched_off_and_a_second_call_replaces_the_first():
    model = compiled(fixture_model())

    def step():
        model.set_weights(WEIGHTS)
        model.train_on_batch(IDS, LABELS)
        return WEIGHTS[1] - model.get_weights()[1]

    first = adversarial_training(model, "Embedding-Token", 3.0)
    with adversarial_training(model, "Embedding-Token", 0.5):
        first.remove()  # its place is taken
        np.testing.assert_allclose(step(), REFERENCE["fgm_adv_grad_W"], atol=5e-7)
    np.testing.assert_allclose(step(), REFERENCE["clean_grad_W"], atol=5e-7)
    adversarial_training(model, "Embedding-Token", 0.5).remove()
    np.testing.assert_allclose(step(), REFERENCE["clean_grad_W"], atol=5e-7)


def test_a_saved_model_is_the_plain_model(tmp_path):
    def config(path):
        model.save(path)
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))

    model = compiled(fixture_model())
    with adversarial_training(model, "Embedding-Token"):
        model.fit(IDS, LABELS, batch_size=5, verbose=0)
        adversarial = config(tmp_path / "adversarial.keras")
    assert config(tmp_path / "plain.keras") == adversarial
    loaded = keras.models.load_model(tmp_path / "adversarial.keras")
    assert "train_step" not in vars(loaded)
    for found, expected in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


# ---- what is refused


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("Embedding-Tokens", r"no layer named 'Embedding-Tokens'.*Embedding-Token"),
        ("classifier", r"no weight 'embeddings', and more than one other: \['kernel', 'bias'\]"),
        ("flat", "no floating-point weights"),
        (keras.layers.Embedding(3, 2, name="young"), "'young' is not built yet"),
    ],
)
def test_a_layer_without_a_table_is_refused(layer, message):
    model = fixture_model()
    model = keras.Model(model.inputs, keras.layers.Flatten(name="flat")(model.output))
    with pytest.raises(TrainingError, match=message):
        adversarial_training(model, layer)


def test_a_name_of_two_layers_is_refused():
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="same")], name="inner")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="same"), inner])
    with pytest.raises(TrainingError, match=r"2 layers named 'same': .*/same, inner/same. .*or pass the layer itself"):
        adversarial_training(model, "same")


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([FGM(), PGD()], "found FGM, PGD"),
        (["fgm"], "found str"),
    ],
)
def test_methods_that_do_not_go_together_are_refused(methods, message):
    with pytest.raises(TrainingError, match=message):
        adversarial_training(fixture_model(), "Embedding-Token", *methods)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FGM(-1), "FGM: epsilon must be a finite number of at least 0, found -1"),
        (lambda: FGM(float("nan")), "found nan"),
        (lambda: PGD(steps=1.5), r"PGD\(\) cannot take this:\n.*steps: expected int, found float 1.5"),
        (lambda: PGD(steps=0), "PGD: steps must be a whole number of at least 1, found 0"),
        (lambda: FreeLB(steps=1), "FreeLB: steps must be a whole number of at least 2"),
        (lambda: GradientPenalty("1"), "weight: expected float, found str '1'"),
        (lambda: VAT(xi=float("inf")), "VAT: xi"),
        (lambda: VAT(unlabelled=[1]), "must be a tf.data.Dataset"),
        (lambda: VAT(unlabelled=tf.data.Dataset.range(0)), "has no batches"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(TfloaderError, match=message):
        make()


def test_a_model_with_its_own_step_is_refused():
    class Own(keras.Model):
        def train_step(self, data):
            return {}

    plain = fixture_model()
    with pytest.raises(TrainingError, match="train_step of its own"):
        adversarial_training(Own(plain.inputs, plain.outputs), "Embedding-Token")
    plain.train_step = lambda data: {}
    with pytest.raises(TrainingError, match="train_step of its own"):
        adversarial_training(plain, "Embedding-Token")


def test_a_model_that_is_not_compiled_gets_keras_error():
    model = fixture_model()
    adversarial_training(model, "Embedding-Token")
    with pytest.raises(ValueError, match="compile"):
        model.fit(IDS, LABELS)


def test_vat_refuses_logits_taken_for_probabilities():
    model = compiled(fixture_model())
    adversarial_training(model, "Embedding-Token", VAT())
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"do not sum to 1.*from_logits=True"):
        model.train_on_batch(IDS, LABELS)


def test_vat_refuses_unlabelled_batches_under_xla():
    model = compiled(fixture_model(), jit_compile=True)
    unlabelled = tf.data.Dataset.from_tensors(IDS)
    adversarial_training(model, "Embedding-Token", VAT(from_logits=True, unlabelled=unlabelled))
    with pytest.raises(TrainingError, match="jit_compile=False"):
        model.train_on_batch(IDS, LABELS)


def test_a_layer_that_the_loss_does_not_depend_on_is_refused():
    model = fixture_model()
    unused = keras.layers.Embedding(3, 2, name="unused")
    aside = keras.Model(model.inputs, [model.output, unused(model.inputs[0] % 3)])
    aside.compile("sgd", [keras.losses.SparseCategoricalCrossentropy(from_logits=True), None])
    adversarial_training(aside, "unused")
    with pytest.raises(TrainingError, match="no gradient with respect to unused/embeddings"):
        aside.train_on_batch(IDS, [LABELS, LABELS])


def test_per_occurrence_penalty_of_a_tied_table_is_refused():
    table = keras.layers.ReversibleEmbedding(13, 6, name="Embedding-Token")
    tokens = keras.Input((None,), dtype="int32")
    model = compiled(keras.Model(tokens, table(table(tokens), reverse=True)))
    adversarial_training(model, "Embedding-Token", GradientPenalty(per_occurrence=True))
    with pytest.raises(TrainingError, match="per_occurrence=False"):
        model.train_on_batch(IDS, IDS)


class Subclassed(keras.Model):
    """The fixture's model; its head has no variables before the first call."""

    def __init__(self):
        super().__init__()
        self.table = keras.layers.Embedding(13, 6, name="Embedding-Token")
        self.table.build()
        self.table.set_weights(WEIGHTS[:1])
        self.head = keras.layers.Dense(4, kernel_initializer=keras.initializers.Constant(WEIGHTS[1]))

    def call(self, tokens):
        return self.head(keras.ops.tanh(keras.ops.mean(self.table(tokens), axis=1)))


@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize(
    "method", [FGM(0.5), GradientPenalty(0.5), VAT(from_logits=True)], ids=lambda item: type(item).__name__
)
def test_a_model_that_the_first_step_builds_trains_like_one_that_was_built_before(method, eagerly):
    found = []
    for before in (True, False):
        model = compiled(Subclassed(), run_eagerly=eagerly)
        if before:
            model(IDS)
        adversarial_training(model, "Embedding-Token", method)
        for _ in range(2):
            model.train_on_batch(IDS, LABELS)
        found.append(model.get_weights())
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_model_of_ones_own_around_a_loaded_one_is_attacked_before_it_is_called():
    class Around(keras.Model):
        def __init__(self):
            super().__init__()
            self.bert = tfloader.load(CHECKPOINTS / "bert_google", with_pool=True, num_hidden_layers=1)
            self.dense = keras.layers.Dense(2, kernel_initializer="zeros")

        def call(self, inputs, training=False):
            return self.dense(self.bert(inputs, training=False))

    ids, labels = np.arange(4, 16).reshape(2, 6), np.array([0, 1])
    trained = []
    for is_called in (False, True):
        model = Around()
        if is_called:
            model([ids, ids * 0])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        tfloader.adversarial_training(model, "Embedding-Token", epsilon=0.5)
        model.fit([ids, ids * 0], labels, batch_size=2, epochs=2, verbose=0)
        trained.append(model.dense.get_weights())
    np.testing.assert_allclose(trained[0][0], trained[1][0], rtol=1e-5, atol=1e-8)
    assert np.abs(trained[0][0]).max() > 0
