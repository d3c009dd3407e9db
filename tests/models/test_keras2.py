"""What bert4keras and keras-bert saved under Keras 2 is read by the names of layers, never by position."""

from __future__ import annotations

import os
from itertools import count

import h5py
import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.releases import case
from tfloader.checkpoints import open_checkpoint
from tfloader.checkpoints.keras2 import counted
from tfloader.errors import CheckpointError, WeightsError
from tfloader.layers import ConditionalRandomField, EfficientGlobalPointer, GlobalPointer
from tfloader.naming import find_config

CASES = (
    "bert_google",
    "albert_google",
    "electra_google",
    "b4k_nezha",
    "b4k_roformer",
    "b4k_roformer_v2",
    "gau_alpha",
    "b4k_gpt_segtable",
    "b4k_gpt2",
    "gpt2_ml",
    "b4k_t5_pegasus",
)
BERT = CHECKPOINTS / "bert_google"
# The sublayers of bert4keras' layers in the order in which it makes them, by a sublayer of ours that tells the kind.
SUBLAYERS = (
    ("query", ("query", "key", "value", "output_dense")),
    ("intermediate", ("intermediate", "output_dense")),
    ("gate", ("gate", "up", "output_dense")),
    ("i_dense", ("i_dense", "o_dense")),
    ("qk_dense", ("qk_dense",)),
    ("p_dense", ("p_dense", "q_dense")),
)
WEIGHTS = {"scale": "gamma", "transitions": "trans"}


def weights_of(layer, numbers):
    """(name, array) as Keras 2 has them: sublayers numbered through the program, beta before gamma."""
    for known_by, names in SUBLAYERS:
        if getattr(layer, known_by, None) is not None:
            for dense in (getattr(layer, name) for name in names):
                number = next(numbers)
                for weight in dense.weights:
                    yield f"{layer.name}/dense_{number}/{weight.name}:0".replace("dense_0/", "dense/"), weight
            if known_by == "i_dense":
                for gamma in (layer.q_gamma, layer.k_gamma):
                    yield f"{layer.name}/scale_offset_{next(numbers)}/gamma:0", gamma
            return
    if isinstance(layer, keras.layers.Bidirectional):
        yield from ((f"{weight.path}:0", weight) for weight in layer.weights)
        return
    for weight in reversed(layer.weights):
        name = "beta" if layer.name == "MLM-Bias" else WEIGHTS.get(weight.name, weight.name)
        yield f"{layer.name}/{name}:0", weight


def write(path, model, root="", start=0, group=None):
    """The file that `save_weights` of Keras 2 writes of a model, or `save` (in the group "model_weights")."""
    numbers = count(start)
    with h5py.File(path, "w") as file:
        for layer in model.layers:
            for name, weight in weights_of(layer, numbers):
                file[f"{root}{group or layer.name}/{name}"] = np.asarray(weight.value)
        if root:
            file["optimizer_weights/Adam/iterations:0"] = np.int64(3)
    return path


def same(a, b):
    return all(np.array_equal(*pair) for pair in zip(a.get_weights(), b.get_weights(), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_the_weights_of_each_family_are_read_by_layer(name, tmp_path):
    release = case(name)
    model = tfloader.load(release.path, **release.options)
    config = find_config(release.path, model.transformer.release)
    path = write(tmp_path / "best_model.weights", model, start=9)
    options = release.options | {"model": model.transformer.config.family}
    assert same(tfloader.load(path, config=config, **options), model)


@pytest.mark.parametrize(("root", "group"), [("", None), ("model_weights/", None), ("", "model_1"), ("", "Embedding")])
@pytest.mark.parametrize("ending", [".weights", ".h5"])
def test_a_file_of_save_and_a_model_within_a_model_are_read_too(root, group, ending, tmp_path):
    model = tfloader.load(BERT, with_mlm="linear", with_nsp="linear")
    path = write(f"{tmp_path}/best_model{ending}", model, root, group=group)
    again = tfloader.build_transformer_model(BERT / "bert_config.json", path, with_mlm="linear", with_nsp="linear")
    assert same(again, model)


def test_a_family_that_layers_do_not_tell_has_to_be_named(tmp_path):
    path = write(tmp_path / "best_model.weights", tfloader.load(BERT))
    with pytest.raises(CheckpointError, match=r"Pass model='bert' or model='electra'"):
        tfloader.load(path, config=BERT / "bert_config.json")


def test_a_layer_of_the_users_own_is_left_over_unless_ignored(tmp_path):
    bert = tfloader.load(BERT)
    model = keras.Model(bert.inputs, keras.layers.Dense(3, name="dense_25")(bert.output))
    path, options = (
        write(tmp_path / "best_model.weights", model),
        {"config": BERT / "bert_config.json", "model": "bert"},
    )
    with pytest.raises(WeightsError, match=r"dense_25/kernel.*has no use"):
        tfloader.load(path, **options)
    assert same(tfloader.load(path, ignore=["dense_25/*"], **options), bert)


def tagger(seed, lr_multiplier=100, head="dense_25"):
    keras.utils.set_random_seed(seed)
    bert = tfloader.load(BERT)
    x = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True), name="bidirectional_1")(bert.output)
    tags = ConditionalRandomField(lr_multiplier, name="conditional_random_field_1")(keras.layers.Dense(3, name=head)(x))
    spans = GlobalPointer(2, 4, name="global_pointer_1")(bert.output)
    more = EfficientGlobalPointer(2, 4, name="efficient_global_pointer_1")(bert.output)
    model = keras.Model(bert.inputs, [tags, spans, more])
    for variable in model.weights:
        variable.assign(keras.random.normal(variable.shape))
    return model


