"""Heads for tasks: found and named, built, made new, kept with their labels; or refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.releases import HEAD_CASES, case, relative_error
from tfloader.config import TransformerConfig
from tfloader.inspection import info, verify
from tfloader.naming.heads import CLASSES, HeadKeys

CLASSIFIER, TAGGER = CHECKPOINTS / "hf_bert_cls", CHECKPOINTS / "hf_bert_token"
LABELS = {0: "negative", 1: "neutral", 2: "positive"}


@pytest.fixture
def copy_of(tmp_path):
    """A fixture's folder with changes in its config (None takes a key out) and in its tensors."""

    def make(source, tensors=None, **changes):
        folder = tmp_path / "copy"
        shutil.copytree(source, folder, dirs_exist_ok=True)
        config = {**json.loads((folder / "config.json").read_text()), **changes}
        kept = {key: value for key, value in config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))
        if tensors:
            from safetensors.numpy import load_file, save_file

            save_file(tensors(load_file(folder / "model.safetensors")), folder / "model.safetensors")
        return folder

    return make


def without(*beginnings):
    return lambda tensors: {name: array for name, array in tensors.items() if not name.startswith(beginnings)}


# ---- found and named


@pytest.mark.parametrize("release", HEAD_CASES, ids=str)
def test_a_load_that_says_nothing_of_the_head_names_it_and_what_to_call(release):
    with pytest.raises(tfloader.WeightsError, match="is of a head for a task: pass head=") as error:
        tfloader.load(release.path)
    assert f"head={release.options['head']!r} for it, or head=False" in str(error.value)


@pytest.mark.parametrize("name", ["hf_bert_cls", "hf_electra_mc", "hf_gpt2_token"])
def test_without_its_head_a_model_is_what_it_was_before_fine_tuning(name):
    model = tfloader.load(CHECKPOINTS / name, head=False)
    assert model.transformer.config.head is None and model.output_shape[-1] in (16, 60)


def test_true_is_the_head_that_the_config_names():
    assert tfloader.load(TAGGER, head=True).transformer.config.head == "token_classification"


def test_another_head_than_the_config_s_is_refused_though_its_tensors_would_fit():
    with pytest.raises(tfloader.WeightsError, match="it is of another head: pass head='token_classification'"):
        tfloader.load(TAGGER, head="classification")


def test_where_the_config_names_no_class_the_caller_says_which_head_it_is(copy_of):
    folder = copy_of(TAGGER, architectures=None)
    with pytest.raises(tfloader.WeightsError, match=r"pass head=\.\.\., of which the config says nothing"):
        tfloader.load(folder)
    with pytest.raises(tfloader.ConfigError, match="head=True is the head that the config names, but it names none"):
        tfloader.load(folder, head=True)
    model = tfloader.load(folder, head="token_classification")
    tags = case("hf_bert_token")
    assert relative_error(model(tags.input_arrays), tags.expected[0]) < 5e-5
    assert model.transformer.config.id2label[1] == "B-PER"


def test_classes_of_others_are_no_heads_of_ours(copy_of):
    folder = copy_of(CLASSIFIER, architectures=["BertLSTMForSequenceClassification"])
    assert tfloader.load_config(folder).head is None


def test_a_pooler_that_no_head_reads_may_stay_unread_and_is_kept_by_a_conversion(copy_of, tmp_path):
    """Older taggers have one."""
    more = {f"bert.pooler.dense.{name}": np.ones(shape, "float32") for name, shape in WEIGHT_AND_BIAS.items()}
    folder = copy_of(TAGGER, lambda tensors: tensors | more)
    tags = case("hf_bert_token")
    model = tfloader.load(folder, head="token_classification")
    assert relative_error(model(tags.input_arrays), tags.expected[0]) < 5e-5
    tfloader.convert(folder, tmp_path / "out", to="huggingface")
    with tfloader.open_checkpoint(tmp_path / "out") as converted:
        assert set(more) <= set(converted)


WEIGHT_AND_BIAS = {"weight": (16, 16), "bias": (16,)}


# ---- made new


