"""Classifiers answer as transformers' pipeline does, learn, and come back from a folder as they were."""

import json

import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import FIXTURES
from tfloader import TextClassifier, load_task
from tfloader.errors import ArgumentError, ConfigError, DataError, TrainingError

FOLDER = FIXTURES / "tasks"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
TEXTS = EXPECTED["texts"]
ENCODER = FIXTURES / "sentences" / "st6_dense"  # a BERT without a head
ITEMS = [
    ("the man plays guitar", "good"),
    ("the bank rates", "bad"),
    ("a man plays music", "good"),
    ("the bank", "bad"),
]


@pytest.fixture(scope="module")
def single():
    return TextClassifier(FOLDER / "single")


def fresh(**options):
    keras.utils.set_random_seed(0)
    return TextClassifier(
        ENCODER, labels=["bad", "good"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **options
    )


def test_the_scores_of_labels_are_those_of_transformers(single):
    assert single.labels == ["bad", "fair", "good"]
    for answer, expected in zip(single.predict(TEXTS), EXPECTED["single"], strict=True):
        assert answer.scores == pytest.approx(expected, abs=1e-5)
        assert answer.labels == (answer.label,) == (max(expected, key=expected.get),)
        assert answer.score == max(answer.scores.values())
    for answer, expected in zip(single.predict(EXPECTED["pairs"]), EXPECTED["single_pairs"], strict=True):
        assert answer.scores == pytest.approx(expected, abs=1e-5)
    assert single.predict(TEXTS[0]).scores == pytest.approx(single.predict(TEXTS)[0].scores)


def test_several_labels_are_those_with_at_least_half():
    task = TextClassifier(FOLDER / "multi")
    assert task.problem_type == "multi_label_classification"
    for answer, expected in zip(task.predict(TEXTS), EXPECTED["multi"], strict=True):
        assert answer.scores == pytest.approx(expected, abs=1e-5)
        assert answer.labels == tuple(label for label in "xyz" if expected[label] >= 0.5)


def test_a_regression_gives_numbers():
    task = TextClassifier(FOLDER / "regression")
    np.testing.assert_allclose(task.predict(TEXTS), EXPECTED["regression"], atol=1e-5)
    scores = task.evaluate(list(zip(TEXTS, EXPECTED["regression"], strict=True)))
    assert scores == pytest.approx({"spearman": 1, "pearson": 1, "mean_squared_error": 0}, abs=1e-5)


def test_metrics_and_confusion_count_labelled_items(single):
    found = [answer.label for answer in single.predict(TEXTS)]
    assert found == ["bad", "bad", "bad", "fair"]
    items = list(zip(TEXTS, ["bad", 2, "bad", "fair"], strict=True))
    scores = single.evaluate(items)
    assert scores == pytest.approx({"accuracy": 3 / 4, "f1_micro": 3 / 4, "f1_macro": np.mean([4 / 5, 1, 0])})
    np.testing.assert_array_equal(single.confusion(items).counts, [[2, 0, 0], [0, 1, 0], [1, 0, 0]])


def test_a_new_head_learns_and_is_saved_as_transformers_has_it(tmp_path):
    task = fresh()
    history = task.fit(ITEMS, validation=ITEMS, epochs=8, batch_size=2, learning_rate=1e-2)
    assert history["val_accuracy"][-1] == task.evaluate(ITEMS)["accuracy"] == 1
    task.save(tmp_path / "task")
    again = load_task(tmp_path / "task")
    assert again.predict(TEXTS) == task.predict(TEXTS)
    config = json.loads((tmp_path / "task" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "bad", "1": "good"}
    assert config["label2id"] == {"bad": 0, "good": 1}


def test_a_model_saved_over_a_task_is_no_task(single, tmp_path):
    single.save(tmp_path / "both")
    tfloader.save(single.network, tmp_path / "both")
    with pytest.raises(ConfigError, match=r"no task.json"):
        load_task(tmp_path / "both")


@pytest.mark.parametrize(
    "data",
    [
        [{"text": text, "label": label} for text, label in ITEMS],
        [{"text": text, "label": int(label == "good")} for text, label in ITEMS],
        [(text, text, label) for text, label in ITEMS],
        [{"text": text, "text_pair": text, "label": label} for text, label in ITEMS],
    ],
    ids=["rows", "numbers", "pairs", "rows of pairs"],
)
def test_items_may_be_rows_or_tuples_with_labels_by_name_or_number(data):
    task = fresh()
    targets = [example.target for example in task.examples(data)]
    assert targets == [1, 0, 1, 0]
    assert len({tuple(example.segment_ids) for example in task.examples(data)}) > 0


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    options = {"validation": ITEMS, "epochs": 3, "batch_size": 2, "learning_rate": 1e-3}
    whole = fresh()
    expected = whole.fit(ITEMS, output=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        fresh().fit(ITEMS, output=tmp_path / "cut", callbacks=[Interrupt()], **options)
    task = fresh()
    history = task.fit(ITEMS, output=tmp_path / "cut", **options)
    assert history.keys() == expected.keys()
    assert all(history[name] == pytest.approx(expected[name]) for name in history)
    assert [answer.labels for answer in task.predict(TEXTS)] == [answer.labels for answer in whole.predict(TEXTS)]
    assert task.fit(ITEMS, output=tmp_path / "cut", **options) == history  # it is done
    with pytest.raises(TrainingError, match="other data, epochs"):
        task.fit(ITEMS[:2], output=tmp_path / "cut", **{**options, "epochs": 5})


def test_patience_ends_a_training_and_the_best_weights_stay(tmp_path):
    task = fresh()
    options = {"validation": ITEMS, "epochs": 9, "learning_rate": 1e-9, "patience": 2, "output": tmp_path}
    history = task.fit(ITEMS, **options)
    assert len(history["loss"]) == 3
    assert task.fit(ITEMS, **options) == history


def test_an_attack_and_weights_of_classes_change_the_training():
    options = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-2}
    task = fresh()
    scores = [
        answer.scores[label]
        for answer, (_, label) in zip(task.predict([text for text, _ in ITEMS]), ITEMS, strict=True)
    ]
    losses = -np.log(scores) * [1, 3, 1, 3]
    history = task.fit(ITEMS, adversarial=tfloader.FGM(0.5), class_weight={"bad": 3.0}, **options)
    np.testing.assert_allclose(history["loss"][0], losses.mean(), rtol=1e-5)
    plain = fresh().fit(ITEMS, class_weight={"bad": 3.0}, **options)
    np.testing.assert_allclose(plain["loss"][0], losses.mean(), rtol=1e-5)
    assert history["loss"][2] != plain["loss"][2]


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (
            [("text", "ugly"), ("", "good"), ("text", 2)],
            r"items\[0\].*'ugly'.*bad, good\n.*items\[1\].*empty\n.*items\[2\]",
        ),
        ([{"text": "no label"}], r"items\[0\].*no 'label'"),
        ([("text", None)], r"items\[0\].*None"),
        ([(b"bytes", "good")], r"items\[0\]: text is bytes"),
        ([("a " * 31, "good"), ("b", "bad")], r"(?s)32 tokens.*truncation=True.*items\[0\]: 33 tokens"),
        ([("a", "b", "good"), ("a", "bad")], "second text"),
    ],
)
def test_items_that_are_wrong_are_named_all_at_once(items, said):
    with pytest.raises(DataError, match=said):
        fresh().fit(items, epochs=1)


