"""Sentence vectors: equal to those of sentence-transformers, in folders that it reads; trained by likeness."""

import json
import shutil

import numpy as np
import pytest

from tests.conftest import FIXTURES
from tfloader import SentenceEncoder
from tfloader.errors import CheckpointError, ConfigError, DataError

SENTENCES = FIXTURES / "sentences"
OUTPUTS = np.load(SENTENCES / "outputs.npz")
TEXTS = json.loads((SENTENCES / "texts.json").read_text())["texts"]
PLAIN = FIXTURES / "checkpoints" / "hf_bert"
PAIRS = [
    ("a man runs", "a dog runs", 0.8),
    ("the bank rates", "a man plays music", 0.1),
    ("who is good", "who runs", 0.5),
]


@pytest.fixture(scope="module")
def encoder():
    return SentenceEncoder(SENTENCES / "st6_dense")


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("st6_all_modes", "all_modes"), ("st6_dense", "dense_prompts"), ("st3_dense", "dense_prompts")],
)
def test_vectors_equal_those_of_sentence_transformers_also_after_a_save(folder, expected, tmp_path):
    encoder = SentenceEncoder(SENTENCES / folder)
    assert encoder.max_length == 12  # the last text is longer
    np.testing.assert_allclose(encoder.encode(TEXTS), OUTPUTS[expected], atol=5e-6)
    np.testing.assert_allclose(encoder.encode(TEXTS[0]), OUTPUTS[expected][0], atol=5e-6)
    encoder.save(tmp_path / "again")
    again = SentenceEncoder(tmp_path / "again")
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    assert again.modules.pooling == encoder.modules.pooling
    assert again.prompts == encoder.prompts


def test_a_prompt_goes_before_each_text_by_its_name_or_as_it_is(encoder):
    by_name = encoder.encode(TEXTS, prompt="query")
    np.testing.assert_allclose(by_name, OUTPUTS["dense_prompts_query"], atol=5e-6)
    np.testing.assert_array_equal(encoder.encode(TEXTS, prompt="query : "), by_name)


def test_texts_may_come_in_any_number_and_order_of_lengths(encoder):
    mixed = TEXTS[::-1] * 3
    np.testing.assert_allclose(
        encoder.encode(mixed, batch_size=5), np.tile(OUTPUTS["dense_prompts"][::-1], (3, 1)), atol=5e-6
    )


def test_likeness_is_what_the_folder_says(encoder):
    vectors = OUTPUTS["dense_prompts"]
    np.testing.assert_allclose(encoder.similarity(vectors, vectors[:2]), vectors @ vectors[:2].T, rtol=1e-6)
    plain = SentenceEncoder(PLAIN, pooling=["cls", "max"], normalize=False)
    x = np.random.default_rng(0).normal(size=(3, 5))
    cosines = x @ x.T / np.outer(*[np.linalg.norm(x, axis=1)] * 2)
    np.testing.assert_allclose(plain.similarity(x, x), cosines, rtol=1e-5)


def test_any_encoder_becomes_one_by_pooling_its_vectors():
    encoder = SentenceEncoder(PLAIN, pooling=["mean"])
    batch = encoder.tokenizer(["a b", "c"])
    hidden = encoder.network.predict_on_batch(batch.inputs(encoder.network))
    mask = batch.attention_mask[:, :, None]
    mean = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
    np.testing.assert_allclose(
        encoder.encode(["a b", "c"]), mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5
    )


@pytest.mark.parametrize("objective", ["cosent", "contrastive"])
def test_training_by_likeness_raises_the_correlation_and_is_saved(objective, tmp_path):
    encoder = SentenceEncoder(
        SENTENCES / "st6_dense", objective=objective, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    items = PAIRS if objective == "cosent" else [pair[:2] for pair in PAIRS]
    history = encoder.fit(
        items * 2, validation=PAIRS, epochs=8, batch_size=3, learning_rate=3e-3, output=tmp_path / "run"
    )
    assert min(history["loss"][1:]) < history["loss"][0]
    if objective == "cosent":
        assert encoder.evaluate(PAIRS)["spearman"] == max(history["val_spearman"]) > 0.4
    assert (tmp_path / "run" / "state.safetensors").exists()
    encoder.save(tmp_path / "trained")
    np.testing.assert_array_equal(SentenceEncoder(tmp_path / "trained").encode(TEXTS), encoder.encode(TEXTS))


def test_a_text_alone_is_its_own_partner():
    encoder = SentenceEncoder(SENTENCES / "st6_dense", objective="contrastive")
    history = encoder.fit(["a man runs", "the bank rates", "who is good"], epochs=1, batch_size=3)
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "no items"),
        ("a text", "list of items"),
        ([("a", "b", "alike")], r"items\[0\].*'alike'.*number"),
        ([("a", 3, 1.0)], r"items\[0\].*int 3"),
        ([{"label": 1.0}], r"items\[0\].*no 'text' among"),
        ([("a", "b", 1.0), ("a", "b")], "how alike"),
    ],
)
def test_items_that_say_nothing_of_likeness_are_named(encoder, items, said):
    with pytest.raises(DataError, match=said):
        encoder.fit(items, epochs=1)


