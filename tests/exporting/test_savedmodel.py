"""A SavedModel gives what the Keras model gives, in a process that does not know tfloader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tokenizers import AddedToken

import tfloader
from tests.conftest import CHECKPOINTS
from tests.exporting import served
from tests.exporting.cases import COUNT, IDS, MASK, TEXTS, case, relative
from tfloader.errors import ConfigError, ConversionError, TokenizerError
from tfloader.exporting import export, formats, writing

# The tests of the other formats have all.
SERVED = [case(name) for name in ("hf_bert", "gpt2_ml", "hf_t5_v11")]
each = pytest.mark.parametrize("item", SERVED, ids=str)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of all cases, after another process has run them."""
    root = tmp_path_factory.mktemp("exported")
    for item in SERVED:
        place = root / item.name
        place.mkdir()
        what = item.model if item.options else item.path
        export(what, place / "exported", verify=False)
        np.savez(place / "inputs.npz", **item.arrays(3, 6))
        prompts = {"texts": TEXTS, "ids": IDS, "mask": MASK, "count": COUNT}
        (place / "prompts.json").write_text(json.dumps(prompts))
    command = [sys.executable, served.__file__, str(root)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return root


def outputs(root: Path, item) -> dict[str, np.ndarray]:
    return dict(np.load(root / item.name / "outputs.npz"))


@each
def test_ids_give_what_the_keras_model_gives(item, exported):
    found, expected = outputs(exported, item), item.expected(item.arrays(3, 6))
    for name, value in expected.items():
        assert relative(found[name], value) < 1e-5


@pytest.mark.parametrize("item", [item for item in SERVED if "serving_text" in item.signatures], ids=str)
def test_strings_give_what_the_tokenizer_and_the_model_give(item, exported):
    tokens = tfloader.load_tokenizer(item.path)(TEXTS)
    found = outputs(exported, item)
    np.testing.assert_array_equal(found["text/input_ids"], tokens.input_ids)
    np.testing.assert_array_equal(found["text/attention_mask"], tokens.attention_mask)
    inputs = {"input_ids": tokens.input_ids, "token_type_ids": np.zeros_like(tokens.input_ids)}
    for name, value in item.expected(inputs).items():
        assert relative(found[f"text/{name}"], value) < 1e-5


@pytest.mark.parametrize("item", [item for item in SERVED if "step" in item.signatures], ids=str)
def test_a_loop_over_the_exported_step_gives_the_generators_greedy_tokens(item, exported):
    assert json.loads((exported / item.name / "tokens.json").read_text()) == item.greedy


@each
def test_the_description_names_what_the_signatures_take_and_give(item, exported):
    place = exported / item.name
    described = json.loads((place / "exported" / "signatures.json").read_text())["signatures"]
    assert described == json.loads((place / "found.json").read_text())
    assert set(described) == {"serving_default", *item.signatures}
    assert tuple(described["serving_default"]["inputs"]) == item.inputs
    assert tuple(described["serving_default"]["outputs"]) == item.outputs


def test_config_and_tokenizer_go_along(exported):
    folder = exported / "hf_bert" / "exported"
    assert json.loads((folder / "config.json").read_text())["model_type"] == "bert"
    expected = tfloader.load_tokenizer(CHECKPOINTS / "hf_bert")
    assert tfloader.load_tokenizer(folder).encode(TEXTS[0]) == expected.encode(TEXTS[0])


def test_a_step_without_a_position_left_and_an_empty_prompt_are_errors(exported):
    item = case("gpt2_ml")
    signatures = tf.saved_model.load(str(exported / item.name / "exported")).signatures
    most = item.model.transformer.config.max_position_embeddings
    ids = tf.ones([1, most], tf.int32)
    state = signatures["prefill"](input_ids=ids, attention_mask=ids)
    del state["logits"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="No position is left"):
        signatures["step"](token=tf.constant([1]), **state)
    with pytest.raises(tf.errors.InvalidArgumentError, match="without a token"):
        signatures["prefill"](input_ids=ids, attention_mask=ids * 0)


def test_ids_outside_the_vocabulary_are_errors(exported):
    item = case("gpt2_ml")
    signatures = tf.saved_model.load(str(exported / item.name / "exported")).signatures
    message = f"not from 0 to {item.model.transformer.config.vocab_size - 1}"
    ids = tf.constant(item.with_ids_outside()["input_ids"])
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures["serving_default"](input_ids=ids)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures["prefill"](input_ids=ids, attention_mask=tf.ones_like(ids))
    state = signatures["prefill"](input_ids=ids, attention_mask=tf.constant([[1, 0, 0, 0]] * 3))
    del state["logits"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures["step"](token=tf.constant([0, 1, -1]), **state)


@pytest.fixture
def bert():
    return tfloader.load(CHECKPOINTS / "hf_bert", num_hidden_layers=1)


def test_a_model_built_on_top_is_exported_and_checked(bert, tmp_path):
    classifier = keras.Model(bert.inputs, keras.layers.Dense(3, name="Topic-Scores")(bert.output[:, 0]))
    tokenizer = tfloader.load_tokenizer(CHECKPOINTS / "hf_bert")
    checks = export(classifier, tmp_path / "out", tokenizer=tokenizer, max_length=8)
    assert [check.name for check in checks] == ["serving_default", "serving_text"]
    signatures = tf.saved_model.load(str(tmp_path / "out")).signatures
    found = signatures["serving_text"](texts=tf.constant(TEXTS))
    tokens = tokenizer(TEXTS, max_length=8)
    assert tokens.input_ids.shape[1] == 8
    expected = np.asarray(classifier([tokens.input_ids, tokens.segment_ids]))
    assert relative(found["topic_scores"], expected) < 1e-5


def test_half_precision_is_exported_as_it_is(tmp_path):
    model = tfloader.load(CHECKPOINTS / "hf_gpt2", num_hidden_layers=1, dtype="bfloat16")
    assert [check.status for check in export(model, tmp_path / "out", decoding=False)] == ["ok"]
    signature = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    assert signature.structured_outputs["logits"].dtype == tf.bfloat16


def test_convert_leads_here(tmp_path):
    checks = tfloader.convert(CHECKPOINTS / "hf_bert", tmp_path / "out", "savedmodel", tokenizer=False)
    assert [(check.name, check.status) for check in checks] == [("serving_default", "ok")]
    assert not list((tmp_path / "out").glob("vocab*"))


# ---- refusals


def test_what_differs_from_the_model_is_not_kept(bert, tmp_path, monkeypatch):
    def wrong(folder, name):
        run = formats.open_savedmodel(folder, name)
        return lambda **inputs: {key: value * np.float32(1.001) for key, value in run(**inputs).items()}

    monkeypatch.setitem(formats.FORMATS, "savedmodel", formats.Format(formats.write_savedmodel, wrong, holds_text=True))
    with pytest.raises(ConversionError, match=r"serving_default: what was written does not give"):
        export(bert, tmp_path / "out")
    assert not os.listdir(tmp_path)


def test_a_failure_while_writing_leaves_nothing(bert, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "write_description", fails)
    with pytest.raises(ConversionError, match="No space left"):
        export(bert, tmp_path / "out", verify=False)
    assert not os.listdir(tmp_path)


def test_what_a_converter_raises_is_said_in_our_words(bert, tmp_path, monkeypatch):
    def fails(*_):
        raise ValueError("an operation without a form\nand a long explanation")

    broken = formats.Format(fails, formats.open_savedmodel)
    monkeypatch.setitem(formats.FORMATS, "savedmodel", broken)
    with pytest.raises(ConversionError, match=r"cannot express .* \(ValueError: an operation without a form\)"):
        export(bert, tmp_path / "out")
    assert not os.listdir(tmp_path)


def test_a_folder_that_holds_something_is_refused_before_the_model_is_loaded(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConversionError, match=r"holds mine\.txt"):
        export("there is no such model", tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"to": "coreml"}, ConversionError, "savedmodel, onnx, litert"),
        ({"to": "litert", "text": True}, ConversionError, "no strings"),
        ({"dtype": "float16"}, ConversionError, "loaded already"),
        ({"text": True}, TokenizerError, "there is no tokenizer"),
        ({"decoding": True}, ConfigError, "is an encoder"),
    ],
)
def test_what_is_not_possible_is_refused(options, error, words, bert, tmp_path):
    with pytest.raises(error, match=words):
        export(bert, tmp_path / "out", **options)
    assert not os.listdir(tmp_path)