def test_heads_of_the_users_own_come_along(tmp_path):
    model, other = tagger(1), tagger(2)
    path = write(tmp_path / "best_model.weights", model)
    assert not same(other, model)
    tfloader.load_keras2_weights(other, path)
    assert same(other, model)

    renamed = tagger(3, head="dense")
    with pytest.raises(WeightsError, match=r"(?s)dense/kernel has no tensor.*rename="):
        tfloader.load_keras2_weights(renamed, path)
    assert not same(renamed, model)
    tfloader.load_keras2_weights(renamed, path, rename={"dense": "dense_25"})
    assert same(renamed, model)


def test_other_shapes_and_other_files_are_refused(tmp_path):
    bert = tfloader.load(BERT)
    path = write(tmp_path / "best_model.weights", bert)
    with pytest.raises(WeightsError, match=r"Embedding-Token/embeddings has shape \(211, 48\), the model's \(9, 48\)"):
        tfloader.load_keras2_weights(tfloader.load(BERT, keep_tokens=[*range(9)]), path)
    with pytest.raises(CheckpointError, match="not an HDF5 file in which Keras 2"):
        tfloader.load_keras2_weights(bert, CHECKPOINTS / "hf_bert_h5" / "tf_model.h5")
    bert.save_weights(tmp_path / "of_keras_3.weights.h5")
    with pytest.raises(CheckpointError, match="not an HDF5 file in which Keras 2"):
        tfloader.load_keras2_weights(bert, tmp_path / "of_keras_3.weights.h5")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["dense_9", "dense_10", "dense_8"], {"dense_8": "dense_0", "dense_9": "dense_1", "dense_10": "dense_last"}),
        (["dense_1", "dense"], {"dense": "dense_0", "dense_1": "dense_last"}),
        (["dense_3", "norm_7"], {"dense_3": "dense_0", "norm_7": "norm_0"}),
        ([], {}),
    ],
)
def test_sublayers_are_counted_in_the_order_in_which_they_were_made(names, expected):
    assert counted(names) == expected


def test_keras_bert_is_read(tmp_path):
    model = tfloader.load(BERT, with_nsp="linear", with_mlm="linear")
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:

        def put(layer, name, weight):
            file[f"{layer}/{layer}/{name}:0"] = np.asarray(weight)

        for layer in model.layers:
            name = layer.name
            if name.startswith("Transformer-"):
                number = int(name.split("-")[1])
                name = name.replace(f"Transformer-{number}", f"Encoder-{number + 1}")
            name = {"Pooler-Dense": "NSP-Dense", "NSP-Proba": "NSP", "MLM-Bias": "MLM-Sim"}.get(name, name)
            parts = {"q": "query", "k": "key", "v": "value", "o": "output_dense"} if hasattr(layer, "query") else {}
            parts = {"1": "intermediate", "2": "output_dense"} if hasattr(layer, "intermediate") else parts
            for letter, part in parts.items():
                put(name, f"{name}_W{letter}", getattr(layer, part).kernel)
                put(name, f"{name}_b{letter}", getattr(layer, part).bias)
            for weight in [] if parts else layer.weights:
                put(name, weight.name, weight)
    again = tfloader.load(path, config=BERT / "bert_config.json", with_nsp="linear", with_mlm="linear")
    assert again.transformer.release.name == "keras_bert" and same(again, model)
    assert again.transformer.config.layer_norm_eps == 1e-14


def test_two_tensors_of_one_name_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["Embedding-Token/Embedding-Token/embeddings:0"] = np.zeros((3, 2))
        file["Embedding-Token/Embedding-Token_1/embeddings:0"] = np.ones((3, 2))
    with pytest.raises(CheckpointError, match=r"go by one name.*\n.*Embedding-Token/embeddings"):
        open_checkpoint(os.fspath(path))
