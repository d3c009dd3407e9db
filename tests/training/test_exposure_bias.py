"""Random replacement of decoder input: what may go, what may come, how often, and when."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader.errors import TrainingError
from tfloader.training.exposure_bias import RandomTokenReplacement, replace_random_tokens

SPECIAL = (0, 101, 102)
RANDOM = np.random.default_rng(13)
# [CLS] source [SEP] target [SEP] padding; targets hold other ids than sources.
ROWS = 400
TOKENS = np.concatenate(
    [
        np.full((ROWS, 1), 101),
        RANDOM.integers(200, 300, (ROWS, 5)),
        np.full((ROWS, 1), 102),
        RANDOM.integers(300, 400, (ROWS, 8)),
        np.full((ROWS, 1), 102),
        np.zeros((ROWS, 2), int),
    ],
    axis=1,
)
SEGMENTS = np.array([[0] * 7 + [1] * 9 + [0] * 2] * ROWS)
FREE = slice(7, 15)


def by_layer(tokens, target=None, training=True, **options):
    return np.asarray(RandomTokenReplacement(**options)(tokens, target, training=training))


def by_function(tokens, target=None, seed=None, **options):
    return replace_random_tokens(tokens, target, random=seed, **options)


both = pytest.mark.parametrize("replace", [by_layer, by_function])


@both
@pytest.mark.parametrize("vocab_size", [None, 500])
def test_only_target_tokens_that_are_not_special_change(replace, vocab_size):
    found = replace(TOKENS, SEGMENTS, rate=1.0, row_rate=1.0, vocab_size=vocab_size, special_ids=SPECIAL, seed=1)
    changed = found != TOKENS
    assert not changed[:, :7].any() and not changed[:, 15:].any()
    assert changed[:, FREE].mean() > 0.7
    assert not np.isin(found[:, FREE], SPECIAL).any()
    assert found.dtype == TOKENS.dtype and found.shape == TOKENS.shape


@both
def test_new_tokens_come_evenly_from_the_rows_own_target(replace):
    found = replace(TOKENS, SEGMENTS, rate=1.0, row_rate=1.0, special_ids=SPECIAL, seed=2)[:, FREE]
    own = TOKENS[:, FREE]
    assert all(set(new) <= set(old) for new, old in zip(found, own, strict=True))
    counts = (found[:, :, None] == own[:, None, :]).sum((0, 1))  # of each place, about 8 x 50
    assert counts.min() > 0.8 * counts.mean() and counts.max() < 1.2 * counts.mean()


@both
def test_new_tokens_come_evenly_from_the_vocabulary(replace):
    options = {"rate": 1.0, "row_rate": 1.0, "vocab_size": 12, "special_ids": [0, 3, 11]}
    found = replace(np.full((500, 20), 5), seed=3, **options)
    counts = np.bincount(found.ravel(), minlength=12)
    assert np.flatnonzero(counts).tolist() == [1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert counts[counts > 0].min() > 0.9 * 10_000 / 9 and counts.max() < 1.1 * 10_000 / 9


@both
def test_the_rates_are_those_of_tokens_and_of_rows(replace):
    tokens = np.full((2000, 30), 7)
    found = replace(tokens, rate=0.3, row_rate=0.5, vocab_size=1000, special_ids=[7], seed=4)
    # Id 7 is special here: nothing may go.
    np.testing.assert_array_equal(found, tokens)
    changed = replace(tokens, rate=0.3, row_rate=0.5, vocab_size=1000, special_ids=[0], seed=4) != tokens
    touched = changed.any(axis=1)
    assert touched.mean() == pytest.approx(0.5, abs=0.04)
    assert changed[touched].mean() == pytest.approx(0.3, abs=0.01)
    np.testing.assert_array_equal(replace(tokens, rate=0.0, row_rate=1.0, vocab_size=1000, seed=4), tokens)


@both
def test_a_seed_repeats_itself_and_none_does_not(replace):
    options = {"vocab_size": 1000, "rate": 1.0, "row_rate": 1.0}
    np.testing.assert_array_equal(replace(TOKENS, seed=5, **options), replace(TOKENS, seed=5, **options))
    assert (replace(TOKENS, **options) != replace(TOKENS, **options)).any()


@both
def test_rows_without_a_target_stay(replace):
    np.testing.assert_array_equal(replace(TOKENS, SEGMENTS * 0, rate=1.0, row_rate=1.0, seed=6), TOKENS)


def test_the_layer_works_in_training_only_and_draws_anew_each_time():
    layer = RandomTokenReplacement(rate=1.0, row_rate=1.0, special_ids=SPECIAL, seed=7)
    np.testing.assert_array_equal(layer(TOKENS, SEGMENTS), TOKENS)
    np.testing.assert_array_equal(layer(TOKENS, SEGMENTS, training=False), TOKENS)
    assert np.any(np.asarray(layer(TOKENS, SEGMENTS, training=True)) != layer(TOKENS, SEGMENTS, training=True))


def test_the_function_takes_one_sequence_and_leaves_its_argument_alone():
    tokens = TOKENS[0].copy()
    found = replace_random_tokens(tokens, SEGMENTS[0], 1.0, 1.0, special_ids=SPECIAL, random=8)
    np.testing.assert_array_equal(tokens, TOKENS[0])
    assert found.shape == tokens.shape and set(found[FREE]) <= set(tokens[FREE])


def test_a_unilm_model_trains_through_it_and_predicts_without_it(tmp_path):
    model = tfloader.load(CHECKPOINTS / "b4k_bert_unilm", application="unilm")
    tokens = np.array([[2, 9, 8, 3, 11, 12, 13, 3], [2, 7, 6, 3, 14, 15, 3, 0]])
    segments = np.array([[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 0]])
    inputs = [keras.Input((None,), dtype="int32", name=name) for name in ("tokens", "segments")]
    replaced = RandomTokenReplacement(1.0, 1.0, special_ids=[0, 2, 3], seed=9)(*inputs)
    outer = keras.Model(inputs, model([replaced, inputs[1]]))
    np.testing.assert_array_equal(outer([tokens, segments]), model([tokens, segments]))
    changed = np.asarray(outer([tokens, segments], training=True)) != np.asarray(model([tokens, segments]))
    assert changed.any()
    outer.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again([tokens, segments]), model([tokens, segments]))
    config = next(layer for layer in again.layers if isinstance(layer, RandomTokenReplacement)).get_config()
    assert (config["rate"], config["row_rate"], config["special_ids"], config["seed"]) == (1.0, 1.0, [0, 2, 3], 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.5}, "rate must be a finite number from 0 to 1, found 1.5"),
        ({"row_rate": -0.1}, "row_rate must be a finite number from 0 to 1"),
        ({"vocab_size": 2, "special_ids": [0, 1]}, "leaves no token"),
    ],
)
def test_impossible_options_are_refused(options, message):
    for kind in (RandomTokenReplacement, lambda **options: replace_random_tokens([1], **options)):
        with pytest.raises(TrainingError, match=message):
            kind(**options)
