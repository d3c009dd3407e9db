"""Taggers answer as transformers' pipeline does, learn with every decoder, and come back as they were."""

import itertools
import json
import shutil

import keras
import numpy as np
import pytest

from tests.conftest import FIXTURES
from tfloader import Tagger, load_task
from tfloader.errors import ConfigError, DataError, WeightsError
from tfloader.tasks.tagger import Entity, Sentence

FOLDER = FIXTURES / "tasks"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
ENCODER = FIXTURES / "sentences" / "st6_dense"
ITEMS = [
    (["the", "man", "plays", "guitar"], ["O", "B-WHO", "O", "B-WHAT"]),
    ("who plays music?", [(0, 3, "WHO"), (10, 15, "WHAT")]),
    {"tokens": ["the", "bank", "rates"], "ner_tags": ["B-WHO", "I-WHO", "O"]},
    {"text": "a dog runs fast", "spans": [{"start": 0, "end": 5, "label": "WHO"}]},
]
DECODERS = ("softmax", "crf", "memm")


def fresh(decoder="softmax", **options):
    keras.utils.set_random_seed(0)
    return Tagger(
        ENCODER,
        labels=["WHO", "WHAT"],
        decoder=decoder,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **options,
    )


def test_tags_and_scores_of_words_are_those_of_transformers():
    task = Tagger(FOLDER / "tags")
    assert task.labels == ["LOC", "PER"]
    examples = task.examples(EXPECTED["texts"], labelled=False)
    for example, expected in zip(examples, EXPECTED["tags"], strict=True):
        (tags,), (scores,) = task.compute(task.inputs([example]))
        assert [task.tags[tag] for tag in tags] == [word["entity"] for word in expected]
        np.testing.assert_allclose(scores, [word["score"] for word in expected], atol=1e-5)
        assert example.item.places == [(word["start"], word["end"]) for word in expected]


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_tagger_learns_every_form_of_items_and_is_saved(decoder, tmp_path):
    task = fresh(decoder)
    assert [task.spans(example.target) for example in task.examples(ITEMS)] == [
        [(1, 2, "WHO"), (3, 4, "WHAT")],
        [(0, 1, "WHO"), (2, 3, "WHAT")],
        [(0, 2, "WHO")],
        [(0, 2, "WHO")],
    ]
    history = task.fit(ITEMS, validation=ITEMS, epochs=40, batch_size=4, learning_rate=2e-2)
    assert max(history["val_f1"]) == task.evaluate(ITEMS)["f1"] == 1
    assert task.evaluate(ITEMS) == {"f1": 1, "precision": 1, "recall": 1}
    assert {label: score.f1 for label, score in task.report(ITEMS).items()} == {"WHAT": 1, "WHO": 1}
    found = task.predict("who plays music?")
    assert [entity[:4] for entity in found] == [(0, 3, "WHO", "who"), (10, 15, "WHAT", "music")]
    assert all(0 < entity.score <= 1.0001 for entity in found)
    assert task.predict([["the", "bank", "rates"]])[0][0][:4] == (0, 2, "WHO", "the bank")
    task.save(tmp_path / "task")
    again = load_task(tmp_path / "task")
    assert again.decoder == decoder
    assert again.predict(["who plays music?", "a dog runs"]) == task.predict(["who plays music?", "a dog runs"])
    config = json.loads((tmp_path / "task" / "config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    assert list(config["id2label"].values()) == ["O", "B-WHAT", "I-WHAT", "B-WHO", "I-WHO"]


def test_the_score_of_a_tag_with_a_crf_is_its_probability_among_all_sequences():
    task = fresh("crf")
    rng = np.random.default_rng(0)
    transitions = rng.normal(size=(5, 5)).astype("float32")
    task.layer.stored_transitions.assign(transitions / task.layer.lr_multiplier)
    scores = rng.normal(size=(1, 3, 5)).astype("float32")
    tags, probabilities = task.read(keras.ops.convert_to_tensor(scores))
    sums = {
        path: scores[0, range(3), path].sum() + transitions[path[:-1], path[1:]].sum()
        for path in itertools.product(range(5), repeat=3)
    }
    total = sum(np.exp(value) for value in sums.values())
    best = max(sums, key=sums.get)
    assert tuple(np.asarray(tags)[0]) == best
    expected = [sum(np.exp(value) for path, value in sums.items() if path[i] == best[i]) / total for i in range(3)]
    np.testing.assert_allclose(np.asarray(probabilities)[0], expected, rtol=1e-4)


@pytest.mark.parametrize("decoder", DECODERS)
def test_padding_changes_nothing(decoder):
    task = fresh(decoder)
    texts = ["who", "a dog runs fast, the man is good.", "the bank"]
    alone = [task.predict(text) for text in texts]
    for one, other in zip(alone, task.predict(texts), strict=True):
        assert [entity[:4] for entity in one] == [entity[:4] for entity in other]
        np.testing.assert_allclose([entity.score for entity in one], [entity.score for entity in other], rtol=1e-4)


def test_a_text_is_divided_into_characters_words_and_signs():
    sentence = Sentence.of("王小明 was in_2024 at 北京, OK?")
    assert sentence.words == [*"王小明", "was", "in_2024", "at", *"北京", ",", "OK", "?"]
    assert all(
        sentence.text[start:end] == word for (start, end), word in zip(sentence.places, sentence.words, strict=True)
    )
    assert sentence.between(0, 3) == (0, 3, "王小明")


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ((["who"], ["B-WHEN"]), r"items\[0\]: tag 'B-WHEN'.*O, B-WHAT"),
        ((["who", "plays"], ["O"]), r"items\[0\]: 2 words, but the tags are \['O'\]"),
        (("who plays", [(0, 2, "WHO")]), "does not begin and end with words"),
        (("who plays", [(0, 3, "WHEN")]), "B-WHEN"),
        (("a man plays", [(0, 5, "WHO"), (2, 5, "WHAT")]), "overlaps"),
        (([], []), "no words"),
        ((["a", " "], ["O", "O"]), "empty"),
        ((3, []), "int 3"),
        ({"tokens": ["a"]}, "None"),
        ({"words": ["a"]}, "no 'text', 'spans'"),
        ((["a"] * 31, ["O"] * 31), r"(?s)32 tokens.*items\[0\]: 33 tokens"),
    ],
)
def test_items_that_are_wrong_are_named(item, said):
    with pytest.raises(DataError, match=said):
        fresh().evaluate([item])


