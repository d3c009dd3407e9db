"""bert4keras' own numbers: every builder option, under compat="bert4keras" (its README.md says what each array is)."""

from __future__ import annotations

import functools
import json

import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS, FIXTURES
from tests.releases import as_list, relative_error
from tfloader import build_transformer_model
from tfloader.errors import ConfigError
from tfloader.layers import RelativeAttention
from tfloader.naming.bert4keras import T5_PEGASUS

FOLDER = CHECKPOINTS / "b4k_bert_options"
LISTS = json.loads((FOLDER / "options.json").read_text())


def compound(items):
    return [(item["ids"], item["weights"]) if item["weights"] else item["ids"] for item in items]


KEEP = {"keep_tokens": LISTS["keep_tokens"]}
COMPOUND = {"compound_tokens": compound(LISTS["compound_tokens"])}
KEEP_COMPOUND = KEEP | {"compound_tokens": compound(LISTS["compound_tokens_after_keep"])}
LINEAR = {"with_mlm": "linear"}
LONG = ("long_input_ids", "long_segment_ids")
HIERARCHICAL = {"hierarchical_position": True}

# (output arrays, input arrays, options)
ROWS = [
    ("base_sequence", "input_ids segment_ids", {}),
    ("pool_tanh", "input_ids segment_ids", {"with_pool": True}),
    ("pool_linear", "input_ids segment_ids", {"with_pool": "linear"}),
    ("nsp_probs", "input_ids segment_ids", {"with_nsp": True}),
    ("mlm_probs", "input_ids segment_ids", {"with_mlm": True}),
    ("mlm_logits", "input_ids segment_ids", LINEAR),
    ("pool_mlm__pool pool_mlm__mlm_logits", "input_ids segment_ids", {"with_pool": True, **LINEAR}),
    ("nsp_mlm__nsp nsp_mlm__mlm_probs", "input_ids segment_ids", {"with_nsp": True, "with_mlm": True}),
    ("poolrelu_nsp__nsp", "input_ids segment_ids", {"with_pool": "relu", "with_nsp": True}),
    ("keep_sequence", "keep_input_ids segment_ids", KEEP),
    ("keep_mlm_logits", "keep_input_ids segment_ids", KEEP | LINEAR),
    ("compound_sequence", "compound_input_ids segment_ids", COMPOUND),
    ("compound_mlm_logits", "compound_input_ids segment_ids", COMPOUND | LINEAR),
    ("keep_compound_sequence", "keep_compound_input_ids segment_ids", KEEP_COMPOUND),
    ("keep_compound_mlm_logits", "keep_compound_input_ids segment_ids", KEEP_COMPOUND | LINEAR),
    ("residual_sequence", "input_ids segment_ids", {"residual_attention_scores": True}),
    ("hierarchical_true_long", "long_input_ids long_segment_ids", HIERARCHICAL),
    ("hierarchical_true_short", "input_ids segment_ids", HIERARCHICAL),
    ("hierarchical_true_long_mlm_logits", "long_input_ids long_segment_ids", HIERARCHICAL | LINEAR),
    ("hierarchical_025_long", "long_input_ids long_segment_ids", {"hierarchical_position": 0.25}),
    ("custom_position_sequence", "input_ids segment_ids position_ids", {"custom_position_ids": True}),
    (
        "custom_position_hierarchical_sequence",
        "input_ids segment_ids big_position_ids",
        {"custom_position_ids": True} | HIERARCHICAL,
    ),
    ("shared_segment_sequence", "input_ids token_segment_ids", {"shared_segment_embeddings": True}),
    ("shared_segment_01_sequence", "input_ids segment_ids", {"shared_segment_embeddings": True}),
    ("no_segment_sequence", "input_ids", {"segment_vocab_size": 0}),
    ("lm_mlm_logits", "input_ids segment_ids", {"application": "lm", **LINEAR}),
    ("unilm_mlm_logits", "input_ids segment_ids", {"application": "unilm", **LINEAR}),
    ("fixed_length_sequence", "input_ids segment_ids", {"sequence_length": 13}),
    ("prefix_sequence", "input_ids segment_ids", {"prefix": "Pre-"}),
]