@pytest.mark.parametrize(
    ("name", "head", "layers"),
    [
        ("hf_bert", "classification", ["Classifier"]),
        ("bert_google", "classification", ["Classifier"]),
        ("hf_roberta", "classification", ["Classifier-Dense", "Classifier-Output"]),
        ("hf_roberta", "multiple_choice", ["Pooler-Dense", "Classifier"]),
        ("hf_electra", "question_answering", ["Answer-Span"]),
        ("hf_gpt2", "token_classification", ["Classifier"]),
    ],
)
def test_a_new_head_starts_at_random_and_it_is_said_what_is_not_in_the_file(name, head, layers):
    number = {"num_labels": 5} if "classification" in head else {}
    with pytest.warns(UserWarning, match="is new") as told:
        model = tfloader.load(CHECKPOINTS / name, head=head, **number)
    transformer = model.transformer
    assert [path.split("/")[0] for path in str(told[0].message).replace(",", "").split() if "/kernel" in path] == layers
    for layer in layers:
        kernel, bias = (np.asarray(item) for item in transformer.layers[layer].weights)
        assert 0.005 < kernel.std() < 0.04 and not bias.any()
    expected = 5 if number else 2 if head == "question_answering" else 1
    assert model.output_shape[-1] == expected


def test_a_new_pooler_is_made_only_for_a_new_head(copy_of):
    folder = copy_of(CLASSIFIER, without("bert.pooler.", "classifier."), architectures=["BertModel"])
    with pytest.warns(UserWarning, match="Pooler-Dense/kernel, Pooler-Dense/bias, Classifier/kernel"):
        tfloader.load(folder, head="classification")
    folder = copy_of(CLASSIFIER, without("bert.pooler."))
    with pytest.raises(tfloader.WeightsError, match=r"Pooler-Dense/kernel has no tensor 'bert.pooler.dense.weight'"):
        tfloader.load(folder, head="classification")


@pytest.mark.parametrize("lost", [("classifier.",), ("classifier.bias",)])
def test_a_head_that_the_config_names_is_missed(copy_of, lost):
    folder = copy_of(CLASSIFIER, without(*lost))
    with pytest.raises(tfloader.WeightsError, match=r"Classifier/bias has no tensor 'classifier.bias'"):
        tfloader.load(folder, head="classification")


def test_ignoring_a_head_makes_room_for_a_new_one():
    for head, labels in (("classification", 3), ("classification", 7), ("token_classification", 4)):
        with pytest.warns(UserWarning, match="is new"):
            model = tfloader.load(CLASSIFIER, head=head, num_labels=labels, ignore=["classifier.*"])
        config = model.transformer.config
        assert config.id2label == (LABELS if labels == 3 else {i: f"LABEL_{i}" for i in range(labels)})
    with pytest.raises(tfloader.WeightsError, match=r"classifier.weight has shape \(3, 16\)"):
        tfloader.load(CLASSIFIER, head="classification", num_labels=7)


def test_a_new_head_is_saved_with_its_labels_and_read_back(tmp_path):
    names = {0: "no", 1: "yes"}
    with pytest.warns(UserWarning, match="is new"):
        model = tfloader.load(CHECKPOINTS / "bert_google", head="classification", id2label=names)
    tfloader.save(model, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["architectures"] == ["BertForSequenceClassification"]
    assert (written["id2label"], written["label2id"]) == ({"0": "no", "1": "yes"}, {"no": 0, "yes": 1})
    again = tfloader.load(tmp_path, head="classification")
    arrays = case("bert_google").input_arrays[:2]
    np.testing.assert_array_equal(again(arrays), model(arrays))
    assert again.transformer.config.id2label == names and again.transformer.config.label2id == {"no": 0, "yes": 1}


def test_a_head_is_trained_as_any_layer_of_keras():
    model = tfloader.load(CLASSIFIER, head="classification")
    before = np.asarray(model.transformer.layers["Classifier"].kernel)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(case("hf_bert_cls").input_arrays, np.array([0, 1, 2]), verbose=0)
    assert np.abs(np.asarray(model.transformer.layers["Classifier"].kernel) - before).max() > 0


# ---- what a config says


@pytest.mark.parametrize("release", HEAD_CASES, ids=str)
def test_the_config_of_a_saved_head_says_what_that_of_transformers_said(release, tmp_path):
    tfloader.save(tfloader.load(release.path, head=True), tmp_path)
    theirs, ours = (json.loads(Path(folder, "config.json").read_text()) for folder in (release.path, tmp_path))
    for key in ("architectures", "id2label", "label2id", "problem_type", "classifier_dropout", "pad_token_id"):
        if theirs.get(key) is not None:
            assert ours[key] == theirs[key], key
    dropout = HeadKeys("Albert", "classifier_dropout_prob").dropout
    assert ours.get(dropout) == theirs.get(dropout)


KEYS = HeadKeys("Bert")
NAMED = {"architectures": ["BertForSequenceClassification"]}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, {0: "LABEL_0", 1: "LABEL_1"}),  # so does transformers
        ({"num_labels": 3}, {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}),
        ({"_num_labels": 1}, {0: "LABEL_0"}),
        ({"id2label": {"1": "b", "0": "a"}}, {0: "a", 1: "b"}),
        ({"id2label": {"0": 4, "1": 5}, "num_labels": 9}, {0: "4", 1: "5"}),
    ],
)
def test_labels_are_read_from_what_a_file_has_of_them(raw, expected):
    assert KEYS.read({**NAMED, **raw})["id2label"] == expected


