"""FGM with everything else that a training may have, against perturbing, differentiating and restoring by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.conftest import CHECKPOINTS
from tfloader import FGM, PGD, VAT, FreeLB, GradientPenalty, adversarial_training, load

VOCABULARY, LENGTH, EPSILON = 11, 5, 0.7
RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(0, VOCABULARY, (6, LENGTH)).astype("int32")
LABELS = RANDOM.integers(0, 3, 6).astype("int32")
ROW_WEIGHTS = RANDOM.random(6).astype("float32")
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def gradients_by_hand(model, table, x, y=None, sample_weight=None, clean=False):
    """FGM by assignment: what layers store starts from the same state in both passes, and keeps the first's."""
    weights = [weight.value for weight in model.trainable_weights]

    def differentiate():
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(table.value)
            loss = model.compute_loss(x, y, model(x, training=True), sample_weight)
            scaled = model.optimizer.scale_loss(loss)
        return tape.gradient(loss, table.value), tape.gradient(scaled, weights)

    def put(values):
        for variable, value in zip(model.non_trainable_variables, values, strict=True):
            variable.assign(value)

    before = [variable.numpy() for variable in model.non_trainable_variables]
    slope, first = differentiate()
    after = [variable.numpy() for variable in model.non_trainable_variables]
    put(before)
    slope, plain = tf.convert_to_tensor(slope), table.numpy()
    table.assign(plain + EPSILON * slope / (tf.norm(slope) + 1e-8))
    _, second = differentiate()
    put(after)
    table.assign(plain)
    if not clean:
        return second
    return [tf.convert_to_tensor(one) + tf.convert_to_tensor(other) for one, other in zip(first, second, strict=True)]


def classifier(middle, **embedding):
    tokens = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(VOCABULARY, 4, name="table", **embedding)(tokens)
    return keras.Model(tokens, layers.Dense(3, dtype="float32")(middle(x)))


def flat(**embedding):
    return classifier(layers.Flatten(), **embedding)


def with_losses_in_layers():
    def middle(x):
        x = layers.Dense(4, activity_regularizer="l2", kernel_regularizer="l2")(layers.Flatten()(x))
        return layers.ActivityRegularization(0.1)(x)

    return classifier(middle)


def dropout_and_batch_norm():
    return classifier(lambda x: layers.BatchNormalization()(layers.Dropout(0.3)(layers.Flatten()(x))))


def two_outputs():
    tokens = keras.Input((LENGTH,), dtype="int32")
    x = layers.Flatten()(layers.Embedding(VOCABULARY, 4, name="table")(tokens))
    return keras.Model(tokens, {"first": layers.Dense(3, name="first")(x), "second": layers.Dense(2, name="second")(x)})


def nested():
    tokens = keras.Input((LENGTH,), dtype="int32")
    inner = keras.Model(tokens, layers.Flatten()(layers.Embedding(VOCABULARY, 4, name="table")(tokens)), name="inner")
    return keras.Sequential([inner, layers.Dense(3)])


def frozen():
    model = flat()
    model.get_layer("table").trainable = False
    return model


def lora():
    model = classifier(layers.Flatten())
    table = model.get_layer("table")
    table.enable_lora(2)
    table.lora_embeddings_b.assign(np.random.default_rng(1).normal(size=(2, 4)))
    return model


def tied():
    tokens = keras.Input((LENGTH,), dtype="int32")
    table = layers.ReversibleEmbedding(VOCABULARY, 4, name="table")
    return keras.Model(tokens, table(layers.Dense(4, activation="tanh")(table(tokens)), reverse=True))


class Subclassed(keras.Model):
    """Built by hand, and its call takes no `training`."""

    def __init__(self):
        super().__init__()
        self.table = layers.Embedding(VOCABULARY, 4, name="table")
        self.dense = layers.Dense(3)
        self.build((None, LENGTH))

    def build(self, shape):
        self.table.build(shape)
        self.dense.build((None, LENGTH * 4))
        self.built = True

    def call(self, x):
        return self.dense(keras.ops.reshape(self.table(x), (-1, LENGTH * 4)))


def bert():
    return load(CHECKPOINTS / "bert_google", with_mlm="linear", num_hidden_layers=1)