@functools.cache
def arrays_of(name):
    folder = CHECKPOINTS / name
    return dict(np.load(folder / "inputs.npz")) | dict(np.load(folder / "outputs.npz"))


def arrays():
    return arrays_of("b4k_bert_options")


def build(**options):
    options = {"compat": "bert4keras"} | options
    return build_transformer_model(FOLDER / "bert_config.json", FOLDER / "bert_model.ckpt", **options)


@pytest.mark.parametrize(("outputs", "inputs", "options"), ROWS, ids=[row[0] for row in ROWS])
def test_builder_option_gives_bert4keras_numbers(outputs, inputs, options):
    model = build(**options)
    values = [arrays()[name] for name in inputs.split()]
    found = as_list(model(values if len(values) > 1 else values[0]))
    for value, name in zip(found, outputs.split(), strict=True):
        assert relative_error(value, arrays()[name]) < 5e-6


@pytest.mark.parametrize(
    ("kind", "hidden"),
    [
        ("cond", {}),
        ("condh", {"layer_norm_cond_hidden_size": 5, "layer_norm_cond_hidden_act": "tanh"}),
    ],
)
@pytest.mark.parametrize(("output", "head"), [("sequence", {}), ("mlm_logits", LINEAR)])
def test_conditional_layer_norm_gives_bert4keras_numbers(kind, hidden, output, head):
    condition = keras.Input((7,), name="cond")
    transformer = build(
        layer_norm_cond=condition, additional_input_layers=condition, return_keras_model=False, **hidden, **head
    )
    weights = np.load(FOLDER / "cond_weights.npz")
    for key in weights.files:
        which, path = key.split("|")
        name, dense = path.split("/")
        if which == kind and name in transformer.layers:
            getattr(transformer.layers[name], dense).kernel.assign(weights[key])
    values = [arrays()[name] for name in ("input_ids", "segment_ids", "cond")]
    assert relative_error(transformer.model(values), arrays()[f"{kind}_{output}"]) < 5e-6


def test_layers_are_named_as_bert4keras_users_know_them():
    transformer = build(with_nsp=True, with_mlm=True, return_keras_model=False, compat=None)
    expected = {"Embedding-Token", "Embedding-Segment", "Embedding-Position", "Embedding-Norm", "Embedding-Dropout"}
    for index in range(3):
        for part in ("MultiHeadSelfAttention", "FeedForward"):
            name = f"Transformer-{index}-{part}"
            expected |= {name, f"{name}-Dropout", f"{name}-Add", f"{name}-Norm"}
    expected |= {"Pooler", "Pooler-Dense", "NSP-Proba", "MLM-Dense", "MLM-Norm", "MLM-Bias", "MLM-Activation"}
    assert expected <= set(transformer.layers)
    assert all(transformer.model.get_layer(name) is transformer.layers[name] for name in expected)


def test_prefix_stands_before_every_layer_and_input():
    model = build(prefix="Pre-")
    assert all(layer.name.startswith("Pre-") for layer in model.layers)


LANGUAGE_MODELS = [
    ("b4k_bert_lm", {"application": "lm"}),
    ("b4k_bert_unilm", {"application": "unilm"}),
    ("b4k_simbert", {"application": "unilm"}),
    ("b4k_nezha_gen", {"application": "lm", "segment_vocab_size": 0}),
]


@pytest.mark.parametrize(("name", "options"), LANGUAGE_MODELS, ids=[row[0] for row in LANGUAGE_MODELS])
def test_bert_as_language_model_gives_bert4keras_logits_and_tokens(name, options):
    data = arrays_of(name)
    options = {"compat": "bert4keras"} | options
    unilm = options["application"] == "unilm"
    probabilities = build_transformer_model(None, CHECKPOINTS / name, **options)
    logits = build_transformer_model(None, CHECKPOINTS / name, with_mlm="linear", **options)

    def run(model, tokens, segments):
        return model([tokens, segments] if len(model.inputs) > 1 else tokens)

    values = [data["input_ids"], data["segment_ids"]]
    prefix = "unilm_" if "unilm_logits" in data else ""
    assert relative_error(run(logits, *values), data[f"{prefix}logits"]) < 5e-6
    assert relative_error(run(probabilities, *values), data[f"{prefix}probs"]) < 5e-6
    for index in range(2):
        tokens, wanted, new = data[f"prompt_{index}"], data[f"greedy_{index}"], []
        segments = np.zeros_like(tokens)
        for _ in range(wanted.shape[1]):
            new.append(np.argmax(run(logits, tokens, segments)[:, -1], axis=-1))
            tokens = np.concatenate([tokens, new[-1][:, None].astype("int32")], axis=1)
            segments = np.concatenate([segments, np.full((1, 1), int(unilm), "int32")], axis=1)
        np.testing.assert_array_equal(np.stack(new, axis=1), wanted)