@pytest.mark.parametrize(
    "raw",
    [
        {"num_labels": 0},
        {"num_labels": True},
        {"num_labels": "3"},
        {"num_labels": 10**12},
        {"id2label": {}},
        {"id2label": ["a"]},
        {"id2label": {"1": "a"}},
        {"id2label": {"0": "a", "2": "b"}},
        {"id2label": {"0": None}},
        {"id2label": {"0": "a", "00": "b"}},
        {"id2label": {"9" * 5000: "a"}},
        {"id2label": {"LABEL_0": 0}},
    ],
    ids=lambda raw: str(raw)[:30],
)
def test_labels_that_are_none_are_refused_for_a_head_and_harmless_without_one(raw):
    with pytest.raises(tfloader.ConfigError, match="names no labels 0, 1, "):
        KEYS.read({**NAMED, **raw})
    assert KEYS.read(raw) == {"head": None, "id2label": {}}


@pytest.mark.parametrize("head", CLASSES)
def test_architectures_are_read_as_they_are_written(head):
    config = TransformerConfig("bert", 9, 8, 1, 2, 9, head=head, id2label={0: "a"}, problem_type="regression")
    raw = KEYS.write(config)
    assert KEYS.read(raw) | {"classifier_dropout_prob": None} == {
        "head": head,
        "id2label": {0: "a"},
        "problem_type": "regression",
        "classifier_dropout_prob": None,
    }
    assert KEYS.read({"architectures": [f"TFBert{CLASSES[head]}"]})["head"] == head


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head": "poetry"}, "head must be one of classification, "),
        ({"problem_type": "poetry"}, "problem_type must be one of single_label_classification, "),
        ({"id2label": {1: "a"}}, r"id2label must name the labels 0, 1, ... in this order, found \{1: 'a'\}"),
        ({"id2label": {0: 1}}, "id2label must name the labels"),
        ({"id2label": ["a"]}, "id2label must be a mapping"),
        ({"classifier_dropout_prob": 2.0}, r"classifier_dropout_prob must lie in \[0, 1\)"),
    ],
)
def test_configs_of_heads_that_cannot_be_are_refused(changes, words):
    config = TransformerConfig("bert", 9, 8, 1, 2, 9)
    with pytest.raises(tfloader.ConfigError, match=words):
        config.replace(**changes)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "hf_bert",
            {"head": "poetry"},
            "head='poetry': a 'bert' model has none of this kind; it has 'classification',",
        ),
        ("hf_t5_v10", {"head": "classification"}, "a 't5' model has none of this kind; it has none"),
        ("hf_openai_gpt", {"head": "multiple_choice"}, "a 'gpt' model has none of this kind; it has 'classification'"),
        ("hf_bert", {"num_labels": 3}, "num_labels is for 'classification' and 'token_classification'; head is None"),
        ("hf_bert", {"head": "question_answering", "num_labels": 3}, "head is 'question_answering'"),
        ("hf_bert", {"head": "classification", "num_labels": 0}, "num_labels must be a number from 1"),
        ("hf_gpt2", {"head": "classification", "num_labels": 3}, "pad_token_id is None: give pad_token_id="),
    ],
)
def test_heads_that_cannot_be_are_refused(name, options, words):
    with pytest.raises(tfloader.ConfigError, match=words):
        tfloader.load(CHECKPOINTS / name, **options)


