"""Adapters alone: what is written, what is read, and every reason not to."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.training.test_lora import RANDOM, TOKENS, gpt2, numbers, with_adapters
from tfloader.checkpoints import TensorSpec, open_checkpoint, write_safetensors
from tfloader.errors import CheckpointError, TrainingError, WeightsError
from tfloader.training.lora import adapters


def test_adapters_alone_save_and_load_into_a_plain_model(tmp_path):
    model = with_adapters(train="Output-Norm")
    model.get_layer("Output-Norm").gamma.assign(RANDOM.normal(size=model.get_layer("Output-Norm").gamma.shape))
    path = tmp_path / "adapters.safetensors"
    tfloader.save_adapters(model, path)
    assert path.stat().st_size < 0.2 * sum(item.value.shape.num_elements() * 4 for item in model.weights)
    again = gpt2()
    report = tfloader.load_adapters(again, path)
    np.testing.assert_array_equal(again(TOKENS), model(TOKENS))
    assert set(report.trainable) == {item.path for item in model.trainable_weights}
    assert [item.layer.lora_alpha for item in adapters(again)] == [8.0] * len(adapters(model))
    tfloader.load_adapters(again, path)  # and into one that has them
    np.testing.assert_array_equal(again(TOKENS), model(TOKENS))


def test_adapters_trained_in_float32_load_into_a_bfloat16_model(tmp_path):
    trained = with_adapters()
    tfloader.save_adapters(trained, tmp_path / "a.safetensors")
    model = gpt2(dtype="bfloat16")
    tfloader.load_adapters(model, tmp_path / "a.safetensors")
    for found, expected in zip(adapters(model), adapters(trained), strict=True):
        for part, other in zip(found.pair, expected.pair, strict=True):
            assert part.dtype in ("float32", "bfloat16")  # before Keras 3.15 that of the layer
            np.testing.assert_array_equal(np.array(part), np.array(keras.ops.cast(other, part.dtype)))


def test_a_failed_save_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    model = with_adapters()
    tfloader.save_adapters(model, path)
    before = path.read_bytes()
    adapters(model)[0].pair[0].assign_add(np.ones(adapters(model)[0].pair[0].shape))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(CheckpointError, match="No space left"):
            tfloader.save_adapters(model, path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.safetensors"]


def test_adapters_that_do_not_fit_are_refused_with_all_reasons_and_change_nothing(tmp_path):
    path = tmp_path / "a.safetensors"
    tfloader.save_adapters(with_adapters(train="Output-Norm"), path)

    def refused(model, message):
        before = numbers(model)
        with pytest.raises(WeightsError, match=message):
            tfloader.load_adapters(model, path)
        assert [item.path for item in model.weights] == list(before)
        for item in model.weights:
            np.testing.assert_array_equal(item, before[item.path])

    other = gpt2()
    other.get_layer("Transformer-1-MultiHeadSelfAttention").value.kernel.assign_add(
        np.full(other.get_layer("Transformer-1-MultiHeadSelfAttention").value.kernel.shape, 1e-3)
    )
    refused(other, "Transformer-1-MultiHeadSelfAttention/value: the adapter was trained on other base weights")
    refused(with_adapters(rank=4), "rank is 2 in the file, 4 in the model")
    refused(with_adapters(alpha=1.0), "alpha is 8.0 in the file, 1.0 in the model")
    refused(with_adapters(["query", "value", "key"]), "key has LoRA, the file has none for it")
    refused(gpt2(num_hidden_layers=2), r"(?s)Transformer-2-MultiHeadSelfAttention/query: no such layer")
    bert = tfloader.load(CHECKPOINTS / "bert_google")
    refused(bert, r"(?s)has shape .* in the file, .* in the model|no such variable in the model")


def test_a_file_that_is_no_adapter_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="not a file that save_adapters wrote"):
        tfloader.load_adapters(gpt2(), CHECKPOINTS / "hf_gpt2" / "model.safetensors")
    with pytest.raises(TrainingError, match="no LoRA adapters to save"):
        tfloader.save_adapters(gpt2(), tmp_path / "a.safetensors")
    with pytest.raises(TrainingError, match=r"ends in .safetensors"):
        tfloader.save_adapters(with_adapters(), tmp_path / "a.bin")


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", "{", '{"x": 3}', '{"x": {"rank": "2"}}', '{"x": {"rank": 0, "alpha": 1.0, "base": "float32 0"}}'],
)
def test_a_damaged_note_is_refused(text, tmp_path):
    item = ("a", TensorSpec((1,), "float32"), lambda: np.zeros(1, "float32"))
    write_safetensors(tmp_path, [item], metadata={"tfloader_lora": text}, stem="a")
    with pytest.raises((WeightsError, CheckpointError), match=r"a\.safetensors"):
        tfloader.load_adapters(gpt2(), tmp_path / "a.safetensors")


def test_a_file_without_one_half_of_an_adapter_is_refused(tmp_path):
    lacking = "Transformer-0-MultiHeadSelfAttention/query/lora_kernel_b"
    tfloader.save_adapters(with_adapters(), tmp_path / "a.safetensors")
    with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
        names = [name for name in checkpoint if name != lacking]
        items = [(name, checkpoint[name], functools.partial(checkpoint.read, name)) for name in names]
        metadata = {"tfloader_lora": checkpoint.metadata["tfloader_lora"]}
        write_safetensors(tmp_path, items, metadata=metadata, stem="b")
    with pytest.raises(WeightsError, match=f"{lacking} is not in the file"):
        tfloader.load_adapters(gpt2(), tmp_path / "b.safetensors")


def test_a_layer_that_cannot_have_an_adapter_is_refused(tmp_path):
    def dense(**options):
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense", **options)], name="net")

    model, other = dense(), dense(kernel_constraint="max_norm")
    other.set_weights(model.get_weights())
    tfloader.enable_lora(model, "dense", rank=2)
    tfloader.save_adapters(model, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="net/dense: has a constraint"):
        tfloader.load_adapters(other, tmp_path / "a.safetensors")


def test_variables_with_one_path_are_refused(tmp_path):
    inputs = keras.Input((4,))
    towers = [keras.layers.Dense(2, name="dense") for _ in range(2)]
    whole = keras.Model(inputs, keras.Model(inputs, towers[0](inputs))(inputs) + towers[1](inputs))
    tfloader.enable_lora(whole, "dense")
    with pytest.raises(TrainingError, match=r"(?s)one path.*dense/kernel"):
        tfloader.save_adapters(whole, tmp_path / "a.safetensors")