def endpoint_loss():
    class Endpoint(layers.Layer):
        def call(self, x, labels):
            self.add_loss(CROSSENTROPY(labels, x))
            return x

    tokens, labels = keras.Input((LENGTH,), dtype="int32"), keras.Input((), dtype="int32")
    x = layers.Dense(3)(layers.Flatten()(layers.Embedding(VOCABULARY, 4, name="table")(tokens)))
    return keras.Model([tokens, labels], Endpoint()(x, labels))


def table_of(model):
    found = [weight for weight in model.weights if weight.path.endswith(("table/embeddings", "Token/embeddings"))]
    assert len(found) == 1
    return found[0]


def three_steps(build, batch, compile_options, hooked, optimizer, clean=False, policy=None):
    """All variables of the model and its optimizer after three steps, and the last logs."""
    keras.utils.set_random_seed(3)
    if policy:
        keras.config.set_dtype_policy(policy)
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(optimizer(), **compile_options)
    table, logs = table_of(model), None
    if hooked:
        layer = "Embedding-Token" if "Token" in table.path else getattr(model, "table", "table")
        adversarial_training(model, layer, FGM(EPSILON, clean=clean))
    for _ in range(3):
        if hooked:
            logs = model.train_on_batch(*batch, return_dict=True)
        else:
            gradients = gradients_by_hand(model, table, *batch, clean=clean)
            model.optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
    state = [*model.trainable_weights, *model.non_trainable_variables, *model.optimizer.variables]
    return [np.asarray(keras.ops.cast(item, "float32")) for item in state if "metric" not in item.path], logs


def sgd():
    return keras.optimizers.SGD(0.5, momentum=0.5)


PLAIN = {"loss": CROSSENTROPY}
CASES = {
    "plain": (flat, (IDS, LABELS), PLAIN),
    "sample weights": (flat, (IDS, LABELS, ROW_WEIGHTS), PLAIN),
    "dropout and batch norm": (dropout_and_batch_norm, (IDS, LABELS), PLAIN),
    "losses in layers": (with_losses_in_layers, (IDS, LABELS), PLAIN),
    "regularized table": (lambda: flat(embeddings_regularizer=keras.regularizers.L2(0.3)), (IDS, LABELS), PLAIN),
    "only a loss in a layer": (endpoint_loss, ([IDS, LABELS],), {}),
    "two outputs": (
        two_outputs,
        (IDS, {"first": LABELS, "second": LABELS % 2}),
        {"loss": {"first": CROSSENTROPY, "second": CROSSENTROPY}, "loss_weights": {"first": 1.0, "second": 0.3}},
    ),
    "LSTM": (lambda: classifier(layers.LSTM(3, dropout=0.2, recurrent_dropout=0.2)), (IDS, LABELS), PLAIN),
    "nested": (nested, (IDS, LABELS), PLAIN),
    "frozen table": (frozen, (IDS, LABELS), PLAIN),
    "LoRA on the table": (lora, (IDS, LABELS), PLAIN),
    "tied output": (tied, (IDS, IDS), PLAIN),
    "subclassed": (Subclassed, (IDS, LABELS), PLAIN),
    "BERT with tied output": (bert, ([IDS, IDS % 2], IDS), PLAIN),
}


@pytest.mark.parametrize(
    ("case", "clean"), [*((case, False) for case in CASES), ("tied output", True), ("two outputs", True)]
)
def test_three_steps_equal_those_by_hand(case, clean):
    build, batch, options = CASES[case]
    found, _ = three_steps(build, batch, options, True, sgd, clean)
    expected, _ = three_steps(build, batch, options, False, sgd, clean)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("case", ["losses in layers", "two outputs"])
def test_three_eager_steps_equal_those_by_hand(case):
    build, batch, options = CASES[case]
    found, _ = three_steps(build, batch, {**options, "run_eagerly": True}, True, sgd)
    expected, _ = three_steps(build, batch, options, False, sgd)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-6)


