"""LoRA by name: what trains, merging, saving, and generation, with Keras' own adapters."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.releases import as_list
from tfloader.checkpoints import open_checkpoint
from tfloader.errors import TrainingError
from tfloader.generation.text import TextGenerator
from tfloader.training.lora import adapters

TOKENS = np.array([[2, 5, 6, 3, 9], [2, 7, 8, 3, 4]])
RANDOM = np.random.default_rng(12)


def gpt2(**options):
    return tfloader.load(CHECKPOINTS / "hf_gpt2", **options)


def with_adapters(patterns=("query", "value"), rank=2, alpha=8.0, model=None, **options):
    """A model whose adapters do something."""
    model = model or gpt2()
    tfloader.enable_lora(model, patterns, rank=rank, alpha=alpha, **options)
    for item in adapters(model):
        for part in item.pair:
            part.assign(RANDOM.normal(size=part.shape) * 0.3)
    return model


def numbers(model):
    return {item.path: np.array(item) for item in model.weights}


# ---- enabling


def test_it_starts_as_the_plain_model_and_trains_only_adapters_and_what_was_asked_for():
    model, plain = gpt2(), gpt2()
    report = tfloader.enable_lora(
        model, ["query", "Transformer-1-FeedForward/intermediate"], rank=2, train="Output-Norm"
    )
    np.testing.assert_array_equal(model(TOKENS), plain(TOKENS))
    layers = [item.path for item in adapters(model)]
    queries = [f"Transformer-{index}-MultiHeadSelfAttention/query" for index in range(3)]
    assert sorted(layers) == sorted([*queries, "Transformer-1-FeedForward/intermediate"])
    assert len(report.trainable) == 2 * len(layers) + 2
    before = numbers(model)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    model.fit(TOKENS[:, :-1], TOKENS[:, 1:], epochs=2, verbose=0)
    changed = {path for path, old in before.items() if not np.array_equal(old, numbers(model)[path])}
    assert changed == set(report.trainable)
    assert len(model.optimizer.variables) == 2 * len(report.trainable) + 2
    assert all("lora" in path or path.startswith("Output-Norm/") for path in changed)


def test_adapted_layers_compute_base_plus_alpha_over_rank_times_a_b():
    model = with_adapters(rank=3, alpha=12.0)
    layer = model.get_layer("Transformer-0-MultiHeadSelfAttention").query
    x = RANDOM.normal(size=(4, layer.kernel.shape[0])).astype("float32")
    base = next(item for item in layer.weights if item.name == "kernel")
    kernel = np.array(base, "float64") + 4.0 * np.array(layer.lora_kernel_a, "float64") @ np.array(layer.lora_kernel_b)
    np.testing.assert_allclose(layer(x), x @ kernel + np.array(layer.bias), rtol=1e-4, atol=1e-5)


def test_predictions_compiled_before_do_not_go_stale():
    model = gpt2(num_hidden_layers=1)
    before = model.predict(TOKENS, verbose=0)
    with_adapters(model=model)
    adapted = model.predict(TOKENS, verbose=0)
    assert np.abs(adapted - before).max() > 1e-3
    np.testing.assert_allclose(adapted, model(TOKENS), atol=1e-5)
    tfloader.merge_lora(model)
    np.testing.assert_allclose(model.predict(TOKENS, verbose=0), adapted, atol=1e-5)


def test_a_function_compiled_with_adapters_stays_right_after_the_merge():
    model = with_adapters(model=gpt2(num_hidden_layers=1))
    other = keras.Model(model.input, model.output)
    adapted = other.predict(TOKENS, verbose=0)
    tfloader.merge_lora(model)
    np.testing.assert_allclose(other.predict(TOKENS, verbose=0), adapted, atol=1e-5)


def test_training_compiled_before_the_merge_does_not_go_on_with_removed_adapters():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")])
    tfloader.enable_lora(model, "dense", rank=2)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y = np.ones((2, 4), "float32"), np.ones((2, 2), "float32")
    model.fit(x, y, verbose=0)
    tfloader.merge_lora(model)
    expected = model.evaluate(x, y, verbose=0)
    assert model.fit(x, y, epochs=3, verbose=0).history["loss"] == pytest.approx([expected] * 3)


def test_layers_of_every_kind_can_be_adapted_and_merged():
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(9, 6, name="table")(inputs)
    x = keras.layers.EinsumDense("abc,cde->abde", (None, 2, 3), name="einsum")(x)
    outputs = keras.layers.Dense(3, name="dense")(x)
    model = keras.Model(inputs, outputs)
    tokens = RANDOM.integers(0, 9, (2, 4))
    with_adapters(["table", "einsum", "dense"], model=model)
    adapted = np.array(model(tokens))
    assert tfloader.merge_lora(model) == ["table", "einsum", "dense"]
    np.testing.assert_allclose(model(tokens), adapted, rtol=1e-5, atol=1e-6)
    assert len(model.weights) == 4


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["query", "qeury"], r"'qeury'; did you mean 'query'"),
        ("Transformer-0-MultiHeadSelfAttention-Norm", "fit no layers that can have LoRA"),
        ("Embedding-Position", "fit no layers that can have LoRA"),
    ],
)
def test_patterns_that_fit_no_such_layer_are_errors_and_change_nothing(patterns, message):
    model = gpt2()
    before = [item.path for item in model.trainable_weights]
    with pytest.raises(TrainingError, match=message):
        tfloader.enable_lora(model, patterns)
    with pytest.raises(TrainingError, match="'Pooler'"):
        tfloader.enable_lora(model, "query", train="Pooler")
    assert [item.path for item in model.trainable_weights] == before


def test_layers_that_cannot_have_it_are_named_together_and_nothing_is_changed():
    model = keras.Sequential([keras.Input((4,))] + [keras.layers.Dense(4, name=name) for name in "abc"])
    model.get_layer("b").kernel_constraint = keras.constraints.MaxNorm()
    tfloader.enable_lora(model, "c")
    with pytest.raises(TrainingError, match=r"(?s)b: has a constraint.*c: has LoRA already"):
        tfloader.enable_lora(model, ["a", "b", "c"])
    assert len(adapters(model)) == 1
    for rank in (0, -1, True):
        with pytest.raises(TrainingError, match="enable_lora: rank must be a whole number of at least 1"):
            tfloader.enable_lora(model, "a", rank=rank)


def test_more_layers_can_be_adapted_later():
    model = gpt2()
    tfloader.enable_lora(model, "query", rank=2)
    report = tfloader.enable_lora(model, "value", rank=4)
    found = adapters(model)
    assert {item.path.split("/")[1]: item.layer.lora_rank for item in found} == {"query": 2, "value": 4}
    assert len(report.trainable) == 2 * len(found)


def test_under_a_mirrored_strategy_adapters_train_alike_on_each_replica_and_merge(two_replicas):
    x, y = (RANDOM.normal(size=(8, size)).astype("float32") for size in (4, 2))

    def trained(scope):
        keras.utils.set_random_seed(3)
        with scope():
            model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(2, name=name) for name in "ab")])
        tfloader.enable_lora(model, "a", rank=2)
        with scope():
            model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(x, y, epochs=3, batch_size=8, verbose=0)
        return model

    spread, alone = trained(two_replicas.scope), trained(contextlib.nullcontext)
    for found, expected in zip(spread.weights, alone.weights, strict=True):
        for copy in two_replicas.experimental_local_results(found.value):
            np.testing.assert_allclose(copy, expected, atol=1e-6)
    before = np.array(spread(x))
    tfloader.merge_lora(spread)
    np.testing.assert_allclose(spread(x), before, atol=1e-6)


# ---- merging


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "bfloat16"])
def test_merging_gives_a_plain_model_with_exactly_the_weights_that_were_computed_with(dtype):
    model = with_adapters(model=gpt2(dtype=dtype))
    plain = gpt2(dtype=dtype)
    expected = {}
    for item in adapters(model):
        assert item.base.dtype == plain.weights[0].dtype
        if dtype != "mixed_bfloat16":  # there Keras shows the kernel in the dtype of the computation
            np.testing.assert_array_equal(np.array(item.value), np.array(item.layer.kernel))
        expected[item.base.path] = np.array(item.value)
    outputs = np.array(model(TOKENS), "float32")
    merged = tfloader.merge_lora(model)
    assert len(merged) == len(expected) and not adapters(model)
    assert [item.path for item in model.weights] == [item.path for item in plain.weights]
    for path, value in expected.items():
        np.testing.assert_array_equal(numbers(model)[path], value)
    difference = np.abs(np.array(model(TOKENS), "float32") - outputs)
    # In mixed precision Keras rounds the adapters' product by itself, the merged weights only once.
    assert difference.mean() < 0.05 if dtype == "mixed_bfloat16" else not difference.any()
    assert "lora_rank" not in model.get_layer("Transformer-0-MultiHeadSelfAttention").query.get_config()
    tfloader.unfreeze(model)
    assert [item.path for item in model.trainable_weights] == [item.path for item in plain.trainable_weights]


def test_a_merged_model_can_be_adapted_again():
    model = with_adapters()
    tfloader.merge_lora(model)
    outputs = np.array(model(TOKENS))
    tfloader.enable_lora(model, "query")
    np.testing.assert_array_equal(model(TOKENS), outputs)


def test_merging_nothing_or_quantised_layers_is_refused():
    model = gpt2()
    with pytest.raises(TrainingError, match="no LoRA adapters to merge"):
        tfloader.merge_lora(model)
    dense = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="dense")])
    dense.quantize("int8")
    tfloader.enable_lora(dense, "dense")
    with pytest.raises(TrainingError, match=r"(?s)quantised.*dense"):
        tfloader.merge_lora(dense)
    assert len(adapters(dense)) == 1


# ---- saving the whole model


CASES = [
    ("hf_gpt2", {}, ["query", "*/intermediate"], "huggingface"),
    ("bert_google", {"with_mlm": True}, ["value", "MLM-Dense"], "tensorflow"),
    ("hf_t5_v11", {}, ["*/key", "gate"], "huggingface"),
    ("gpt2_ml", {}, ["Embedding-Token", "output_dense"], "tensorflow"),
]


@pytest.mark.parametrize(("name", "options", "patterns", "format"), CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_model_with_adapters_is_written_merged_in_full_precision(name, options, patterns, format, dtype, tmp_path):
    model = tfloader.load(CHECKPOINTS / name, dtype=dtype, **options)
    with_adapters(patterns, model=model)
    tfloader.save(model, tmp_path / "adapted", format=format)
    assert adapters(model)  # the model itself goes on as it was
    tfloader.merge_lora(model)
    tfloader.save(model, tmp_path / "merged", format=format)
    with open_checkpoint(tmp_path / "adapted") as first, open_checkpoint(tmp_path / "merged") as second:
        assert list(first) == list(second)
        for key in first:
            assert first[key].dtype == "float32"
            np.testing.assert_array_equal(first.read(key), second.read(key))
    again = tfloader.load(tmp_path / "adapted", dtype=dtype, **options)
    inputs = TOKENS if len(again.inputs) == 1 else [TOKENS, TOKENS % 2]
    for found, expected in zip(as_list(again(inputs)), as_list(model(inputs)), strict=True):
        np.testing.assert_array_equal(np.array(found, "float32"), np.array(expected, "float32"))


def test_keras_saves_a_merged_model_as_a_plain_one(tmp_path):
    model = with_adapters()
    tfloader.merge_lora(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert len(again.weights) == len(model.weights)
    np.testing.assert_array_equal(again(TOKENS), model(TOKENS))


def test_keras_saves_a_model_with_adapters_merged_into_the_base(tmp_path):
    model = with_adapters()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(TOKENS), model(TOKENS), atol=1e-6)


# ---- generation


def greedy(model, prompt, count):
    """Without a cache or a compiled function."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(np.argmax(model(np.array([tokens]))[0, -1])))
    return tokens[len(prompt) :]


def test_cached_generation_follows_adapters_as_they_come_and_go():
    model = gpt2(num_hidden_layers=1)
    generator = TextGenerator(model)
    prompt, options = [5, 6, 7], {"max_new_tokens": 8, "eos_token_id": None}
    score = generator.decoder.score(TOKENS, TOKENS > 0)
    plain = generator.generate_ids([prompt], **options).sequences
    assert plain == [greedy(model, prompt, 8)]
    with_adapters(["query", "value", "Embedding-Token"], model=model)
    adapted = generator.generate_ids([prompt], **options)
    assert adapted.sequences == [greedy(model, prompt, 8)] != plain
    assert np.abs(generator.decoder.score(TOKENS, TOKENS > 0) - score).max() > 1e-3
    tfloader.merge_lora(model)
    merged = generator.generate_ids([prompt], **options)
    assert merged.sequences == adapted.sequences
    np.testing.assert_allclose(merged.scores, adapted.scores, rtol=1e-5)
