"""OpenAI GPT and CDial-GPT: what the tables of all releases cannot say."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.releases import case, relative_error
from tfloader.errors import ConfigError, WeightsError
from tfloader.inspection import verify

SHARED = {"shared_segment_embeddings": True}


def tensors_of(name):
    with tfloader.open_checkpoint(CHECKPOINTS / name) as checkpoint:
        return {tensor: checkpoint.read(tensor).copy() for tensor in checkpoint}


def test_segments_of_a_hugging_face_folder_are_its_token_type_ids():
    data = case("hf_openai_gpt").arrays
    model = tfloader.load(CHECKPOINTS / "hf_openai_gpt", **SHARED)
    assert [tensor.name for tensor in model.inputs] == ["Input-Token", "Input-Segment"]
    assert relative_error(model([data["input_ids"], data["segment_ids"]]), data["segment_logits"]) < 5e-6


def test_positions_of_ones_own_are_transformers_position_ids():
    data = case("hf_openai_gpt").arrays
    model = tfloader.load(CHECKPOINTS / "hf_openai_gpt", custom_position_ids=True)
    assert relative_error(model([data["input_ids"], data["position_ids"]]), data["custom_position_logits"]) < 5e-6


def test_padding_on_the_left_changes_nothing_at_real_positions():
    data = case("hf_openai_gpt").arrays
    model = tfloader.load(CHECKPOINTS / "hf_openai_gpt", custom_position_ids=True, custom_attention_mask=True)
    padded = np.pad(data["input_ids"], [(0, 0), (4, 0)])
    positions = np.maximum(np.arange(padded.shape[1]) - 4, 0) + np.zeros_like(padded)
    found = model([padded, positions, (np.arange(padded.shape[1]) >= 4) + np.zeros_like(padded)])
    assert relative_error(found[:, 4:], data["logits"]) < 5e-6


@pytest.mark.parametrize("format", ["huggingface", "tensorflow"])
def test_speakers_survive_either_format(format, tmp_path):
    data = case("hf_openai_gpt").arrays
    tfloader.save(tfloader.load(CHECKPOINTS / "hf_openai_gpt", **SHARED), tmp_path, format=format)
    again = tfloader.load(tmp_path)
    assert relative_error(again([data["input_ids"], data["segment_ids"]]), data["segment_logits"]) < 5e-6


def test_the_config_for_bert4keras_says_that_there_are_segments(tmp_path):
    """It makes the input for segments only where type_vocab_size is not 0."""
    tfloader.save(tfloader.load(CHECKPOINTS / "b4k_gpt"), tmp_path, format="tensorflow")
    written = json.loads((tmp_path / "gpt_config.json").read_text())
    assert written["shared_segment_embeddings"] is True and written["type_vocab_size"] == 2


def test_a_model_saved_without_its_head_and_with_old_buffers_is_the_same():
    """The public openai-gpt: no prefix, constant masks and positions beside the weights."""
    release = case("hf_openai_gpt")
    old = {name.removeprefix("transformer."): array for name, array in tensors_of("hf_openai_gpt").items()}
    old |= {f"h.{index}.attn.bias": np.tril(np.ones((1, 1, 31, 31), "float32")) for index in range(2)}
    old["position_ids"] = np.arange(31)
    model = tfloader.load(old, config=f"{release.path}/config.json")
    assert relative_error(model(release.input_arrays[0]), release.expected[0]) < 5e-6


def test_a_head_that_is_not_the_embedding_is_refused():
    tensors = tensors_of("hf_openai_gpt")
    tensors["lm_head.weight"] = tensors["transformer.tokens_embed.weight"] + 1
    with pytest.raises(WeightsError, match="should repeat"):
        tfloader.load(tensors, config=str(CHECKPOINTS / "hf_openai_gpt" / "config.json"))


@pytest.mark.parametrize("option", ["with_pool", "with_mlm", "with_nsp"])
def test_gpt_has_no_heads_of_bert(option):
    with pytest.raises(ConfigError, match="no such option"):
        tfloader.load(CHECKPOINTS / "b4k_gpt", **{option: True})


def test_gpt_and_gpt2_of_bert4keras_are_not_taken_for_each_other():
    for name, other in (("b4k_gpt", "gpt2"), ("b4k_gpt2", "gpt")):
        with pytest.raises(ConfigError, match="pass model="):
            tfloader.build_transformer_model(None, CHECKPOINTS / name, model=other)


def test_a_table_of_segments_and_the_widths_of_bert4keras_are_not_written_for_hugging_face(tmp_path):
    with pytest.raises(ConfigError, match="80"):
        tfloader.save(tfloader.load(CHECKPOINTS / "b4k_gpt"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_was_missing_in_a_segment_table_is_named():
    tensors = tensors_of("b4k_gpt_segtable")
    del tensors["gpt/embeddings/token_type_embeddings"]
    with pytest.raises(WeightsError, match="token_type_embeddings"):
        tfloader.load(tensors, config=str(CHECKPOINTS / "b4k_gpt_segtable" / "gpt_config.json"))


@pytest.mark.parametrize("name", ["b4k_gpt", "b4k_gpt_segtable", "hf_openai_gpt"])
def test_a_sound_gpt_passes_every_check(name):
    found = {check.name: check for check in verify(CHECKPOINTS / name)}
    assert found["forward pass"].status == "ok" and "FAILED" not in {check.status for check in found.values()}


def test_t5_pegasus_is_written_as_bert4keras_reads_it(tmp_path):
    tfloader.save(tfloader.load(CHECKPOINTS / "b4k_t5_pegasus"), tmp_path, format="tensorflow")
    written = json.loads((tmp_path / "config.json").read_text())
    original = json.loads((CHECKPOINTS / "b4k_t5_pegasus" / "config.json").read_text())
    assert {name: written[name] for name in original} == original


def test_a_gpt2_does_not_ignore_that_it_is_to_have_segments():
    with pytest.raises(WeightsError, match="Embedding-Segment"):
        tfloader.load(CHECKPOINTS / "hf_gpt2", type_vocab_size=2)
    inputs = tfloader.load(CHECKPOINTS / "hf_gpt2", shared_segment_embeddings=True).inputs
    assert [item.name for item in inputs] == ["Input-Token", "Input-Segment"]
