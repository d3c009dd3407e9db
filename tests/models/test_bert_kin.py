"""RoBERTa and NEZHA where the release tests do not reach, and the many releases that are BERTs under other names."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.releases import MLM, as_list, case, relative_error
from tfloader.checkpoints import open_checkpoint
from tfloader.errors import CheckpointError, ConfigError
from tfloader.inspection import verify

SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
SIZES += ("max_position_embeddings",)


def config_of(name, file="config.json"):
    return json.loads((CHECKPOINTS / name / file).read_text())


def arrays_of(name):
    with open_checkpoint(CHECKPOINTS / name) as checkpoint:
        return {tensor: checkpoint.read(tensor) for tensor in checkpoint}


def check(model, release):
    for found, expected in zip(as_list(model(release.input_arrays)), release.expected, strict=True):
        assert relative_error(found, expected) <= 5e-6


# ---- BERTs: what their config files hold beside the sizes

SHARED = {
    "attention_probs_dropout_prob": 0.1,
    "directionality": "bidi",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
    "type_vocab_size": 2,
}
FOLDER = SHARED | {"layer_norm_eps": 1e-12, "model_type": "bert", "pad_token_id": 0}
PUBLISHED = {
    "hfl/chinese-bert-wwm": FOLDER | {"architectures": ["BertForMaskedLM"]},
    "hfl/chinese-roberta-wwm-ext": FOLDER
    | {"architectures": ["BertForMaskedLM"], "bos_token_id": 0, "eos_token_id": 2, "output_past": True},
    "hfl/chinese-macbert-base": FOLDER | {"architectures": ["BertForMaskedLM"], "gradient_checkpointing": False},
    "setu4993/LaBSE": FOLDER
    | {"architectures": ["BertModel"], "gradient_checkpointing": False, "position_embedding_type": "absolute"},
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("model", [None, "bert", "roberta"])
def test_hugging_face_folders_of_chinese_roberta_wwm_macbert_and_labse_are_berts(name, model):
    release = case("hf_bert")
    sizes = {key: config_of("hf_bert")[key] for key in SIZES}
    found = tfloader.load(release.path, config=PUBLISHED[name] | sizes, model=model, **release.options)
    assert found.transformer.config.family == "bert"
    check(found, release)


@pytest.mark.parametrize("further", [{}, {"ln_type": "postln"}], ids=["RoBERTa-wwm, MacBERT, LaBSE", "RoBERTa-zh"])
@pytest.mark.parametrize("model", [None, "bert", "roberta"])
def test_tensorflow_checkpoints_of_chinese_roberta_are_berts(further, model):
    release = case("bert_google")
    sizes = {key: config_of("bert_google", "bert_config.json")[key] for key in SIZES}
    check(tfloader.load(release.path, config=SHARED | further | sizes, model=model, **release.options), release)


def test_bert4keras_scripts_that_say_roberta_get_bert_with_or_without_a_checkpoint():
    release = case("bert_google")
    config = f"{release.path}/bert_config.json"
    options = {"model": "roberta", **release.options}
    check(tfloader.build_transformer_model(config, f"{release.path}/bert_model.ckpt", **options), release)
    assert tfloader.build_transformer_model(config, model="roberta").transformer.config.family == "bert"


@pytest.mark.parametrize("name", ["hf_bert", "bert_google"])
def test_labse_gives_a_text_the_unit_vector_of_its_pooler(name):
    release = case(name)
    model = tfloader.load(release.path, with_pool=True, custom_attention_mask=True)
    pooled = np.asarray(model(release.input_arrays))
    expected = release.arrays["pooled_output"]
    found = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)


def test_a_generator_of_a_chinese_bert_stops_at_its_own_separator(tmp_path):
    model = tfloader.load(CHECKPOINTS / "b4k_bert_unilm", application="unilm", eos_token_id=2)
    tokenizer = tfloader.load_tokenizer(CHECKPOINTS / "b4k_bert_unilm")
    made = tfloader.TextGenerator(model, tokenizer)
    assert made.options({}).eos_token_ids == (tokenizer.sep_token_id,)
    assert tokenizer.sep_token_id != 2


# ---- RoBERTa


@pytest.fixture(scope="module")
def roberta():
    return tfloader.load(CHECKPOINTS / "hf_roberta", **MLM)


def test_roberta_gives_a_text_the_same_numbers_wherever_its_padding_is(roberta):
    text = np.random.default_rng(0).integers(3, 211, 9)
    right, left = np.full((1, 13), 1), np.full((1, 13), 1)
    right[0, :9], left[0, 4:] = text, text
    alone = np.asarray(roberta([text[None], np.ones((1, 9), "int32")]))[0]
    np.testing.assert_allclose(roberta([right, (right != 1).astype("int32")])[0, :9], alone, atol=1e-5)
    np.testing.assert_allclose(roberta([left, (left != 1).astype("int32")])[0, 4:], alone, atol=1e-5)


def test_positions_given_to_roberta_count_from_0(roberta):
    given = tfloader.load(CHECKPOINTS / "hf_roberta", with_mlm="linear", custom_position_ids=True)
    tokens = np.random.default_rng(0).integers(3, 211, (2, 7))
    mask = np.ones_like(tokens)
    np.testing.assert_allclose(given([tokens, np.cumsum(mask, axis=1) - 1]), roberta([tokens, mask]), atol=1e-6)
    moved = np.asarray(given([tokens, np.cumsum(mask, axis=1)]))
    assert relative_error(moved, np.asarray(roberta([tokens, mask]))) > 1e-3


def test_roberta_with_two_kinds_of_segments_has_an_input_for_them():
    arrays = arrays_of("hf_roberta")
    table = "roberta.embeddings.token_type_embeddings.weight"
    arrays[table] = np.concatenate([arrays[table], np.flip(arrays[table])])
    model = tfloader.load(arrays, config=config_of("hf_roberta") | {"type_vocab_size": 2}, **MLM)
    assert [tensor.name for tensor in model.inputs] == ["Input-Token", "Input-Segment", "Input-Mask"]
    tokens, mask = case("hf_roberta").input_arrays
    zeros = np.zeros_like(tokens)
    assert relative_error(model([tokens, zeros, mask]), case("hf_roberta").expected[0]) < 5e-6
    assert relative_error(model([tokens, zeros + 1, mask]), case("hf_roberta").expected[0]) > 1e-3


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"hidden_act": "relu"}, {}, "hidden_act = 'relu' is not implemented; supported: 'gelu'"),
        ({"position_embedding_type": "relative_key"}, {}, "position_embedding_type = 'relative_key'"),
        ({"model_type": "camembert"}, {}, "model_type is 'camembert'"),
        ({"max_position_embeddings": 2}, {}, "max_position_embeddings must lie between 1"),
        ({"max_position_embeddings": "39"}, {}, "max_position_embeddings must be an integer"),
        ({"pad_token_id": None}, {}, "pad_token_id"),
        ({}, {"hierarchical_position": True}, "hierarchical_position: not possible for RoBERTa"),
        ({}, {"application": "unilm"}, "application='unilm' is not possible for 'roberta'"),
        ({}, {"model": "bert"}, "pass model='roberta'"),
        ({}, {"model": "nezha"}, "pass model='roberta'"),
    ],
)
def test_roberta_refuses_what_it_cannot_compute(changes, options, message):
    with pytest.raises(ConfigError, match=message):
        tfloader.load(CHECKPOINTS / "hf_roberta", config=config_of("hf_roberta") | changes, **options)


def test_models_saved_alone_which_share_bare_names_are_told_apart_by_their_config():
    release = case("hf_roberta")
    bare = {name.removeprefix("roberta."): array for name, array in arrays_of("hf_roberta").items()}
    bare = {name: array for name, array in bare.items() if not name.startswith("lm_head.")}
    raw = config_of("hf_roberta")
    model = tfloader.load(bare, config=raw, custom_attention_mask=True)
    assert relative_error(model(release.input_arrays), release.arrays["sequence_output"]) < 5e-6
    with pytest.raises(CheckpointError, match=r"fit several releases.*Pass model='bert' or .*model='roberta'"):
        tfloader.load(bare, config={key: value for key, value in raw.items() if key != "model_type"})


# ---- NEZHA


def test_nezha_under_berts_names_as_huawei_published_it_for_pytorch(tmp_path):
    release = case("hf_nezha")
    renamed = {name.replace("nezha.", "bert.", 1): array for name, array in arrays_of("hf_nezha").items()}
    renamed["bert.encoder.layer.0.attention.self.relative_positions_encoding.positions_encoding"] = np.zeros((5, 5))
    raw = config_of("hf_nezha")
    raw = {key: raw[key] for key in (*SIZES, "hidden_act", "type_vocab_size", "max_relative_position")}
    raw |= {"use_relative_position": True}
    check(tfloader.load(renamed, config=raw, **release.options), release)


def test_a_config_that_does_not_say_nezha_leaves_the_choice_to_the_user():
    raw = config_of("b4k_nezha", "bert_config.json")
    del raw["use_relative_position"]
    options = {"with_nsp": True, "with_mlm": "linear", "hidden_act": "gelu"}
    with pytest.raises(CheckpointError, match=r"Pass model='nezha' or model='roformer'"):
        tfloader.load(CHECKPOINTS / "b4k_nezha", config=raw, **options)
    check(tfloader.load(CHECKPOINTS / "b4k_nezha", config=raw, model="nezha", **options), case("b4k_nezha"))


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"use_relative_position": False}, {"model": "nezha"}, "use_relative_position = False is not implemented"),
        ({"max_relative_position": 0}, {}, "relative_attention_max_distance must lie between 1"),
        ({}, {"custom_position_ids": True}, "custom_position_ids: NEZHA knows distances, not positions"),
        ({}, {"hierarchical_position": True}, "hierarchical_position: NEZHA knows distances"),
        ({}, {"model": "bert"}, "pass model='nezha'"),
    ],
)
def test_nezha_refuses_what_it_cannot_compute(changes, options, message):
    raw = config_of("b4k_nezha", "bert_config.json") | changes
    with pytest.raises(ConfigError, match=message):
        tfloader.load(CHECKPOINTS / "b4k_nezha", config=raw, **options)


def test_gelu_of_nezha_is_the_approximation_and_of_nezha_gen_the_exact_one():
    assert tfloader.load_config(CHECKPOINTS / "b4k_nezha").hidden_act == "gelu_tanh"
    found = tfloader.load_config(CHECKPOINTS / "b4k_nezha_gen")
    assert (found.hidden_act, found.application, found.type_vocab_size) == ("gelu", "lm", 0)


@pytest.mark.parametrize("format", ["huggingface", "tensorflow"])
@pytest.mark.parametrize("name", ["hf_nezha", "b4k_nezha"])
def test_bert4keras_epsilons_of_a_nezha_stand_in_the_saved_config(name, format, tmp_path):
    model = tfloader.load(CHECKPOINTS / name, compat="bert4keras")
    tfloader.save(model, tmp_path, format=format)
    found = tfloader.load_config(tmp_path)
    assert (found.layer_norm_eps, found.mlm_norm_eps, found.hidden_act) == (1e-7, 1e-12, "gelu")
    assert found.relative_attention_max_distance == 64


def test_a_bert_that_lost_its_table_of_segments_is_not_taken_for_nezha_gen():
    tensors = arrays_of("bert_google")
    del tensors["bert/embeddings/token_type_embeddings"]
    with pytest.raises(CheckpointError, match="not named as in any release"):
        tfloader.load(tensors, config=config_of("bert_google", "bert_config.json"))


def test_a_bert_without_segments_is_not_written_as_what_would_be_taken_for_nezha_gen(tmp_path):
    model = tfloader.load(case("bert_google").path, type_vocab_size=0)
    with pytest.raises(ConfigError, match="Save as 'huggingface'"):
        tfloader.save(model, tmp_path, format="tensorflow")
    tfloader.save(model, tmp_path)
    tokens = case("bert_google").arrays["input_ids"]
    np.testing.assert_array_equal(tfloader.load(tmp_path)(tokens), model(tokens))


@pytest.mark.parametrize("name", ["hf_roberta", "hf_nezha", "b4k_nezha", "b4k_nezha_gen", "b4k_simbert"])
def test_verify_finds_these_checkpoints_sound(name):
    checks = list(verify(CHECKPOINTS / name))
    assert [check.name for check in checks if check.status == "FAILED"] == []
    assert {check.name for check in checks if check.status == "ok"} >= {"model", "data", "exactness", "forward pass"}


def test_the_largest_distance_stands_in_the_saved_config(tmp_path):
    model = tfloader.load(case("hf_nezha").path)
    tfloader.save(model, tmp_path, format="tensorflow")
    assert json.loads((tmp_path / "bert_config.json").read_text())["max_relative_position"] == 5
    assert tfloader.load_config(tmp_path).relative_attention_max_distance == 5