def changed(tmp_path, file, change):
    shutil.copytree(SENTENCES / "st6_dense", tmp_path / "changed")
    path = tmp_path / "changed" / file
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content)))
    return tmp_path / "changed"


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("modules.json", lambda x: {"0": x}, "expected a JSON array"),
        ("modules.json", lambda x: x[:1], "expected a Transformer"),
        (
            "modules.json",
            lambda x: [*x, {"type": "sentence_transformers.models.LSTM", "path": "4"}],
            "LSTM.*not implemented",
        ),
        ("modules.json", lambda x: [x[0], {**x[1], "path": "../1_Pooling"}, *x[2:]], r"1_Pooling.*not the name"),
        ("modules.json", lambda x: [{**x[0], "path": "0_Transformer"}, *x[1:]], "in the folder itself"),
        ("1_Pooling/config.json", lambda x: {**x, "pooling_mode": "median"}, "median"),
        ("1_Pooling/config.json", lambda x: {**x, "pooling_mode": []}, "at least one"),
        ("1_Pooling/config.json", lambda x: {**x, "scale": 2}, "scale.*2"),
        ("2_Dense/config.json", lambda x: {**x, "activation_function": "os.system"}, "os.system.*not implemented"),
        ("2_Dense/config.json", lambda x: {**x, "out_features": 9}, r"its tensors should be"),
        ("2_Dense/config.json", lambda x: {**x, "module_input_name": "token_embeddings"}, "module_input_name"),
        ("sentence_bert_config.json", lambda x: {**x, "max_seq_length": -1}, "max_seq_length: -1"),
        ("sentence_bert_config.json", lambda x: {**x, "transformer_task": "fill-mask"}, "transformer_task"),
        ("config_sentence_transformers.json", lambda x: {**x, "default_prompt_name": "other"}, "other.*none of"),
        ("config_sentence_transformers.json", lambda x: {**x, "similarity_fn_name": "likeness"}, "likeness"),
        ("config_sentence_transformers.json", lambda x: {**x, "prompts": ["a"]}, "prompts"),
    ],
)
def test_modules_that_would_compute_something_else_are_refused(file, change, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        SentenceEncoder(changed(tmp_path, file, change))


def test_options_that_contradict_the_folder_are_refused():
    with pytest.raises(ConfigError, match=r"pooling: .*modules.json"):
        SentenceEncoder(SENTENCES / "st6_dense", pooling=["cls"])
    with pytest.raises(ConfigError, match="modes"):
        SentenceEncoder(PLAIN, pooling=["median"])
    with pytest.raises(DataError, match="max_length"):
        SentenceEncoder(SENTENCES / "st6_dense", max_length=0)
    with pytest.raises(ConfigError, match="objective"):
        SentenceEncoder(PLAIN, objective="alike")


def test_the_order_of_pooling_and_what_is_no_text_are_kept_or_refused(tmp_path):
    encoder = SentenceEncoder(FIXTURES / "tasks" / "single", pooling=["mean", "cls"])
    encoder.save(tmp_path / "saved")
    again = SentenceEncoder(tmp_path / "saved")
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    with pytest.raises(DataError, match=r"items\[0\]: tuple.*\n.*items\[2\]: NoneType"):
        encoder.encode([("a man", "a dog"), "a man", None])
    with pytest.raises(DataError, match="number"):
        encoder.evaluate([("a", "b", float("nan"))])


def test_an_empty_prompt_is_none(encoder):
    assert encoder.modules.default_prompt is None
    np.testing.assert_array_equal(encoder.encode(TEXTS, prompt=""), encoder.encode(TEXTS))


def test_a_folder_with_files_is_not_written_into(encoder, tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(CheckpointError, match="not empty"):
        encoder.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
