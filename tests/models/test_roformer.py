"""RoFormer and RoFormerV2: bert4keras' numbers, which are the original's, and what is refused."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS, FIXTURES
from tests.releases import as_list, relative_error
from tfloader.config import TransformerConfig
from tfloader.errors import CheckpointError, ConfigError, WeightsError
from tfloader.generation.text import TextGenerator
from tfloader.inspection import info, verify
from tfloader.naming import roformer
from tfloader.naming.fit import deviations

V1 = {"model": "roformer"}
ROWS = [
    # (fixture, output, further inputs, options)
    *(
        row
        for name in ("b4k_roformer", "b4k_roformer_factorized")
        for row in (
            (name, "sequence_output", [], V1),
            (name, "pooled_output", [], V1 | {"with_pool": True}),
            (name, "custom_position_sequence_output", ["position_ids"], V1 | {"custom_position_ids": True}),
            (name, "lm_logits", [], V1 | {"application": "lm"}),
            (name, "unilm_logits", [], V1 | {"application": "unilm"}),
        )
    ),
    ("b4k_roformer_v2", "sequence_output", [], {}),
    ("b4k_roformer_v2", "mlm_probs", [], {"with_mlm": True}),
    ("b4k_roformer_v2", "lm_logits", [], {"application": "lm"}),
    ("b4k_roformer_v2", "unilm_logits", [], {"application": "unilm"}),
]


def arrays_of(folder):
    return dict(np.load(folder / "inputs.npz")) | dict(np.load(folder / "outputs.npz"))


def tensors_of(name):
    with tfloader.open_checkpoint(CHECKPOINTS / name) as checkpoint:
        return {tensor: checkpoint.read(tensor) for tensor in checkpoint}


def config_of(name):
    folder = CHECKPOINTS / name
    return json.loads((folder / ("config.json" if name.startswith("hf_") else "bert_config.json")).read_text())


@pytest.mark.parametrize(("name", "output", "further", "options"), ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_each_application_gives_the_originals_numbers_with_and_without_its_habits(name, output, further, options):
    data = arrays_of(CHECKPOINTS / name)
    for compat in (None, "bert4keras"):
        model = tfloader.load(CHECKPOINTS / name, compat=compat, **options)
        inputs = [data[key] for key in ("input_ids", "segment_ids", *further)]
        assert relative_error(model(inputs), data[output]) < 5e-6


@pytest.mark.parametrize("name", ["b4k_roformer", "b4k_roformer_factorized"])
def test_cached_generation_gives_the_originals_greedy_tokens(name):
    data = arrays_of(CHECKPOINTS / name)
    made = TextGenerator(tfloader.load(CHECKPOINTS / name, application="lm", **V1))
    for index in range(2):
        wanted = data[f"greedy_{index}"]
        found = made.generate_ids(data[f"prompt_{index}"], max_new_tokens=wanted.shape[1], eos_token_id=None)
        assert found.sequences == wanted.tolist()


PROBES = [
    ("roformer", {"with_mlm": "linear"}, "logits", {"layer_norm_eps": 1e-12}),
    ("roformer", {"with_mlm": "linear"}, "logits", {"mlm_norm_eps": 1e-7}),
    ("roformer_v2", {}, "sequence_output", {"layer_norm_eps": 1e-12}),
]


@pytest.mark.parametrize(("family", "options", "output", "other"), PROBES, ids=str)
def test_every_epsilon_is_the_originals_and_changes_the_numbers(family, options, output, other):
    folder = FIXTURES / "b4k_eps_probe" / family
    data = arrays_of(folder)
    inputs = [value for key, value in np.load(folder / "inputs.npz").items() if key in ("input_ids", "segment_ids")]
    model = tfloader.load(folder, model=family, **options)
    assert relative_error(model(inputs), data[output]) < 1e-4
    assert relative_error(tfloader.load(folder, model=family, **options, **other)(inputs), data[output]) > 1e-3


def test_a_hugging_face_roformer_gets_bert4keras_epsilons_only_when_asked():
    config = tfloader.load(CHECKPOINTS / "hf_roformer").transformer.config
    assert (config.layer_norm_eps, config.mlm_norm_eps) == (1e-12, None)
    config = tfloader.load(CHECKPOINTS / "hf_roformer", compat="bert4keras").transformer.config
    assert (config.layer_norm_eps, config.mlm_norm_eps) == (1e-7, 1e-12)


def test_only_distances_between_positions_matter():
    data = arrays_of(CHECKPOINTS / "b4k_roformer")
    model = tfloader.load(CHECKPOINTS / "b4k_roformer", custom_position_ids=True, **V1)
    tokens, segments, positions = (data[key] for key in ("input_ids", "segment_ids", "position_ids"))
    near, far = model([tokens, segments, positions]), model([tokens, segments, positions + 300])
    assert relative_error(far, np.asarray(near)) < 2e-5
    assert relative_error(model([tokens, segments, 2 * positions]), np.asarray(near)) > 1e-2


def test_roformer_sim_gives_sentence_vectors_and_logits():
    """A pooler without activation on a UniLM, which reads segment 0 as an encoder does."""
    data = arrays_of(CHECKPOINTS / "b4k_roformer")
    inputs = [data["input_ids"], np.zeros_like(data["segment_ids"])]
    both = tfloader.load(CHECKPOINTS / "b4k_roformer", application="unilm", with_pool="linear", **V1)
    vectors, logits = both(inputs)
    assert logits.shape[-1] == both.transformer.config.vocab_size
    pooled = tfloader.load(CHECKPOINTS / "b4k_roformer", with_pool=True, **V1)(inputs)
    assert relative_error(np.tanh(vectors), np.asarray(pooled)) < 5e-6


# ---- which model a checkpoint is


def test_a_checkpoint_that_may_be_nezha_is_refused_until_the_model_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="model='roformer'"):
        tfloader.load(CHECKPOINTS / "b4k_roformer")
    model = tfloader.load(CHECKPOINTS / "b4k_roformer", **V1, with_nsp=True, with_mlm=True)
    tfloader.save(model, tmp_path, format="tensorflow")
    assert tfloader.load(tmp_path).transformer.config.family == "roformer"


@pytest.mark.parametrize(
    "name", ["b4k_roformer", "b4k_roformer_factorized", "b4k_roformer_v2", "hf_roformer", "gau_alpha"]
)
def test_info_and_verify_know_the_checkpoint_once_the_family_is_named(name):
    family = name.removeprefix("b4k_").removeprefix("hf_").removesuffix("_factorized")
    found = info(CHECKPOINTS / name, model=family)
    assert found["family"] == family and not found["unknown"]
    assert [check.status for check in verify(CHECKPOINTS / name, model=family)] == ["ok"] * 7


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("hf_roformer", {"rotary_value": True}),
        ("hf_roformer", {"norm_type": "rms_norm"}),
        ("hf_roformer", {"pooler_activation": "linear"}),
        ("b4k_roformer", {"use_bias": 0}),
        ("b4k_roformer", {"use_relative_position": True}),
        ("b4k_roformer_v2", {"use_bias": 1}),
        ("gau_alpha", {"normalization": "squared_relu"}),
    ],
    ids=str,
)
def test_a_config_that_means_another_model_is_refused(name, changes):
    with pytest.raises(tfloader.errors.TfloaderError, match=next(iter(changes))):
        tfloader.load(tensors_of(name), config=config_of(name) | changes, **(V1 if name == "b4k_roformer" else {}))


# ---- Hugging Face's stored table of positions


def test_the_stored_table_of_positions_may_be_absent_but_not_another_one():
    name, tensors = "roformer.encoder.embed_positions.weight", tensors_of("hf_roformer")
    options = {"config": config_of("hf_roformer"), "with_mlm": "linear"}
    rest = {key: array for key, array in tensors.items() if key != name}
    data = arrays_of(CHECKPOINTS / "hf_roformer")
    inputs = [data["input_ids"], data["token_type_ids"]]
    np.testing.assert_array_equal(tfloader.load(rest, **options)(inputs), tfloader.load(tensors, **options)(inputs))
    tensors[name][2, 3] += 1e-3
    with pytest.raises(WeightsError, match="constant"):
        tfloader.load(tensors, **options)
    with pytest.raises(WeightsError, match=r"embed_positions.* \(36, 12\)"):
        tfloader.load(tensors | {name: tensors[name][:-1]}, **options)


def test_a_stored_table_of_another_size_is_refused_before_one_is_made():
    """A hostile number of positions must not take the memory that such a table would."""
    config = TransformerConfig("roformer", 9, 50_000, 0, 1, 1, max_position_embeddings=10**7)
    (constant,) = roformer.HF_NAMING.constants
    name = constant.theirs
    with tfloader.open_checkpoint({name: np.zeros((3, 4), "float32")}) as checkpoint:
        (problem,) = deviations(checkpoint, name, constant, config)
    assert "(10000000, 50000)" in problem


# ---- options


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("b4k_roformer", V1 | {"hierarchical_position": True}),
        ("b4k_roformer_v2", {"with_pool": True}),
        ("b4k_roformer_v2", {"with_nsp": True}),
        ("b4k_roformer_v2_factorized", {"with_mlm": True}),
        ("b4k_roformer_v2_factorized", {"application": "lm"}),
    ],
    ids=str,
)
def test_options_for_which_there_are_no_weights_are_refused(name, options):
    with pytest.raises(ConfigError, match="no output layer" if "factorized" in name else "has no|have no"):
        tfloader.load(CHECKPOINTS / name, **options)


def test_a_condition_for_norms_without_weights_is_refused():
    condition = keras.Input((5,))
    with pytest.raises(ConfigError, match="layer_norm_cond"):
        tfloader.load(CHECKPOINTS / "b4k_roformer_v2", layer_norm_cond=condition, additional_input_layers=condition)


def test_vocabulary_cuts_reach_the_tied_output():
    data = arrays_of(CHECKPOINTS / "b4k_roformer_v2")
    keep = np.unique(data["input_ids"]).tolist()
    tokens = np.searchsorted(keep, data["input_ids"])
    model = tfloader.load(CHECKPOINTS / "b4k_roformer_v2", with_mlm="linear", keep_tokens=keep)
    found = as_list(model([tokens, data["segment_ids"]]))[0]
    assert relative_error(found, data["mlm_logits"][..., keep]) < 5e-6


def test_roformer_v2_drops_embeddings_before_it_normalises_them():
    data = arrays_of(CHECKPOINTS / "b4k_roformer_v2")
    model = tfloader.load(CHECKPOINTS / "b4k_roformer_v2", hidden_dropout_prob=0.5)
    embedded = keras.Model(model.inputs, model.get_layer("Embedding-Norm").output)
    found = np.asarray(embedded([data["input_ids"], data["segment_ids"]], training=True))
    assert 0.3 < (found == 0).mean() < 0.7
    np.testing.assert_allclose((found**2).mean(-1), 1, atol=1e-4)