def test_words_that_are_cut_off_have_no_tags():
    task = fresh(truncation=True, max_length=5)
    assert task.evaluate([(["the", "man", "plays", "a", "guitar"], ["B-WHO"] * 5)])["recall"] <= 3 / 5
    assert all(entity.end <= 3 for entity in task.predict([["the", "man", "plays", "a", "guitar"]])[0])


def test_further_weights_are_those_of_the_task(tmp_path):
    fresh("crf").save(tmp_path / "crf")
    fresh("memm").save(tmp_path / "memm")
    shutil.copy(tmp_path / "memm" / "task.safetensors", tmp_path / "crf" / "task.safetensors")
    with pytest.raises(WeightsError, match="CRF/transitions: not in the file"):
        load_task(tmp_path / "crf")


def test_tags_that_no_scheme_has_are_refused():
    with pytest.raises(DataError, match="expected O or a letter of BMES"):
        Tagger(FOLDER / "tags", scheme="BMES")
    with pytest.raises(ConfigError, match="decoder"):
        Tagger(FOLDER / "tags", decoder="greedy")


def test_an_entity_is_read_by_name():
    entity = Entity(0, 3, "PER", "Ann", 0.5)
    assert (entity.label, entity.text, entity.score) == ("PER", "Ann", 0.5)
