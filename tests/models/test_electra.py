"""ELECTRA beyond what all families promise: two models in one file, and what each of them lacks."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS, FIXTURES
from tests.releases import case, relative_error
from tfloader import build_transformer_model
from tfloader.config import TransformerConfig
from tfloader.errors import CheckpointError, ConfigError, WeightsError
from tfloader.inspection import info, verify
from tfloader.naming import RELEASES, read_config

BOTH = case("electra_google")
GENERATOR = CHECKPOINTS / "electra_google" / "generator.json"
B4K = CHECKPOINTS / "b4k_electra"


def arrays_of(folder):
    return dict(np.load(folder / "inputs.npz")) | dict(np.load(folder / "outputs.npz"))


@pytest.mark.parametrize(
    ("output", "options"),
    [
        ("sequence_output", {}),
        ("discriminator_probs", {"with_discriminator": True}),
        ("discriminator_logits", {"with_discriminator": "linear"}),
    ],
)
def test_the_discriminator_gives_bert4keras_numbers(output, options):
    data = arrays_of(B4K)
    model = build_transformer_model(B4K / "electra_config.json", B4K, "electra", compat="bert4keras", **options)
    found = model([data["input_ids"], data["segment_ids"]])
    assert found.shape == data[output].shape
    assert relative_error(found, data[output]) < 5e-6


def test_the_epsilon_is_bert4keras_one():
    folder = FIXTURES / "b4k_eps_probe" / "electra"
    data = arrays_of(folder)
    values = [data["input_ids"], data["segment_ids"]]
    found = build_transformer_model(folder / "config.json", folder, "electra")(values)
    assert relative_error(found, data["sequence_output"]) < 5e-6
    found = build_transformer_model(folder / "config.json", folder, "electra", layer_norm_eps=1e-7)(values)
    assert relative_error(found, data["sequence_output"]) > 1e-4


def test_the_layers_are_named_as_in_bert4keras():
    layers = tfloader.load(BOTH.path, with_discriminator=True).transformer.layers
    assert {"Embedding-Mapping", "Transformer-2-FeedForward", "Discriminator-Dense", "Discriminator-Prediction"} <= set(
        layers
    )


def test_hidden_states_of_both_models_are_the_originals():
    mask = {"custom_attention_mask": True}
    discriminator = tfloader.load(BOTH.path, **mask)
    assert relative_error(discriminator(BOTH.input_arrays), BOTH.arrays["sequence_output"]) <= 5e-5
    generator = tfloader.load(BOTH.path, model="electra_generator", **mask)
    assert relative_error(generator(BOTH.input_arrays), BOTH.arrays["generator_sequence_output"]) <= 5e-5
    table = "Embedding-Token"
    np.testing.assert_array_equal(generator.get_layer(table).embeddings, discriminator.get_layer(table).embeddings)


def test_each_model_of_a_file_that_holds_both_is_saved_alone(tmp_path):
    for name in ("electra", "electra_generator"):
        tfloader.save(tfloader.load(BOTH.path, model=name), tmp_path / name, format="tensorflow")
        with tfloader.open_checkpoint(tmp_path / name) as checkpoint:
            scopes = {tensor.split("/")[0] for tensor in checkpoint} | {
                tensor.split("/")[1] for tensor in checkpoint if tensor.startswith("electra/")
            }
        assert ("generator" in scopes) == (name == "electra_generator")
        assert ("encoder" in scopes) == (name == "electra")
    assert tfloader.load_config(tmp_path / "electra_generator").family == "electra_generator"
    with pytest.raises(ConfigError, match="pass model='electra_generator'"):
        tfloader.load(tmp_path / "electra_generator", model="electra")


@pytest.mark.parametrize(
    ("name", "options", "prefix"),
    [
        ("hf_albert", {}, "albert."),
        ("hf_albert", {"with_pool": True}, "albert."),
        ("hf_electra", {}, "electra."),
        ("hf_electra_gen", {"model": "electra_generator"}, "electra."),
    ],
)
def test_an_encoder_saved_alone_has_no_prefix_and_is_known_again(name, options, prefix, tmp_path):
    model = tfloader.load(case(name).path, **options)
    tfloader.save(model, tmp_path)
    with tfloader.open_checkpoint(tmp_path) as checkpoint:
        assert not [tensor for tensor in checkpoint if tensor.startswith(prefix)]
    options = {key: value for key, value in options.items() if key != "model"}
    again = tfloader.load(tmp_path, **options)
    tokens = np.array([[101, 110, 90, 102]])
    np.testing.assert_array_equal(again([tokens, tokens * 0]), model([tokens, tokens * 0]))


def test_the_other_models_config_is_refused_by_the_shapes():
    with pytest.raises(WeightsError, match="has shape"):
        tfloader.load(BOTH.path, config=GENERATOR)
    with pytest.raises(WeightsError, match="has shape"):
        tfloader.load(BOTH.path, model="electra_generator", config=GENERATOR.with_name("discriminator.json"))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("electra", {"with_pool": True}, "with_pool: ELECTRA's discriminator has no such head"),
        ("electra", {"with_mlm": True}, "model='electra_generator'"),
        ("electra", {"application": "lm"}, "application='lm' is not possible for 'electra'"),
        ("electra_generator", {"with_nsp": True}, "with_nsp: ELECTRA's generator has no such head"),
        ("electra_generator", {"with_discriminator": True}, "no such option"),
    ],
)
def test_heads_that_were_never_trained_are_refused(model, options, message):
    with pytest.raises(ConfigError, match=message):
        tfloader.load(BOTH.path, model=model, **options)


def test_a_folder_is_inspected_and_verified_as_the_discriminator():
    found = info(BOTH.path)
    assert found["family"] == "electra" and found["parts"] == ["segments", "discriminator"]
    assert found["unknown"] == [] and found["not_of_the_model"]["tensors"] == 55
    checks = {check.name: check for check in verify(BOTH.path)}
    assert {check.status for check in checks.values()} == {"ok"}, checks
    assert "discriminator" in checks["model"].detail


def test_the_generator_is_inspected_and_verified_when_asked_for():
    assert info(BOTH.path, "electra_generator")["parts"] == ["segments", "mlm"]
    assert {check.status for check in verify(BOTH.path, "electra_generator")} == {"ok"}


@pytest.mark.parametrize("format", ["huggingface", "tensorflow"])
def test_embeddings_that_are_not_factorised_are_written_with_their_size(format, tmp_path):
    folder = FIXTURES / "b4k_eps_probe" / "electra"
    model = tfloader.load(folder, config=folder / "config.json")
    assert model.transformer.config.embedding_size is None
    tfloader.save(model, tmp_path, format=format)
    (written,) = tmp_path.glob("*config.json")
    assert json.loads(written.read_text())["embedding_size"] == 16
    tokens = np.array([[5, 9, 7]])
    np.testing.assert_array_equal(tfloader.load(tmp_path)([tokens, tokens * 0]), model([tokens, tokens * 0]))


# HFL's config, as it ships with the Chinese models, and one in BERT's manner.
HFL = {
    "attention_probs_dropout_prob": 0.1,
    "directionality": "bidi",
    "embedding_size": 768,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 192,
    "initializer_range": 0.02,
    "intermediate_size": 768,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "electra",
    "num_attention_heads": 3,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "summary_activation": "gelu",
    "summary_last_dropout": 0.1,
    "summary_type": "first",
    "summary_use_proj": True,
    "type_vocab_size": 2,
    "vocab_size": 21128,
}


def test_hfls_config_is_read_key_by_key():
    release = next(item for item in RELEASES if item.name == "google_electra_generator")
    expected = TransformerConfig(
        "electra_generator",
        21128,
        192,
        12,
        3,
        768,
        embedding_size=768,
        max_position_embeddings=512,
        type_vocab_size=2,
        pad_token_id=0,
        model_type="electra",
    )
    assert read_config(release, HFL) == expected
    assert read_config(release, json.loads(GENERATOR.read_text())).embedding_size == 24


@pytest.mark.parametrize("act", ["relu", "gelu_new"])
def test_another_activation_is_refused_where_the_head_would_still_have_gelu(act):
    for name in ("google_electra_generator", "hf_electra_generator"):
        release = next(item for item in RELEASES if item.name == name)
        with pytest.raises(ConfigError, match="hidden_act"):
            read_config(release, HFL | {"hidden_act": act, "model_type": "electra"})


@pytest.mark.parametrize("model", ["gpt2", "no_such_family"])
def test_another_family_than_the_one_asked_for_is_refused(model):
    """As by `load`; the tensors would pass for what they are."""
    path = CHECKPOINTS / "hf_bert"
    assert next(check for check in verify(path, model)).status == "FAILED"
    for function in (info, tfloader.load_config):
        with pytest.raises(CheckpointError, match=f"model='{model}', but the checkpoint is a Hugging Face BERT one"):
            function(path, model)
    with pytest.raises(CheckpointError, match=f"model='{model}'"):
        list(tfloader.compare(path, path, model=model))
