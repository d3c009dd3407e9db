"""Which variables decay, on real models, and that this is saved."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.optimizers import small
from tests.optimizers.reference import variables
from tfloader import optimizers
from tfloader.errors import TrainingError

AdamW = optimizers.extend_with_weight_decay(keras.optimizers.Adam)


def decayed(optimizer, model) -> set[str]:
    """The paths of what shrinks where all gradients are zero."""
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones(variable.shape))
    optimizer.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables], model.trainable_variables)
    shrunk = {v.path: float(keras.ops.max(v)) for v in model.trainable_variables if float(keras.ops.max(v)) != 1}
    assert all(value == pytest.approx(0.99, abs=1e-6) for value in shrunk.values())
    return set(shrunk)


@pytest.mark.parametrize("name", ["bert_google", "t5_mesh_v10", "mt5_mesh", "hf_gpt2"])
def test_all_but_norms_and_biases_decay(name):
    model = tfloader.load(str(CHECKPOINTS / name))
    norms = (keras.layers.LayerNormalization, keras.layers.RMSNormalization)
    expected = {v.path for v in model.trainable_variables} - {
        variable.path
        for layer in model._flatten_layers()
        for variable in layer.variables
        if isinstance(layer, norms) or len(variable.shape) == 1
    }
    assert expected and decayed(AdamW(1.0, weight_decay_rate=0.01), model) == expected
    kinds = {path.rpartition("/")[2] for path in expected}
    assert kinds <= {"kernel", "embeddings"}


def test_bert4keras_pattern_for_norms_and_biases_excludes_the_same_variables():
    model = tfloader.load(str(CHECKPOINTS / "bert_google"), with_mlm=True)
    default = decayed(AdamW(1.0), model)
    assert decayed(AdamW(1.0, exclude_from_weight_decay=["Norm", "bias"]), model) == default
    assert decayed(AdamW(1.0, exclude_from_weight_decay=()), model) == {v.path for v in model.trainable_variables}


def test_keras_own_method_excludes_by_variable_and_by_name_and_is_saved():
    model = small.model()
    optimizer = optimizers.extend(keras.optimizers.AdamW, optimizers.ParameterWiseLearningRate)(1.0, weight_decay=0.01)
    optimizer.exclude_from_weight_decay(var_list=[model.get_layer("head").kernel], var_names=["norm", "bias"])
    read = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert decayed(optimizer, model) == {"table/embeddings", model.get_layer("dense").kernel.path}
    assert decayed(read, model) == {"table/embeddings", model.get_layer("dense").kernel.path}
    with pytest.raises(TrainingError, match="before"):
        optimizer.exclude_from_weight_decay(var_names=["dense"])


def test_decay_is_that_of_keras_adamw_bit_by_bit():
    values = {"a/kernel": np.random.default_rng(0).normal(size=(3, 4))}
    gradient = keras.ops.ones((3, 4))
    found = []
    for optimizer in (
        keras.optimizers.AdamW(0.1, weight_decay=0.3),
        AdamW(0.1, weight_decay_rate=0.3),
        optimizers.extend(keras.optimizers.AdamW, optimizers.LayerAdaptation)(
            0.1, weight_decay=0.3, exclude_from_layer_adaptation=["a"]
        ),
    ):
        (variable,) = variables(values, "float32")
        for _ in range(3):
            optimizer.apply([gradient], [variable])
        found.append(variable.numpy())
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_an_exclusion_that_matches_nothing_is_refused():
    with pytest.raises(TrainingError, match=r"exclude_from_weight_decay.*\n.*'LayerNrom'"):
        small.fit(AdamW(exclude_from_weight_decay=["LayerNrom"]))
