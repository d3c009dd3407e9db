"""Names, globs and expressions: what they choose, and what they say where they choose nothing."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader.errors import TrainingError
from tfloader.optimizers import NORMS_AND_BIASES
from tfloader.selection import all_layers, as_patterns, layer_named, matches, path, search, select

PATHS = [
    *(f"Transformer-{index}-FeedForward/kernel" for index in (0, 1, 10, 11)),
    "Transformer-1-FeedForward-Norm/gamma",
    "Embedding-Norm/gamma",
    "Head/dense/bias",
    "Head/dense_1/hidden_bias",
]
LAYERS = [SimpleNamespace(path=path) for path in PATHS]


def chosen(pattern: str) -> list[str]:
    """What an optimizer's argument chooses of PATHS."""
    return [path for path, fitting in zip(PATHS, matches([pattern], LAYERS, "argument"), strict=True) if fitting]


@pytest.fixture(scope="module")
def bert() -> keras.Model:
    return tfloader.load(CHECKPOINTS / "bert_google", with_pool=True)


@pytest.mark.parametrize(
    ("expression", "text", "found"),
    [
        ("Transformer-1", "Transformer-1-FeedForward/kernel", True),
        ("Transformer-1", "Transformer-10-FeedForward/kernel", False),
        ("0-FeedForward", "Transformer-10-FeedForward/kernel", False),
        (r"Transformer-\d", "Transformer-10-FeedForward/kernel", False),
        (r"Transformer-\d+", "Transformer-10-FeedForward/kernel", True),
        ("1", "dense_1/kernel_11", True),
        ("bias$", "dense/bias", True),
        ("bias$", "dense/bias_1", False),
        ("Norm|bias", "Embedding-Norm/gamma", True),
    ],
)
def test_an_expression_is_searched_and_never_cuts_a_number(expression, text, found):
    assert search(expression, text) is found


@given(st.integers(0, 999), st.integers(0, 999))
def test_a_blocks_number_chooses_that_block_alone(one, two):
    found = matches(
        [f"Transformer-{one}"], [SimpleNamespace(path=f"Transformer-{two}-Norm/beta")], "a", [f"Transformer-{one}"]
    )
    assert bool(found[0]) is (one == two)


@pytest.mark.parametrize(
    ("pattern", "found"),
    {
        "Transformer-1": [PATHS[1], PATHS[4]],
        "re:Transformer-1": [PATHS[1], PATHS[4]],
        "Norm": PATHS[4:6],
        "Embedding-Norm": PATHS[5:6],
        "*-Norm": PATHS[4:6],
        "*/bias": PATHS[6:7],
        "re:Norm|bias$": PATHS[4:],
        "^Transformer-1-": [PATHS[1], PATHS[4]],
        "Norm|Head/": PATHS[4:],
        r"Transformer-\d\d": PATHS[2:4],
        "re:(^|/)dense(/|$)": PATHS[6:7],
        "Head": PATHS[6:],
        "gamma": PATHS[4:6],
    }.items(),
)
def test_an_optimizers_argument_takes_names_globs_and_bert4keras_expressions(pattern, found):
    assert chosen(pattern) == found


@pytest.mark.parametrize(
    ("pattern", "replacements"),
    {
        "Transformer-1-FeedForward": ["re:Transformer-1-FeedForward", "re:(^|/)Transformer-1-FeedForward(/|$)"],
        "bias": ["re:bias", "re:(^|/)bias(/|$)"],
        "dense": ["re:dense", "re:(^|/)dense(/|$)"],
        "Head/dense*": ["re:Head/dense*"],
    }.items(),
)
def test_what_bert4keras_would_read_otherwise_is_refused_with_the_exact_replacements(pattern, replacements):
    if pattern == "Head/dense*":  # the glob and the expression happen to agree
        assert chosen(pattern) == chosen(replacements[0]) == PATHS[6:]
        return
    with pytest.raises(TrainingError, match="reads in two ways") as caught:
        chosen(pattern)
    assert all(repr(item) in str(caught.value) for item in replacements)
    assert chosen(replacements[0]) != chosen(replacements[1])
    assert chosen(replacements[1]) == [path for path in PATHS if f"/{pattern}/" in f"/{path}/"]


def test_norms_and_biases_of_keras_and_tfloader_layers():
    (expression,) = NORMS_AND_BIASES
    expression = expression.removeprefix("re:")
    names = ("gamma", "beta", "scale", "bias")
    assert all(search(expression, f"layer/{name}") and search(expression, name) for name in names)
    assert not any(search(expression, f"layer/{name}_dense/kernel") for name in names)