def test_simbert_gives_bert4keras_sentence_vectors():
    data = arrays_of("b4k_simbert")
    options = {"with_pool": "linear", "application": "unilm", "compat": "bert4keras"}
    simbert = build_transformer_model(None, CHECKPOINTS / "b4k_simbert", **options)
    vectors, probabilities = simbert([data["input_ids"], data["segment_ids"]])
    assert relative_error(vectors, data["sentence_vector"]) < 5e-6
    assert relative_error(probabilities, data["unilm_probs"]) < 5e-6
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alone, _ = simbert([data["input_ids"], np.zeros_like(data["segment_ids"])])
    assert relative_error(alone, data["sentence_vector_seg0"]) < 5e-6
    np.testing.assert_allclose(unit @ np.transpose(unit), data["cosine"], atol=1e-6)


NEZHA_ROWS = [
    ("sequence_output", {}),
    ("pooled_output", {"with_pool": True}),
    ("nsp_probs", {"with_nsp": True}),
    ("mlm_logits", LINEAR),
    ("lm_logits", {"application": "lm", **LINEAR}),
    ("unilm_logits", {"application": "unilm", **LINEAR}),
    ("long_sequence_output", {}),  # longer than the largest distance, and than max_position_embeddings
    ("long_lm_logits", {"application": "lm", **LINEAR}),
]


@pytest.mark.parametrize(("output", "options"), NEZHA_ROWS, ids=[row[0] for row in NEZHA_ROWS])
def test_nezha_gives_bert4keras_numbers(output, options):
    data, long = arrays_of("b4k_nezha"), "long_" if output.startswith("long_") else ""
    model = build_transformer_model(None, CHECKPOINTS / "b4k_nezha", "nezha", compat="bert4keras", **options)
    assert relative_error(model([data[f"{long}input_ids"], data[f"{long}segment_ids"]]), data[output]) < 5e-6


@pytest.mark.parametrize("other", [{"layer_norm_eps": 1e-12}, {"mlm_norm_eps": 1e-7}], ids=str)
def test_each_epsilon_of_nezha_is_bert4keras_and_changes_the_numbers(other):
    folder = FIXTURES / "b4k_eps_probe" / "nezha"
    data = dict(np.load(folder / "inputs.npz")) | dict(np.load(folder / "outputs.npz"))
    options = {"model": "nezha", "compat": "bert4keras", **LINEAR}
    inputs = [data["input_ids"], data["segment_ids"]]
    assert relative_error(build_transformer_model(None, folder, **options)(inputs), data["logits"]) < 1e-6
    assert relative_error(build_transformer_model(None, folder, **options, **other)(inputs), data["logits"]) > 1e-5


def test_distances_have_bert4keras_vectors():
    layer = RelativeAttention(num_heads=4, head_size=12, output_size=48)
    found = layer.vectors(np.arange(-64, 65))
    np.testing.assert_allclose(found, arrays_of("b4k_nezha")["relative_position_table"], atol=1e-5)
    np.testing.assert_array_equal(layer.vectors(np.array([-99, 99])), np.asarray(found)[[0, -1]])