def test_another_dtype_than_float32_is_refused_where_the_converter_takes_none(tmp_path):
    model = tfloader.load(CHECKPOINTS / "hf_gpt2", num_hidden_layers=1, dtype="float16")
    with pytest.raises(ConversionError, match=r"computes in float16.*dtype='float32'"):
        export(model, tmp_path / "out", to="litert")


def test_a_missing_package_is_named_with_how_to_get_it(tmp_path, monkeypatch):
    absent = formats.Format(formats.write_onnx, formats.open_onnx, ("no_such_package",), "onnx")
    monkeypatch.setitem(formats.FORMATS, "onnx", absent)
    with pytest.raises(ConversionError, match=r"needs no_such_package: run pip install 'tfloader\[onnx\]'"):
        export("there is no such model", tmp_path / "out", to="onnx")


def test_every_reason_against_texts_is_given(bert, tmp_path):
    tokenizer = tfloader.Tokenizer(
        {"[UNK]": 0, "a": 5000, "[X]": 7},
        token_start=None,
        token_end=None,
        token_pad="[X]",
        added_tokens=[AddedToken("a", lstrip=True)],
    )
    with pytest.raises(TokenizerError) as refusal:
        export(bert, tmp_path / "out", tokenizer=tokenizer, text=True, max_length=10**6)
    for words in (
        "max_length=1000000",
        "added tokens have options",
        "5001 tokens",
        "pads with id 7, the model hides 0",
    ):
        assert words in str(refusal.value)


def test_a_decoding_step_is_refused_for_a_model_without_its_head(tmp_path):
    model = tfloader.load(CHECKPOINTS / "hf_t5_v11", with_lm=False)
    with pytest.raises(ConfigError, match="build the model with with_lm"):
        export(model, tmp_path / "out", decoding=True)