def test_longer_texts_are_cut_if_that_is_asked_for():
    task = TextClassifier(FOLDER / "single", truncation=True, max_length=6)
    long = "the man plays guitar . the man"
    assert task.predict(long).scores == pytest.approx(
        TextClassifier(FOLDER / "single").predict("the man plays guitar").scores
    )


@pytest.mark.parametrize("labels", [[], ["a", "a"], "ab", [1, 2], ["a", ""]])
def test_labels_are_different_names(labels):
    with pytest.raises(ArgumentError if isinstance(labels, str) else DataError, match="labels"):
        TextClassifier(ENCODER, labels=labels)


def test_labels_that_a_trained_head_does_not_have_are_refused():
    with pytest.raises(DataError, match=r"own head has the labels bad, fair, good.*ignore"):
        TextClassifier(FOLDER / "single", labels=["good", "fair", "bad"])
    assert TextClassifier(FOLDER / "single", labels=["bad", "fair", "good"]).labels == ["bad", "fair", "good"]
    new = TextClassifier(FOLDER / "single", labels=["no", "yes"], ignore=["classifier.*"])
    assert new.labels == ["no", "yes"]
    with pytest.raises(DataError, match="1 do not make a single_label"):
        TextClassifier(ENCODER, labels=["only"])
    with pytest.raises(DataError, match="2 do not make a regression"):
        TextClassifier(ENCODER, labels=["a", "b"], problem_type="regression")


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_below_one_are_refused(single, size):
    with pytest.raises(DataError, match="batch_size"):
        single.predict(TEXTS, batch_size=size)
    with pytest.raises(DataError, match="max_length"):
        TextClassifier(FOLDER / "single", max_length=size)


def test_a_label_is_no_second_text(single):
    with pytest.raises(DataError, match=r"items\[0\]: 'good' is one of the labels"):
        single.predict([("the man", "good")])
    assert single.predict([{"text": "the man", "text_pair": "plays"}])
    assert single.predict([{"text": "the man", "text_pair": "good"}])


@pytest.mark.parametrize("weights", [{"good": float("nan")}, {"good": -1.0}, [1, 2, 3]])
def test_weights_of_classes_are_numbers_by_label(single, weights):
    with pytest.raises(TrainingError, match="class_weight: expected"):
        single.fit([(TEXTS[0], 0)], class_weight=weights)


def test_options_without_effect_are_refused(single, tmp_path):
    with pytest.raises(TrainingError, match="patience"):
        single.fit([(TEXTS[0], 0)], patience=1)
    with pytest.raises(TrainingError, match="epochs"):
        single.fit([(TEXTS[0], 0)], epochs=0)
    with pytest.raises(TrainingError, match="tensorboard"):
        single.fit([(TEXTS[0], 0)], tensorboard=True)
    with pytest.raises(TrainingError, match="class_weight"):
        TextClassifier(FOLDER / "regression").fit([("a man", 1.0)], class_weight={"a": 1.0})
    with pytest.raises(ConfigError, match="confusion"):
        TextClassifier(FOLDER / "multi").confusion([("a", ["x"])])
    with pytest.raises(ConfigError, match="problem_type"):
        TextClassifier(ENCODER, labels=["a"], problem_type="ranking")


def test_a_damaged_task_file_is_refused(single, tmp_path):
    single.save(tmp_path / "task")
    path = tmp_path / "task" / "task.json"
    noted = json.loads(path.read_text())
    for changed, said in (
        ({**noted, "task": "Texter"}, "'Texter' is not known"),
        ({**noted, "task": None}, "not known"),
        ({**noted, "path": "/etc"}, "path"),
        ({"task": "TextClassifier"}, "max_length"),
    ):
        path.write_text(json.dumps(changed))
        with pytest.raises(ConfigError, match=said):
            load_task(tmp_path / "task")