@pytest.mark.parametrize("act", ["erf", "tanh"])
def test_google_bert_with_either_gelu_gives_bert4keras_numbers(act):
    folder = CHECKPOINTS / "bert_google"
    inputs, wanted = np.load(folder / "inputs.npz"), np.load(FIXTURES / "compat_bert4keras" / "bert_google.npz")
    compat = "bert4keras" if act == "erf" else None
    values = [inputs["input_ids"], inputs["segment_ids"]]
    for output, options in (
        ("sequence_output", {}),
        ("pooled_output", {"with_pool": True}),
        ("mlm_logits", LINEAR),
        ("nsp_probs", {"with_nsp": True}),
    ):
        model = build_transformer_model(None, folder, compat=compat, **options)
        assert relative_error(model(values), wanted[f"{output}_{act}"]) < 5e-6


T5_ROWS = [
    (name, key.removeprefix("decoder_logits_"))
    for name in ("t5_mesh_v10", "t5_mesh_v11", "mt5_mesh")
    for key in np.load(FIXTURES / "compat_bert4keras" / f"{name}.npz").files
    if key.startswith("decoder_logits")
]


@pytest.mark.parametrize(("name", "variant"), T5_ROWS)
def test_t5_with_each_of_bert4keras_habits_gives_its_numbers(name, variant):
    folder, wanted = CHECKPOINTS / name, np.load(FIXTURES / "compat_bert4keras" / f"{name}.npz")
    inputs = np.load(folder / "inputs.npz")
    options = {"cross_position_bias": False} if "nocross" in variant else {}
    if "tanh" in variant:
        options["hidden_act"] = "gelu_tanh"
    config = FIXTURES / "compat_bert4keras" / f"{name}.bert4keras_config.json"
    t5 = build_transformer_model(
        config, folder, "t5.1.1", with_lm="linear", compat="bert4keras", return_keras_model=False, **options
    )
    real = inputs["decoder_mask"] > 0
    found = np.asarray(t5.model([inputs["input_ids"], inputs["decoder_input_ids"]]))[real]
    # T5 1.0 has hidden values of 57: bert4keras itself is 1e-4 off the original there (its README.md).
    limit = 2e-4 if name == "t5_mesh_v10" else 1e-5
    assert relative_error(found, wanted[f"decoder_logits_{variant}"][real]) < limit
    padded = inputs["attention_mask"] > 0
    encoded = np.asarray(t5.encoder(inputs["input_ids"]))[padded]
    assert relative_error(encoded, wanted[f"encoder_hidden_states_{variant.split('_')[0]}"][padded]) < 1e-5


# name -> (family, its inputs, the segment of prompts and new tokens)
GPT_ROWS = {
    "b4k_gpt": ("gpt", ("input_ids", "segment_ids"), 105),
    "b4k_gpt_segtable": ("gpt", ("input_ids", "segment_ids"), 2),
    "b4k_gpt2": ("gpt2", ("input_ids",), None),
}


@pytest.mark.parametrize("name", GPT_ROWS)
def test_gpt_gives_bert4keras_logits_and_tokens(name):
    family, inputs, segment = GPT_ROWS[name]
    data = dict(np.load(CHECKPOINTS / name / "inputs.npz"))
    wanted = np.load(FIXTURES / "compat_bert4keras" / f"{name}.npz")
    probabilities = build_transformer_model(None, CHECKPOINTS / name, family, compat="bert4keras")
    model = tfloader.load(CHECKPOINTS / name, compat="bert4keras")
    values = [data[key] for key in inputs]
    assert relative_error(model(values), wanted["logits"]) < 5e-6
    assert relative_error(probabilities(values), wanted["probs"]) < 5e-6
    for index in range(2):
        tokens, new = data[f"prompt_{index}"], []
        for _ in range(wanted[f"greedy_{index}"].shape[1]):
            new.append(np.argmax(model([tokens, np.full_like(tokens, segment or 0)][: len(inputs)])[:, -1], axis=-1))
            tokens = np.concatenate([tokens, new[-1][:, None].astype("int32")], axis=1)
        np.testing.assert_array_equal(np.stack(new, axis=1), wanted[f"greedy_{index}"])


@pytest.mark.parametrize("name", ["b4k_gpt", "b4k_gpt_segtable"])
@pytest.mark.parametrize("compat", ["bert4keras", None])
def test_gpt_takes_positions_of_ones_own(name, compat):
    data = dict(np.load(CHECKPOINTS / name / "inputs.npz"))
    original, theirs = CHECKPOINTS / name / "outputs.npz", FIXTURES / "compat_bert4keras" / f"{name}.npz"
    model = tfloader.load(CHECKPOINTS / name, custom_position_ids=True, compat=compat)
    found = model([data[key] for key in ("input_ids", "segment_ids", "position_ids")])
    assert relative_error(found, np.load(theirs if compat else original)["custom_position_logits"]) < 5e-6