def test_three_steps_under_xla_equal_those_by_hand():
    build, batch, options = CASES["tied output"]
    found, _ = three_steps(build, batch, {**options, "jit_compile": True}, True, sgd)
    expected, _ = three_steps(build, batch, options, False, sgd)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3),
        lambda: keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.1),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=64.0),
    ],
    ids=["accumulation", "EMA", "decay and clipping", "loss scale"],
)
def test_optimizers_get_the_gradients_they_expect(optimizer):
    build, batch, options = CASES["plain"]
    found, _ = three_steps(build, batch, options, True, optimizer)
    expected, _ = three_steps(build, batch, options, False, optimizer)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-6)


@pytest.mark.parametrize(("policy", "tolerance"), [("mixed_bfloat16", 2e-2), ("mixed_float16", 3e-3)])
def test_mixed_precision_equals_the_same_by_hand(policy, tolerance):
    """The tolerance is that of half precision in another order of summation."""
    build, batch, options = CASES["dropout and batch norm"]
    optimizer = sgd if policy == "mixed_bfloat16" else lambda: keras.optimizers.LossScaleOptimizer(sgd(), 64.0)
    found, _ = three_steps(build, batch, options, True, optimizer, policy=policy)
    expected, _ = three_steps(build, batch, options, False, optimizer, policy=policy)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance)


# ---- what is left as it was