def test_all_that_is_wrong_is_said_at_once_with_near_names():
    with pytest.raises(TrainingError) as caught:
        matches(["Transfomer-1-FeedForward", "re:*-Norm", "(", "Norm", "nonsense!"], LAYERS, "paramwise_lr_schedule")
    message = str(caught.value)
    assert "paramwise_lr_schedule" in message and "frozen" in message
    assert "'Transfomer-1-FeedForward'; did you mean 'Transformer-1-FeedForward'" in message
    assert "'re:*-Norm' is not a regular expression" in message and "'(' is not a regular expression" in message
    assert "'nonsense!'" in message and "'Norm'" not in message


def test_optional_patterns_may_choose_nothing():
    assert matches(["none"], LAYERS, "argument", optional=["none"]) == [[] for _ in LAYERS]


@pytest.mark.parametrize(
    "pattern", ["Transformer-1", "Norm", "Pooler-Dense", "query", "bias", "*-Norm", "re:FeedForward/", "*/kernel"]
)
def test_a_name_means_the_same_for_freezing_and_for_an_optimizer(bert, pattern):
    found = matches([pattern], bert.trainable_variables, "argument")
    assert select(bert, pattern) == [item for item, own in zip(bert.trainable_variables, found, strict=True) if own]


def test_one_name_freezes_a_block_and_another_the_layer_alone(bert):
    assert {item.path.split("-")[1] for item in select(bert, "Transformer-1")} == {"1"}
    assert len(select(bert, "Transformer-1")) == 16
    assert {item.path.split("/")[0] for item in select(bert, "Transformer-1-FeedForward")} == {
        "Transformer-1-FeedForward"
    }


@pytest.mark.parametrize("pattern", ["", "re:"])
def test_an_empty_pattern_chooses_nothing_and_not_everything(bert, pattern):
    with pytest.raises(TrainingError, match=repr(pattern)):
        select(bert, pattern)
    with pytest.raises(TrainingError, match=repr(pattern)):
        matches([pattern], bert.trainable_variables, "argument")


def test_select_keeps_the_models_order_and_names_all_that_choose_nothing(bert):
    found = select(bert, ["Pooler-Dense", "Embedding-Token"])
    assert [item.path.split("/")[0] for item in found] == ["Embedding-Token", "Pooler-Dense", "Pooler-Dense"]
    with pytest.raises(TrainingError) as caught:
        select(bert, ["Embeding-Token", "re:[", "^Pooler"])
    assert "'Embeding-Token'; did you mean 'Embedding-Token'" in str(caught.value)
    assert "'re:[' is not a regular expression" in str(caught.value) and "'^Pooler'" in str(caught.value)


@pytest.mark.parametrize("pattern", ["Transformer-0-*/query", "re:0-Multi.*/query", "Transformer-0-*query"])
def test_a_layer_is_found_at_any_depth(bert, pattern):
    assert layer_named(bert, pattern) is bert.get_layer("Transformer-0-MultiHeadSelfAttention").query


def test_a_layer_must_be_one(bert):
    with pytest.raises(TrainingError, match="layers named 'query': Transformer-0-MultiHeadSelfAttention/query, "):
        layer_named(bert, "query")
    with pytest.raises(TrainingError, match=r"no layer named 'Embeddings-Token'; did you mean 'Embedding-Token'"):
        layer_named(bert, "Embeddings-Token")
    with pytest.raises(TrainingError, match="not a regular expression"):
        layer_named(bert, "re:(")


def test_layers_are_found_in_lists_dictionaries_and_models_within_layers():
    class Box(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.many = [keras.layers.Dense(1, name="listed"), {"a": keras.layers.Dense(1, name="named")}]
            self.model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="inner")])
            self.again = self.many[0]

        def call(self, x):
            return self.model(self.many[1]["a"](self.many[0](x)))

    x = keras.Input((1,))
    model = keras.Model(x, keras.layers.TimeDistributed(keras.layers.Dense(1, name="wrapped"))(Box()(x)[:, None]))
    names = [layer.name for layer in all_layers(model)]
    assert {"listed", "named", "inner", "wrapped"} <= set(names) and len(names) == len(set(names))
    held = {id(item) for layer in all_layers(model) for item in layer.weights}
    assert held == {id(item) for item in model.weights}


def test_a_lone_string_is_one_pattern():
    assert as_patterns("bias") == ("bias",) and as_patterns(None) == () and as_patterns(["a", "b"]) == ("a", "b")


def test_variables_of_tensorflow_are_known_by_their_names():
    import tensorflow as tf

    assert path(tf.Variable(0.0, name="dense/kernel")) == "dense/kernel"
    assert path(keras.Variable(0.0, name="kernel")) == "kernel"