def test_gpt2_hides_id_0_as_bert4keras_did():
    data, wanted = arrays_of("b4k_gpt2"), np.load(FIXTURES / "compat_bert4keras" / "b4k_gpt2.npz")
    tokens = data["input_ids"].copy()
    tokens[0, 4] = 0
    found = tfloader.load(CHECKPOINTS / "b4k_gpt2", compat="bert4keras")(tokens)
    assert relative_error(found, wanted["logits_with_id0_inside"]) < 5e-6
    shown = tfloader.load(CHECKPOINTS / "b4k_gpt2", hidden_act="gelu")(tokens)
    assert relative_error(shown, wanted["logits_with_id0_inside"]) > 1e-2


@pytest.mark.parametrize("other", [None, {"layer_norm_eps": 1e-5}], ids=str)
def test_the_epsilon_of_gpt_is_bert4keras_and_changes_the_numbers(other):
    folder = FIXTURES / "b4k_eps_probe" / "gpt"
    data = dict(np.load(folder / "inputs.npz")) | dict(np.load(folder / "outputs.npz"))
    model = tfloader.load(folder, compat="bert4keras", **(other or {}))
    error = relative_error(model([data[key] for key in ("input_ids", "segment_ids")]), data["logits"])
    assert error > 1e-4 if other else error < 5e-6


def test_t5_pegasus_gives_bert4keras_numbers_without_being_asked():
    data = arrays_of("b4k_t5_pegasus")
    real, inputs = data["decoder_mask"] > 0, [data["input_ids"], data["decoder_input_ids"]]
    model = tfloader.load(CHECKPOINTS / "b4k_t5_pegasus")
    assert relative_error(np.asarray(model(inputs))[real], data["logits"][real]) < 1e-5
    probabilities = build_transformer_model(None, CHECKPOINTS / "b4k_t5_pegasus", "mt5.1.1")
    assert relative_error(np.asarray(probabilities(inputs))[real], data["probs"][real]) < 1e-5
    plain = tfloader.load(CHECKPOINTS / "b4k_t5_pegasus", cross_position_bias=False)
    assert relative_error(np.asarray(plain(inputs))[real], data["nocross_logits"][real]) < 1e-5


def test_t5_pegasus_generates_bert4keras_tokens_from_cls():
    data = arrays_of("b4k_t5_pegasus")
    generator = tfloader.TextGenerator(tfloader.load(CHECKPOINTS / "b4k_t5_pegasus"))
    assert generator.options({}).eos_token_id == (102,)
    for index in range(2):
        tokens = data["input_ids"][index]
        real = tokens[: int(data["input_mask"][index].sum())].tolist()
        found = generator.generate_ids([real], max_new_tokens=10, eos_token_id=None)
        assert found.sequences == data[f"greedy_{index}"].tolist()


@pytest.mark.parametrize(
    ("config", "options"),
    [({"vocab_size": 50000}, {}), ({"vocab_size": 60000}, {"model": "t5_pegasus"})],
    ids=["the published vocabulary", "another one, and its name"],
)
def test_t5_pegasus_is_known_by_its_vocabulary_or_by_name(config, options):
    raw = json.loads((CHECKPOINTS / "b4k_t5_pegasus" / "config.json").read_text())
    del raw["model_type"]
    options = {"model": "mt5.1.1", "return_keras_model": False, **options}
    found = build_transformer_model(raw | config, **options).config
    assert {name: getattr(found, name) for name in T5_PEGASUS} == T5_PEGASUS and found.hidden_act == "gelu"
    other = build_transformer_model(raw, **options | {"model": "mt5.1.1"}).config
    assert not other.cross_position_bias and other.hidden_act == "gelu_tanh"


def test_an_option_that_does_not_exist_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match="did you mean 'keep_tokens'"):
        build(keep_token=[1, 2])