@pytest.mark.parametrize("case", ["dropout and batch norm", "two outputs"])
def test_with_epsilon_zero_it_is_plain_training_metrics_and_state_included(case):
    build, batch, options = CASES[case]

    def trained(hooked):
        keras.utils.set_random_seed(3)
        model = build()
        metrics = {"first": "accuracy", "second": "accuracy"} if case == "two outputs" else ["accuracy"]
        model.compile(sgd(), **options, metrics=metrics)
        if hooked:
            adversarial_training(model, "table", 0.0)
        history = model.fit(*batch, batch_size=2, epochs=2, shuffle=False, verbose=0).history
        return history, [np.asarray(item) for item in model.variables]

    found, state = trained(True)
    expected, plain_state = trained(False)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6, err_msg=name)
    for one, other in zip(state, plain_state, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


METHODS = {
    "FGM": [FGM(2.0)],
    "PGD": [PGD(2.0, steps=2)],
    "FreeLB": [FreeLB(2.0, steps=2)],
    "FGM, penalty and VAT": [FGM(2.0, clean=True), GradientPenalty(), VAT(from_logits=True)],
}


@pytest.mark.parametrize("name", METHODS)
def test_metrics_and_stored_state_are_those_of_the_clean_pass(name):
    """Two outputs, whose losses Keras counts inside of compute_loss, and a batch norm and dropout before them."""

    def one_step(*methods):
        keras.utils.set_random_seed(3)
        tokens = keras.Input((LENGTH,), dtype="int32")
        x = layers.Flatten()(layers.Embedding(VOCABULARY, 4, name="table")(tokens))
        x = layers.Dropout(0.3)(layers.BatchNormalization()(x))
        model = keras.Model(tokens, [layers.Dense(3, name="a")(x), layers.Dense(2, name="b")(x)])
        model.compile(keras.optimizers.SGD(0.0), [CROSSENTROPY, CROSSENTROPY], metrics=["accuracy", "accuracy"])
        before = model.get_weights()
        if methods:
            adversarial_training(model, "table", *methods)
        logs = model.train_on_batch(IDS, [LABELS, LABELS % 2], return_dict=True)
        trainable = {id(weight) for weight in model.trainable_weights}
        for weight, value in zip(model.weights, before, strict=True):
            if id(weight) in trainable:
                np.testing.assert_array_equal(weight.numpy(), value)  # bit for bit
        logs = {name: float(value) for name, value in logs.items()}
        return logs, [np.asarray(item) for item in model.non_trainable_variables]

    logs, state = one_step(*METHODS[name])
    expected, plain_state = one_step()
    assert logs == pytest.approx(expected, rel=1e-6)
    for one, other in zip(state, plain_state, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("failure", ["loss scale overflow", "operation fails"])
def test_weights_stay_bit_equal_when_the_perturbed_pass_fails(failure):
    class Brittle(layers.Layer):
        def call(self, x):
            size = tf.reduce_max(tf.abs(x))
            if failure == "loss scale overflow":
                return x * tf.exp(size)
            with tf.control_dependencies([tf.debugging.assert_less(size, 10.0, message="too far")]):
                return tf.identity(x)

    model = classifier(lambda x: Brittle()(layers.Flatten()(x)))
    # Other operations of the step may still run beside the one that fails. With a rate of 0 no update hides the rest.
    inner = keras.optimizers.SGD(0.5 if failure == "loss scale overflow" else 0.0)
    model.compile(keras.optimizers.LossScaleOptimizer(inner), CROSSENTROPY)
    before = model.get_weights()
    with adversarial_training(model, "table", 1e4):
        if failure == "loss scale overflow":
            model.train_on_batch(IDS, LABELS)
        else:
            with pytest.raises(tf.errors.InvalidArgumentError, match="too far"):
                model.train_on_batch(IDS, LABELS)
    for found, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


# ---- ways of running


def test_steps_per_execution_and_fit_equal_single_batches():
    def trained(fit):
        keras.utils.set_random_seed(3)
        model = flat()
        model.compile(sgd(), CROSSENTROPY, metrics=["accuracy"], steps_per_execution=3 if fit else 1)
        adversarial_training(model, "table", PGD(0.7, 0.3, 2), GradientPenalty(0.1))
        if fit:
            model.fit(IDS, LABELS, batch_size=2, epochs=2, shuffle=False, verbose=0)
        else:
            for _ in range(2):
                for start in range(0, 6, 2):
                    model.train_on_batch(IDS[start : start + 2], LABELS[start : start + 2])
        return model.get_weights()

    for found, expected in zip(trained(True), trained(False), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_class_weights_equal_sample_weights():
    def trained(**options):
        keras.utils.set_random_seed(3)
        model = flat()
        model.compile(sgd(), CROSSENTROPY)
        adversarial_training(model, "table")
        model.fit(IDS, LABELS, batch_size=6, verbose=0, shuffle=False, **options)
        return model.get_weights()

    by_class = trained(class_weight={0: 0.5, 1: 2.0, 2: 1.0})
    by_row = trained(sample_weight=np.array([0.5, 2.0, 1.0], "float32")[LABELS])
    for found, expected in zip(by_class, by_row, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_evaluate_and_predict_do_not_attack():
    model = flat()
    model.compile(sgd(), CROSSENTROPY)
    expected = model.evaluate(IDS, LABELS, verbose=0), model.predict(IDS, verbose=0)
    adversarial_training(model, "table", 100.0)
    assert model.evaluate(IDS, LABELS, verbose=0) == expected[0]
    np.testing.assert_array_equal(model.predict(IDS, verbose=0), expected[1])


@pytest.mark.parametrize(
    "methods",
    [
        [FGM(EPSILON, clean=True), GradientPenalty(0.5), VAT(from_logits=True)],
        [PGD(EPSILON, 0.5, 2), GradientPenalty(0.5, per_occurrence=True)],
    ],
    ids=["FGM, penalty and VAT", "PGD and penalty per occurrence"],
)
def test_two_replicas_equal_one_device_with_the_whole_batch(methods, two_replicas):
    def trained():
        keras.utils.set_random_seed(3)
        model = flat()
        model.compile(sgd(), CROSSENTROPY, metrics=["accuracy"])
        adversarial_training(model, "table", *methods)
        history = model.fit(IDS, LABELS, batch_size=6, epochs=3, shuffle=False, verbose=0).history
        return history, model.get_weights()

    with two_replicas.scope():
        history, weights = trained()
    expected_history, expected = trained()
    for found, one_device in zip(weights, expected, strict=True):
        np.testing.assert_allclose(found, one_device, atol=2e-6)
    for name, values in history.items():
        np.testing.assert_allclose(values, expected_history[name], rtol=1e-5)


def test_two_replicas_draw_unlabelled_batches_and_train(two_replicas):
    with two_replicas.scope():
        model = dropout_and_batch_norm()
        model.compile(sgd(), CROSSENTROPY)
        unlabelled = tf.data.Dataset.from_tensor_slices(IDS).batch(2)
        adversarial_training(model, "table", VAT(from_logits=True, unlabelled=unlabelled))
        history = model.fit(IDS, LABELS, batch_size=6, epochs=3, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