def test_a_hostile_number_of_labels_is_refused_before_memory_is_taken(copy_of):
    folder = copy_of(CLASSIFIER, id2label=None, num_labels=900_000)
    with pytest.raises(tfloader.ConfigError, match="its sizes mean about"):
        tfloader.load(folder, head="classification")


def test_a_format_that_has_no_heads_refuses_one(tmp_path):
    with pytest.raises(tfloader.ConfigError, match="cannot express:\n  - head = 'classification'"):
        tfloader.save(tfloader.load(CLASSIFIER, head="classification"), tmp_path, format="tensorflow")
    with pytest.raises(tfloader.ConversionError, match=r"cannot express:\n *- head = 'classification'"):
        tfloader.convert(CLASSIFIER, tmp_path / "tf", to="tensorflow")


# ---- the commands


@pytest.mark.parametrize("name", ["hf_bert_cls", "hf_gpt2_qa"])
def test_commands_know_the_head(name, tmp_path):
    found = info(CHECKPOINTS / name)
    assert "head" in found["parts"] and not found["unknown"]
    assert found["config"]["head"] == case(name).options["head"]
    checks = {check.name: check for check in verify(CHECKPOINTS / name)}
    assert all(check.status in ("ok", "skipped") for check in checks.values()), checks
    assert "head, each from one tensor" in checks["model"].detail
    tfloader.convert(CHECKPOINTS / name, tmp_path / "keras", to="keras")
    archive = keras.saving.load_model(tmp_path / "keras" / "model.keras", compile=False)
    inputs = case(name).input_arrays[: len(archive.inputs)]
    release = case(name)
    if name == "hf_bert_cls":
        assert relative_error(archive(inputs), release.expected[0]) < 5e-5


def test_an_export_gives_logits(tmp_path):
    import tensorflow as tf

    tfloader.export(CHECKPOINTS / "hf_gpt2_cls", tmp_path / "out", tokenizer=False)
    served = tf.saved_model.load(tmp_path / "out").signatures
    assert list(served) == ["serving_default"]
    tokens = case("hf_gpt2_cls").arrays["input_ids"][:2]  # the third is padded on the left
    found = served["serving_default"](input_ids=tf.constant(tokens))["logits"]
    assert relative_error(found, case("hf_gpt2_cls").expected[0][:2]) < 5e-5


def test_a_stale_class_in_the_config_of_an_encoder_makes_no_head(copy_of, tmp_path):
    folder = copy_of(CLASSIFIER, without("classifier."))
    tfloader.load(folder)
    assert all(check.status in ("ok", "skipped") for check in verify(folder))
    tfloader.convert(folder, tmp_path / "tf", to="tensorflow")


def test_a_model_with_a_head_does_not_generate():
    model = tfloader.load(CHECKPOINTS / "hf_gpt2_cls", head="classification")
    assert not model.transformer.can_generate
    with pytest.raises(tfloader.ConfigError):
        tfloader.TextGenerator(model)


def test_a_config_s_head_and_labels_are_data():
    config = tfloader.load_config(CLASSIFIER)
    assert (config.head, config.id2label, config.problem_type) == (
        "classification",
        LABELS,
        "single_label_classification",
    )
    assert json.loads(json.dumps(dataclasses.asdict(config)))["id2label"] == {
        str(i): name for i, name in LABELS.items()
    }


def test_two_classifiers_of_other_labels_are_not_the_same_model(tmp_path):
    with pytest.warns(UserWarning, match="is new"):
        other = tfloader.load(CLASSIFIER, head="classification", num_labels=4, ignore=["classifier.*"])
    tfloader.save(other, tmp_path)
    checks = {check.name: check.detail for check in tfloader.compare(CLASSIFIER, tmp_path, tokenizer=False)}
    assert "Classifier/kernel has the shapes (16, 3) and (16, 4)" in checks["tensors"]
