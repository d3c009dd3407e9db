"""ALBERT beyond what all families promise: weights in groups, bert4keras' two variants, training what is shared."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS, FIXTURES
from tests.releases import case, relative_error
from tfloader import build_transformer_model
from tfloader.errors import CheckpointError, ConfigError, TrainingError, WeightsError

GOOGLE = case("albert_google")
UNSHARED = CHECKPOINTS / "b4k_albert_unshared"
TOKENS = np.array([[101, 110, 90, 102], [101, 7, 0, 0]])
INPUTS = [TOKENS, TOKENS * 0]


def arrays_of(folder):
    return dict(np.load(folder / "inputs.npz")) | dict(np.load(folder / "outputs.npz"))


# ---- bert4keras' numbers


@pytest.mark.parametrize("act", ["erf", "tanh"])
def test_either_gelu_gives_bert4keras_numbers(act):
    wanted = np.load(FIXTURES / "compat_bert4keras" / "albert_google.npz")
    values = [GOOGLE.arrays["input_ids"], GOOGLE.arrays["segment_ids"]]
    for output, options in (
        ("sequence_output", {}),
        ("pooled_output", {"with_pool": True}),
        ("mlm_logits", {"with_mlm": "linear"}),
    ):
        compat = {"compat": "bert4keras"} | ({"hidden_act": "gelu_tanh"} if act == "tanh" else {})
        model = build_transformer_model(None, GOOGLE.path, "albert", **compat, **options)
        assert relative_error(model(values), wanted[f"{output}_{act}"]) < 5e-6


UNSHARED_ROWS = [
    ("sequence_output", {}),
    ("pooled_output", {"with_pool": True}),
    ("sop_probs", {"with_nsp": True}),
    ("mlm_logits", {"with_mlm": "linear"}),
    ("unilm_logits", {"application": "unilm", "with_mlm": "linear"}),
]


@pytest.mark.parametrize(("output", "options"), UNSHARED_ROWS, ids=[row[0] for row in UNSHARED_ROWS])
def test_unshared_gives_bert4keras_numbers(output, options):
    data = arrays_of(UNSHARED)
    model = build_transformer_model(None, UNSHARED, "albert_unshared", compat="bert4keras", **options)
    assert relative_error(model([data["input_ids"], data["segment_ids"]]), data[output]) < 5e-6


@pytest.mark.parametrize(("name", "other"), [("albert", 1e-12), ("albert_unshared", 1e-7)])  # of the blocks
def test_every_epsilon_is_bert4keras_one(name, other):
    folder = FIXTURES / "b4k_eps_probe" / name
    data = arrays_of(folder)
    values = [data["input_ids"], data["segment_ids"]]
    options = {"with_mlm": "linear", "compat": "bert4keras"}
    found = build_transformer_model(folder / "config.json", folder, name, **options)(values)
    assert relative_error(found, data["logits"]) < 5e-6
    found = build_transformer_model(folder / "config.json", folder, name, **options, block_norm_eps=other)(values)
    assert relative_error(found, data["logits"]) > 1e-4


def test_layers_are_named_as_bert4keras_users_know_them():
    shared = tfloader.load(GOOGLE.path).transformer.layers
    assert {"Embedding-Mapping", "Transformer-FeedForward", "Transformer-MultiHeadSelfAttention-Norm"} <= set(shared)
    unshared = tfloader.load(GOOGLE.path, model="albert_unshared").transformer.layers
    assert {f"Transformer-{index}-FeedForward" for index in range(3)} <= set(unshared)
    assert "Transformer-FeedForward" not in unshared


# ---- groups


def in_groups(groups, inner, layers=4):
    """(tensors, config) of an ALBERT whose every group has its own values, from the fixture of one group."""
    random = np.random.default_rng(groups * 10 + inner)
    with tfloader.open_checkpoint(GOOGLE.path) as checkpoint:
        tensors = {name: checkpoint.read(name) for name in checkpoint}
    for name in [name for name in tensors if "/group_0/" in name]:
        array = tensors.pop(name)
        for group in range(groups):
            for index in range(inner):
                place = name.replace("group_0/inner_group_0", f"group_{group}/inner_group_{index}")
                tensors[place] = (array + 0.1 * random.normal(size=array.shape)).astype("float32")
    with open(f"{GOOGLE.path}/albert_config.json", encoding="utf-8") as file:
        config = json.load(file)
    sharing = {"num_hidden_layers": layers, "num_hidden_groups": groups, "inner_group_num": inner}
    return tensors, config | sharing


GROUPS = [(1, 1), (2, 1), (4, 1), (1, 2), (2, 3), (3, 1)]


@pytest.mark.parametrize(("groups", "inner"), GROUPS)
def test_each_layer_applies_the_blocks_of_its_group(groups, inner):
    """Against an unshared model of as many plain layers, each filled with the tensors that are its turn."""
    tensors, config = in_groups(groups, inner)
    model = tfloader.load(tensors, config=config)
    depth = 4 * inner
    flat = dict.fromkeys(("num_hidden_layers", "num_hidden_groups"), depth) | {"inner_group_num": 1}
    unrolled = {name: array for name, array in tensors.items() if "/group_" not in name}
    for turn in range(depth):
        group, index = turn // inner * groups // 4, turn % inner
        for name, array in tensors.items():
            if f"/group_{group}/inner_group_{index}/" in name:
                place = name.replace(f"group_{group}/inner_group_{index}", f"group_{turn}/inner_group_0")
                unrolled[place] = array
    plain = tfloader.load(unrolled, config=config | flat)
    assert len(plain.weights) >= len(model.weights)
    np.testing.assert_allclose(model(INPUTS), plain(INPUTS), atol=1e-6)


def test_the_checkpoint_without_one_group_is_refused():
    tensors, config = in_groups(2, 1)
    lacking = {name: array for name, array in tensors.items() if "/group_1/" not in name}
    with pytest.raises(WeightsError, match=r"Transformer-2-FeedForward.*group_1"):
        tfloader.load(lacking, config=config)
    with pytest.raises(WeightsError, match="Tensors without a use"):
        tfloader.load(tensors, config=config | {"num_hidden_groups": 1})


def test_different_groups_do_not_become_one():
    tensors, config = in_groups(2, 1)
    with pytest.raises(WeightsError, match=r"another tensor for Transformer-.*which have one"):
        tfloader.load(tensors, config=config, num_hidden_groups=1)


@pytest.mark.parametrize(("layers", "groups"), [(22, 22), (18, 14)])
def test_groups_for_which_the_original_codes_go_astray_are_refused(layers, groups):
    tensors, config = in_groups(1, 1)
    with pytest.raises(ConfigError, match=f"num_hidden_groups = {groups} is not implemented for {layers} layers"):
        tfloader.load(tensors, config=config | {"num_hidden_layers": layers, "num_hidden_groups": groups})


@pytest.mark.parametrize(
    "sizes",
    [
        {"inner_group_num": 0},
        {"num_hidden_layers": 100, "inner_group_num": 60},
        {"inner_group_num": 1.5},
        {"num_hidden_layers": 10**400, "inner_group_num": "x"},
    ],
)
def test_impossible_groups_are_refused(sizes):
    tensors, config = in_groups(1, 1)
    with pytest.raises(ConfigError, match="inner_group_num"):
        tfloader.load(tensors, config=config | sizes)


@pytest.mark.parametrize("key", ["net_structure_type", "gap_size", "num_memory_blocks"])
def test_structures_that_no_published_albert_has_are_refused(key):
    tensors, config = in_groups(1, 1)
    with pytest.raises(ConfigError, match=f"{key} = 2 is not implemented"):
        tfloader.load(tensors, config=config | {key: 2})


def test_embeddings_of_the_hidden_size_are_not_written_where_a_matrix_follows_always(tmp_path):
    folder = FIXTURES / "b4k_eps_probe" / "albert"
    model = tfloader.load(folder)
    with pytest.raises(ConfigError, match="embedding_size"):
        tfloader.save(model, tmp_path / "huggingface")
    tfloader.save(model, tmp_path / "tensorflow", format="tensorflow")
    np.testing.assert_array_equal(tfloader.load(tmp_path / "tensorflow")(INPUTS), model(INPUTS))


def test_the_form_that_brightmart_published_before_googles_is_refused_as_unknown():
    """albert_tiny_zh and its kin without "google" in their names: another embedding, one layer for all."""
    names = ["word_embeddings", "word_embeddings_2", "position_embeddings", "token_type_embeddings", "LayerNorm/gamma"]
    names = [f"bert/embeddings/{name}" for name in names] + ["bert/encoder/layer_shared/attention/self/query/kernel"]
    with pytest.raises(CheckpointError, match=r"not named as in any release(.|\n)*Google ALBERT"):
        tfloader.load({name: np.zeros((8, 8), "float32") for name in names}, config={})


def test_hidden_states_of_every_layer_are_there():
    model = tfloader.load(GOOGLE.path, custom_attention_mask=True)
    found = keras.Model(model.inputs, model.transformer.hidden_states)(GOOGLE.input_arrays)
    assert len(found) == 4
    for index in range(3):
        assert relative_error(found[index + 1], GOOGLE.arrays[f"layer_{index}_output"]) <= 5e-5


# ---- unshared


@pytest.mark.parametrize("format", ["tensorflow", "huggingface"])
def test_unshared_layers_are_saved_each_and_read_back(format, tmp_path):
    model = tfloader.load(GOOGLE.path, model="albert_unshared")
    assert relative_error(model(INPUTS), np.asarray(tfloader.load(GOOGLE.path)(INPUTS))) < 1e-6
    biases = [model.get_layer(f"Transformer-{index}-FeedForward").output_dense.bias for index in range(3)]
    before = np.array(biases[0])
    biases[1].assign_add(np.ones(48))
    np.testing.assert_allclose([biases[0], biases[1] - 1, biases[2]], [before] * 3, atol=1e-6)
    tfloader.save(model, tmp_path, format=format)
    again = tfloader.load(tmp_path)
    assert again.transformer.config.num_hidden_groups == 3
    np.testing.assert_array_equal(again(INPUTS), model(INPUTS))


def test_the_first_layers_of_a_grouped_model_load_alone():
    tensors, config = in_groups(2, 1)
    whole = tfloader.load(tensors, config=config)
    layers = keras.Model(whole.inputs, whole.transformer.hidden_states[3])
    np.testing.assert_allclose(
        tfloader.load(tensors, config=config, num_hidden_layers=3, num_hidden_groups=3)(INPUTS),
        layers(INPUTS),
        atol=1e-6,
    )


def test_beams_continue_alike_with_shared_and_with_own_layers():
    """A shared layer has other keys and values in each block, and each beam its own."""
    options = {"max_new_tokens": 9, "num_beams": 3, "num_return_sequences": 2, "eos_token_id": None}
    found = []
    for model in ("albert", "albert_unshared"):
        generator = tfloader.TextGenerator(tfloader.load(GOOGLE.path, model=model, application="unilm"))
        found.append(generator.generate_ids([[101, 7, 9, 50], [101, 33]], **options).sequences)
    assert found[0] == found[1] and len(set(map(tuple, found[0]))) == 4


# ---- training what is shared


def classifier(**options):
    keras.utils.set_random_seed(0)
    model = tfloader.load(GOOGLE.path, with_pool=True, **options)
    return keras.Model(model.inputs, keras.layers.Dense(2, activation="softmax")(model.output)), model.transformer


def batch(size=8):
    tokens = np.random.default_rng(0).integers(1, 200, (size, 6))
    return [tokens, tokens * 0], tokens[:, 1] % 2


def test_adversarial_training_on_the_small_embeddings_trains_and_writes_no_perturbation():
    model, transformer = classifier()
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    tfloader.adversarial_training(model, "Embedding-Token", 0.5)
    before = np.asarray(transformer.layers["Embedding-Token"].embeddings)
    assert before.shape == (211, 20)
    model.train_on_batch(*batch())
    np.testing.assert_array_equal(transformer.layers["Embedding-Token"].embeddings, before)
    model.compile(keras.optimizers.SGD(0.02), "sparse_categorical_crossentropy")
    losses = [float(model.train_on_batch(*batch())) for _ in range(6)]
    assert losses[-1] < losses[0]


def test_lora_on_a_shared_layer_is_one_adapter_that_every_layer_uses(tmp_path):
    model, transformer = classifier()
    tfloader.enable_lora(model, ["query", "value"], rank=2)
    attention = transformer.layers["Transformer-MultiHeadSelfAttention"]
    assert len([weight for weight in model.trainable_weights if "lora" in weight.name]) == 4
    attention.query.lora_kernel_b.assign(np.full((2, 48), 0.3))
    changed = np.asarray(transformer.model(INPUTS))
    assert relative_error(changed, np.asarray(tfloader.load(GOOGLE.path, with_pool=True)(INPUTS))) > 1e-3
    tfloader.save(transformer, tmp_path)
    np.testing.assert_allclose(tfloader.load(tmp_path, with_pool=True)(INPUTS), changed, atol=1e-6)


def test_layer_wise_rates_need_layers_of_their_own():
    model, _ = classifier()
    with pytest.raises(TrainingError, match="No trainable variable"):
        tfloader.layer_wise_decay(model, 0.5)
    model, _ = classifier(model="albert_unshared")
    rates = tfloader.layer_wise_decay(model, 0.5)
    assert [rates[f"re:^Transformer-{index}"] for index in range(3)] == [0.125, 0.25, 0.5]


def test_a_shared_layers_gradient_is_the_sum_over_its_layers():
    import tensorflow as tf

    def gradients(model):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(INPUTS) ** 2)
        kernels = [
            layer.output_dense.kernel
            for name, layer in model.transformer.layers.items()
            if name.endswith("FeedForward")
        ]
        return tape.gradient(loss, [kernel.value for kernel in kernels])

    (shared,) = gradients(tfloader.load(GOOGLE.path))
    own = gradients(tfloader.load(GOOGLE.path, model="albert_unshared"))
    assert len(own) == 3
    np.testing.assert_allclose(shared, sum(own), rtol=1e-4, atol=1e-4)
