"""What cannot become the target exactly is refused, all at once, before anything is written.

Damage of the containers themselves is tested with the containers: a conversion opens them in the same way.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.conversion.conftest import arrays_of, fingerprint, rewrite_json
from tfloader.conversion.source import Source
from tfloader.errors import CheckpointError, ConfigError, ConversionError, TfloaderError

WORDS, BIAS = "bert.embeddings.word_embeddings.weight", "cls.predictions.bias"
QUERY = "bert.encoder.layer.1.attention.self.query.weight"


def refused(error, words, source, target, **options):
    """Checks that all of `words` stand in one error, that nothing was written, and that the source is as it was."""
    folder = source if source.is_dir() else source.parent
    before, beside = fingerprint(folder), sorted(path.name for path in target.parent.iterdir())
    with pytest.raises(error) as caught:
        tfloader.convert(source, target, **{"verify": False} | options)
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} in {caught.value}"
    assert fingerprint(folder) == before
    assert sorted(path.name for path in target.parent.iterdir()) == beside


# ---- files

FILES = {
    # name: (change to the folder, words of the error)
    "nothing there": (lambda folder: (folder / "model.safetensors").unlink(), ["no checkpoint in this folder"]),
    "empty": (lambda folder: (folder / "model.safetensors").write_bytes(b""), ["an empty file (0 bytes)"]),
    "cut short": (lambda folder: _rewrite(folder, lambda data: data[:-1000]), ["not a valid safetensors file"]),
    "garbled header": (lambda folder: _rewrite(folder, lambda data: data[:8] + b"#" + data[9:]), ["model.safetensors"]),
    "a web page": (lambda folder: _rewrite(folder, lambda _: b"<!DOCTYPE html>"), ["a web page (HTML or XML)"]),
    "a Git LFS pointer": (
        lambda folder: _rewrite(folder, lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        ["git lfs pull"],
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), ["no config file of a Hugging Face BERT"]),
    "a config of another model": (
        lambda folder: rewrite_json(folder / "config.json", model_type="deberta"),
        ["model_type is 'deberta'"],
    ),
    "a config value that changes the mathematics": (
        lambda folder: rewrite_json(folder / "config.json", position_embedding_type="relative_key"),
        ["position_embedding_type = 'relative_key' is not implemented"],
    ),
    "an absurd config": (lambda folder: rewrite_json(folder / "config.json", vocab_size=10**12), ["vocab_size must"]),
}


def _rewrite(folder, change):
    file = folder / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_source_is_refused(name, copy, tmp_path):
    change, words = FILES[name]
    folder = copy("hf_bert")
    change(folder)
    refused((CheckpointError, ConfigError), words, folder, tmp_path / "out")


def test_a_flipped_bit_in_a_tensorflow_checkpoint_stops_the_conversion(copy, tmp_path):
    folder = copy("gpt2_ml")
    file = folder / "model.ckpt-100000.data-00000-of-00001"
    data = bytearray(file.read_bytes())
    data[200_000] ^= 1
    file.write_bytes(data)
    refused(CheckpointError, ["the data's checksum does not match"], folder, tmp_path / "out")


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        tfloader.convert(tmp_path / "nothing", tmp_path / "out")


# ---- tensors


def _set(name, change):
    def function(tensors):
        tensors[name] = change(tensors.get(name))

    return function


def _rename(old, new):
    return lambda tensors: tensors.update({new: tensors.pop(old)})


TENSORS = {
    # name: (change to the dictionary of arrays, words of the error)
    "one is missing": (
        lambda tensors: tensors.pop(QUERY),
        ["1-MultiHeadSelfAttention/query/kernel has no"],
    ),
    "half of a head": (lambda tensors: tensors.pop("bert.pooler.dense.bias"), ["Pooler-Dense/bias has no tensor"]),
    "one too many": (_set("classifier.weight", lambda _: np.ones((2, 48), "float32")), ["classifier.weight (2, 48)"]),
    "a block too many": (
        lambda tensors: tensors.update({QUERY.replace(".1.", ".3."): tensors[QUERY].copy()}),
        ["bert.encoder.layer.3.attention.self.query.weight (48, 48) has no use"],
    ),
    "another name": (
        _rename(QUERY, QUERY.replace("query", "quarry")),
        ["quarry.weight (48, 48) has no use"],
    ),
    "float64": (
        _set(QUERY, lambda array: array.astype("float64")),
        [f"{QUERY} is stored as float64; supported"],
    ),
    "int8": (_set(QUERY, lambda array: array.astype("int8")), [f"{QUERY} is stored as int8"]),
    "too few tokens": (
        _set(WORDS, lambda array: array[:200].copy()),
        [WORDS, "(200, 48)", "the config means (211, 48)"],
    ),
    "another width": (_set(QUERY, lambda array: array[:, :40].copy()), ["(48, 40)", "the config means (48, 48)"]),
    "a longer norm": (
        _set("bert.encoder.layer.0.output.LayerNorm.weight", lambda _: np.ones(49, "float32")),
        ["output.LayerNorm.weight has shape (49,), the config means (48,)"],
    ),
    "a tied weight with other values": (
        lambda tensors: tensors.update({"cls.predictions.decoder.weight": tensors[WORDS] + 1}),
        ["cls.predictions.decoder.weight should repeat bert.embeddings.word_embeddings.weight (tied weights)"],
    ),
    "an old name beside the new one, with other values": (
        lambda tensors: tensors.update({"bert.embeddings.LayerNorm.gamma": np.ones(48, "float32")}),
        ["should repeat bert.embeddings.LayerNorm"],
    ),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_not_just_the_model_are_refused(name, changed, tmp_path):
    change, words = TENSORS[name]
    refused(ConversionError, ["nothing was written", *words], changed("hf_bert", change), tmp_path / "out")


@pytest.mark.parametrize("name", ["hf_bert", "hf_gpt2", "hf_t5_v11", "hf_t5_v10"])
def test_each_tensor_that_is_left_out_is_missed(name, tmp_path, monkeypatch):
    """One of each kind of block, as names; the model that says what is needed is built once."""
    from safetensors.numpy import save_file

    tensors = arrays_of(CHECKPOINTS / name)
    with Source(str(CHECKPOINTS / name)) as source:
        built = source.built(source.config)
        own = [item.name for item in source.fit.sources]
        copies = {copy.theirs for copy in source.release.naming.duplicates} - set(own)
        wanted = [name for name in own if not any(f".{i}." in name for i in range(1, 9))]
        wanted = [own for own in wanted if own != "lm_head.weight"]  # a part by itself: see test_conversion
    monkeypatch.setattr(Source, "built", lambda *_: built)
    shutil.copy(CHECKPOINTS / name / "config.json", tmp_path)
    assert len(wanted) > 10
    for lost in wanted:
        rest = {name: array for name, array in tensors.items() if name != lost and name not in copies}
        save_file(rest, tmp_path / "model.safetensors")
        with pytest.raises(TfloaderError, match=r"has no tensor|named as|no use"):
            tfloader.convert(tmp_path, tmp_path.parent / "out", verify=False)
    assert not (tmp_path.parent / "out").exists()


def test_all_problems_are_told_at_once(changed, tmp_path):
    def spoil(tensors):
        tensors.pop(QUERY)
        tensors["extra"] = np.ones(3, "float32")
        tensors[BIAS] = tensors[BIAS].astype("float64")

    folder = changed("hf_bert", spoil)
    rewrite_json(folder / "config.json", layer_norm_eps=1e-5)
    (folder / "vocab.txt").write_text("[PAD]\n")
    (tmp_path / "out").write_text("x")
    words = [
        "has no tensor",
        "extra (3,)",
        "float64",
        "layer_norm_eps = 1e-05",
        "[UNK]",
        "there is a file",
        "dtype must",
    ]
    refused(ConversionError, words, folder, tmp_path / "out", to="tensorflow", dtype="int8")


# ---- what the target cannot say

DIALECTS = {
    # name: (fixture, changes to config.json, format, words of the error)
    "an epsilon": ("hf_bert", {"layer_norm_eps": 1e-5}, "tensorflow", ["Google BERT", "layer_norm_eps = 1e-05"]),
    "a padding id": ("hf_bert", {"pad_token_id": 1}, "tensorflow", ["pad_token_id = 1"]),
    "a decoder": ("hf_bert", {"is_decoder": True}, "tensorflow", ["no words for application = 'lm'"]),
    "an activation": ("hf_gpt2", {"activation_function": "relu"}, "tensorflow", ["hidden_act = 'relu'"]),
    "another epsilon": ("hf_gpt2", {"layer_norm_epsilon": 1e-6}, "tensorflow", ["layer_norm_eps = 1e-06"]),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_config_that_the_target_has_no_words_for_is_refused(name, copy, tmp_path):
    fixture, values, to, words = DIALECTS[name]
    folder = copy(fixture)
    rewrite_json(folder / "config.json", **values)
    refused(ConversionError, words, folder, tmp_path / "out", to=to)


def test_a_width_that_openai_s_code_cannot_have_is_refused(changed, tmp_path):
    def narrow(tensors):
        for name, array in tensors.items():
            if "mlp.c_fc" in name:
                tensors[name] = array[..., :40].copy()
            elif name.endswith("mlp.c_proj.weight"):
                tensors[name] = array[:40].copy()

    folder = changed("hf_gpt2", narrow)
    rewrite_json(folder / "config.json", n_inner=40)
    words = ["hparams.json cannot express intermediate_size 40"]
    refused(ConversionError, words, folder, tmp_path / "out", to="tensorflow")


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_refused(copy, tmp_path):
    folder = copy("hf_bert")
    with open(folder / "vocab.txt", "a", encoding="utf-8") as file:
        file.write("one\ntwo\n")
    words = ["the tokenizer has 213 tokens, but the embedding only 211 rows", "--no-tokenizer"]
    refused(ConversionError, words, folder, tmp_path / "out")
    tfloader.convert(folder, tmp_path / "out", tokenizer=False, verify=False)
    assert json.loads((tmp_path / "out/config.json").read_text())["vocab_size"] == 211


def test_a_family_that_the_names_do_not_mean_is_refused(tmp_path):
    refused(CheckpointError, ["model='gpt2'", "'bert'"], CHECKPOINTS / "hf_bert", tmp_path / "out", model="gpt2")
