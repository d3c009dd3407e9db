"""What a conversion writes: values, dtypes, shards, vocabularies, tokenizers, configs; and that it needs no model."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.conversion.conftest import arrays_of, contents, rewrite_json
from tfloader.checkpoints import open_checkpoint
from tfloader.conversion import FORMATS, comparison
from tfloader.conversion.source import Source, token_ids
from tfloader.conversion.variables import Variables
from tfloader.errors import ArgumentError, ConfigError, ConversionError, TfloaderError
from tfloader.naming import RELEASES
from tfloader.naming.base import Naming, Split, row
from tfloader.naming.fit import fit
from tfloader.tokenizers import load_tokenizer

ROOT = Path(__file__).parents[2]
QUICK = {"verify": False}


def outcome(checks, name):
    return next(check.detail for check in checks if check.name == name)


# ---- imports


def test_importing_the_formats_imports_nothing_heavy():
    code = "import sys, tfloader.conversion; print({'numpy', 'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


# ---- memory: a tensor is kept only while its variables are waited for, and never more than the largest one


def test_a_fused_tensor_is_read_once_and_what_is_kept_is_bounded():
    random = np.random.default_rng(0)
    tensors = {f"fused.{i}": random.standard_normal((4, 6)).astype("float32") for i in range(3)}
    tensors["bias"] = random.standard_normal(5).astype("float32")
    rows = [row([f"L/{i}/{part}" for part in "qkv"], f"fused.{i}", Split(3)) for i in range(3)] + [row("b", "bias")]
    shapes = {path: (4, 2) if len(item.ours) == 3 else (5,) for item in rows for path in item.ours}
    release = replace(RELEASES[0], naming=Naming(tuple(rows)))
    checkpoint = open_checkpoint(tensors)
    reads, read = [], checkpoint.read
    checkpoint.read = lambda name: reads.append(name) or read(name)
    variables = Variables(checkpoint, fit(checkpoint, release, tfloader.load_config(CHECKPOINTS / "hf_bert"), shapes))
    for i in range(3):
        for part, expected in zip("qkv", np.split(tensors[f"fused.{i}"], 3, axis=-1), strict=True):
            np.testing.assert_array_equal(variables.read(f"L/{i}/{part}"), expected)
            assert sum(checkpoint[name].nbytes for name in variables._held) <= 4 * 6 * 4
    assert reads == ["fused.0", "fused.1", "fused.2"] and not variables._held
    for part in "qkv":  # an order that would keep all of them
        for i in range(3):
            variables.read(f"L/{i}/{part}")
            assert sum(checkpoint[name].nbytes for name in variables._held) <= 4 * 6 * 4


# ---- dtypes


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", ["hf_bert", "gpt2_openai"])
def test_a_dtype_rounds_every_tensor_as_numpy_does(name, dtype, tmp_path):
    with Source(str(CHECKPOINTS / name)) as source:
        tfloader.convert(CHECKPOINTS / name, tmp_path / "out", source.release.writes, dtype=dtype, **QUICK)
        found = arrays_of(tmp_path / "out")
        for item in source.fit.sources:
            theirs = item.row.theirs
            expected = source.checkpoint.read(item.name).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
            assert found[theirs].dtype == expected.dtype and found[theirs].tobytes() == expected.tobytes()
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == dtype if name == "hf_bert" else True


def test_rounding_is_told_with_its_largest_difference(tmp_path):
    source = CHECKPOINTS / "hf_gpt2"
    detail = outcome(tfloader.convert(source, tmp_path / "out", dtype="float16"), "tensors")
    with Source(str(source)) as opened:
        gaps = {
            path: np.abs(values.astype("float16").astype("float32") - values).max()
            for path in opened.variables
            if (values := opened.variables.read(path)).size
        }
    where = max(gaps, key=gaps.get)
    assert "equal but for rounding (float32 and float16)" in detail
    assert detail.endswith(f"largest difference {gaps[where]:.3g}, in {where}")


@pytest.mark.parametrize("value", [7e4, -7e4, np.inf])
def test_a_value_that_the_dtype_cannot_hold_stops_the_conversion_without_a_trace(value, changed, tmp_path):
    def spoil(tensors):
        tensors["transformer.h.1.mlp.c_fc.weight"][1, 2] = value

    folder = changed("hf_gpt2", spoil)
    with pytest.raises(tfloader.WeightsError, match=rf"c_fc.weight has the value {abs(value):g}, which float16 cannot"):
        tfloader.convert(folder, tmp_path / "out", dtype="float16", **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["hf_gpt2"]


def test_mixed_dtypes_are_kept_and_need_a_word_only_where_they_are_joined(changed, tmp_path):
    def mix(tensors):
        for name in list(tensors):
            if "attention.self.key" in name:
                tensors[name] = tensors[name].astype("float16")

    folder = changed("hf_bert", mix)
    tfloader.convert(folder, tmp_path / "there", "tensorflow", **QUICK)
    tfloader.convert(tmp_path / "there", tmp_path / "back", **QUICK)
    with Source(str(folder)) as a, Source(str(tmp_path / "back")) as b:
        assert {path: spec.dtype for path, spec in a.variables.items()} == {p: s.dtype for p, s in b.variables.items()}
    with pytest.raises(ConversionError, match=r"dtype: one of .* for the whole model, found float16 and float32"):
        tfloader.convert(folder, tmp_path / "keras", "keras", **QUICK)


# ---- shards


def test_shards_hold_the_same_tensors_and_an_index(tmp_path):
    tfloader.convert(CHECKPOINTS / "bert_google", tmp_path / "one", **QUICK)
    tfloader.convert(CHECKPOINTS / "bert_google", tmp_path / "many", max_shard_bytes=50_000, **QUICK)
    names = {path.name for path in (tmp_path / "many").glob("*.safetensors*")}
    assert "model.safetensors.index.json" in names and len(names) > 5
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


# ---- a part of the model


def test_an_encoder_alone_stays_one(changed, tmp_path):
    def without_decoder(tensors):
        for name in list(tensors):
            if name.startswith(("decoder.", "lm_head.")):
                tensors.pop(name)

    folder = changed("hf_t5_v11", without_decoder)
    checks = tfloader.convert(folder, tmp_path / "there", "tensorflow")
    assert outcome(checks, "outputs").startswith("largest difference 0 ")
    tfloader.convert(tmp_path / "there", tmp_path / "back", **QUICK)
    assert contents(folder) == contents(tmp_path / "back")
    assert json.loads((tmp_path / "back/config.json").read_text())["architectures"] == ["T5EncoderModel"]


def test_a_decoder_without_its_output_layer_stays_one(changed, tmp_path):
    folder = changed("hf_t5_v11", lambda tensors: tensors.pop("lm_head.weight"))
    checks = tfloader.convert(folder, tmp_path / "out")
    assert outcome(checks, "outputs").startswith("largest difference 0 ")
    assert contents(folder) == contents(tmp_path / "out")


# ---- a part of the vocabulary


@pytest.mark.parametrize("to", ["huggingface", "tensorflow"])
def test_keep_tokens_cuts_all_vocabulary_tables_and_the_tokenizer(to, tmp_path):
    source = CHECKPOINTS / "bert_google"
    tokens = load_tokenizer(source).ids_to_tokens(range(211))
    special = [tokens.index(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    keep = [*special, *(index for index in range(150, 210) if index not in special)]
    (tmp_path / "keep.txt").write_text("\n".join(map(str, keep)))
    checks = tfloader.convert(source, tmp_path / "out", to, keep_tokens=tmp_path / "keep.txt")
    assert outcome(checks, "outputs").startswith("largest difference 0 ")
    original, cut = (tfloader.load(path, with_mlm="linear") for path in (source, tmp_path / "out"))
    for path in ("Embedding-Token/embeddings", "MLM-Bias/bias"):
        expected = original.transformer.variable(path).numpy()[keep]
        np.testing.assert_array_equal(cut.transformer.variable(path).numpy(), expected)
    found = load_tokenizer(tmp_path / "out")
    assert found.ids_to_tokens(range(found.vocab_size)) == [tokens[old] for old in keep]
    assert found.encode("[MASK]" + tokens[keep[-1]])[0] == found.encode("[MASK]" + tokens[keep[-1]])[0]


def test_keep_tokens_moves_the_ids_that_the_config_names(tmp_path):
    keep = [5, 1, 0, 7, 3]
    tfloader.convert(CHECKPOINTS / "hf_t5_v11", tmp_path / "out", keep_tokens=keep, tokenizer=False, **QUICK)
    config = tfloader.load_config(tmp_path / "out")
    assert (config.vocab_size, config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (5, 2, 1, 2)
    old, new = arrays_of(CHECKPOINTS / "hf_t5_v11"), arrays_of(tmp_path / "out")
    for name in ("shared.weight", "lm_head.weight"):
        np.testing.assert_array_equal(new[name], old[name][keep])


@pytest.mark.parametrize(
    ("text", "ids"),
    {"[0, 2, 1]": [0, 2, 1], "0\n2\n1\n": [0, 2, 1], "0 2\t1": [0, 2, 1], "\ufeff[7]": [7]}.items(),
)
def test_a_file_of_token_ids_is_a_list_or_lines(text, ids, tmp_path):
    (tmp_path / "keep").write_text(text, "utf-8")
    assert token_ids(tmp_path / "keep") == ids


def test_a_huge_file_of_token_ids_is_refused_unread(tmp_path):
    with open(tmp_path / "ids", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ConfigError, match="has 1099511627776 bytes; at most"):
        token_ids(tmp_path / "ids")


@pytest.mark.parametrize("text", ["[0, 1.5]", "[0, true]", "[0, null]", '["a"]', "0\nx", "[0", "[0], 1", "", "[[0]]"])
def test_a_file_that_holds_no_token_ids_is_refused_by_its_name(text, tmp_path):
    (tmp_path / "keep").write_text(text)
    with pytest.raises(ConfigError, match="keep: "):
        token_ids(tmp_path / "keep")


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ([0, 1, 1], "keep_tokens names a token twice"),
        ([0, 1, 97000], "keep_tokens asks for id 97000, but the checkpoint's vocabulary has"),
        ([-1, 0, 1], "keep_tokens asks for id -1"),
        ([], r"keep_tokens must be a list of token ids, found \[\]"),
        ([1, 2], "leaves out ids that the config names: pad_token_id = 0, decoder_start_token_id = 0"),
    ],
)
def test_keep_tokens_that_make_no_vocabulary_are_refused(keep, words, tmp_path):
    with pytest.raises(TfloaderError, match=words):
        tfloader.convert(CHECKPOINTS / "t5_mesh_v11", tmp_path / "out", keep_tokens=keep, tokenizer=False)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_cannot_be_cut_is_not_left_as_it_is(tmp_path):
    with pytest.raises(ConversionError, match=r"a SpTokenizer cannot be cut to keep_tokens.*--no-tokenizer"):
        tfloader.convert(CHECKPOINTS / "t5_mesh_v11", tmp_path / "out", keep_tokens=[0, 1, 2])
    assert not list(tmp_path.iterdir())


# ---- what goes along


@pytest.mark.parametrize(
    ("name", "to", "files"),
    [
        ("bert_google", "huggingface", {"config.json", "model.safetensors", "vocab.txt", "tokenizer.json"}),
        ("hf_bert", "tensorflow", {"bert_config.json", "bert_model.ckpt.index", "checkpoint", "vocab.txt"}),
        ("gpt2_openai", "huggingface", {"config.json", "vocab.json", "merges.txt", "tokenizer_config.json"}),
        ("gpt2_openai", "tensorflow", {"hparams.json", "encoder.json", "vocab.bpe", "gpt2_model.ckpt.index"}),
        ("t5_mesh_v11", "huggingface", {"config.json", "spiece.model", "tokenizer_config.json"}),
        ("gpt2_ml", "huggingface", {"config.json", "vocab.txt"}),
        ("hf_gpt2_h5", "huggingface", {"config.json", "generation_config.json"}),
    ],
)
def test_config_tokenizer_and_generation_defaults_are_in_the_dialect_of_the_target(name, to, files, tmp_path):
    tfloader.convert(CHECKPOINTS / name, tmp_path / "out", to, **QUICK)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert files <= written
    assert not [item for item in written if item.startswith(".") or item.endswith((".tmp", ".part"))]
    if name == "hf_gpt2_h5":
        expected = json.loads((CHECKPOINTS / name / "generation_config.json").read_text())
        assert json.loads((tmp_path / "out/generation_config.json").read_text()) == expected
    else:
        kind = tfloader.load_config(CHECKPOINTS / name).family
        before, after = load_tokenizer(CHECKPOINTS / name, kind), load_tokenizer(tmp_path / "out")
        for text in comparison.TEXTS:
            assert before.encode(text) == after.encode(text)


def test_keys_without_meaning_stay_in_the_same_dialect(copy, tmp_path):
    folder = copy("hf_bert")
    rewrite_json(folder / "config.json", id2label={"0": "no", "1": "yes"}, torch_dtype="float32", _commit_hash="abc")
    tfloader.convert(folder, tmp_path / "out", dtype="float16", **QUICK)
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written["id2label"] == {"0": "no", "1": "yes"} and written["dtype"] == "float16"
    assert not {"torch_dtype", "_commit_hash"} & set(written)


def test_what_is_no_mathematics_and_has_no_words_there_is_told(copy, tmp_path):
    checks = tfloader.convert(CHECKPOINTS / "hf_gpt2", tmp_path / "out", "tensorflow", **QUICK)
    said = outcome(checks, "unsaid")
    assert said.startswith("hparams.json has no words for ")
    assert "bos_token_id = 296 (there it means None)" in said


def test_tensors_that_are_not_of_the_model_are_left_behind_and_told(tmp_path):
    checks = tfloader.convert(CHECKPOINTS / "t5_mesh_v10", tmp_path / "out", **QUICK)
    assert outcome(checks, "left behind").startswith("118 tensors that are not of the model: ")


def test_another_tokenizer_or_none_can_go_along(tmp_path):
    source = CHECKPOINTS / "bert_google"
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]))
    tfloader.convert(source, tmp_path / "other", tokenizer=tmp_path / "vocab.txt")
    assert load_tokenizer(tmp_path / "other").vocab_size == 7
    checks = tfloader.convert(source, tmp_path / "none", tokenizer=False)
    assert outcome(checks, "tokenizer") == "none"
    assert {path.name for path in (tmp_path / "none").iterdir()} == {"config.json", "model.safetensors"}


# ---- Keras


@pytest.mark.parametrize(("name", "dtype"), [("bert_google", None), ("hf_gpt2", "bfloat16"), ("t5_mesh_v11", None)])
def test_a_keras_archive_opens_in_keras_with_the_same_variables_and_outputs(name, dtype, tmp_path):
    import keras

    checks = tfloader.convert(CHECKPOINTS / name, tmp_path / "out", "keras", dtype=dtype)
    assert {"tensors", "outputs"} <= {check.name for check in checks if check.status == "ok"}
    model = keras.saving.load_model(tmp_path / "out/model.keras", compile=False)
    with Source(str(CHECKPOINTS / name)) as source:
        expected = tfloader.load(CHECKPOINTS / name, **(source.load_options | {"dtype": dtype or "float32"}))
    for one, other in zip(expected.weights, model.weights, strict=True):
        assert one.path == other.path and one.numpy().tobytes() == other.numpy().tobytes()
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]


# ---- options


def test_each_format_says_which_options_it_does_not_have(tmp_path):
    with pytest.raises(ArgumentError, match="max_shard_bytes: writing 'keras' has no such option"):
        tfloader.convert(CHECKPOINTS / "hf_bert", tmp_path / "out", "keras", max_shard_bytes=10)
    with pytest.raises(ArgumentError, match=r"to='gguf' is no format .* huggingface, tensorflow, keras"):
        tfloader.convert(CHECKPOINTS / "hf_bert", tmp_path / "out", "gguf")
    assert {"huggingface", "tensorflow", "keras", "savedmodel", "onnx", "litert"} == set(FORMATS)


def test_verification_is_on_where_it_is_small_and_says_when_it_is_not(monkeypatch, tmp_path):
    from tfloader.conversion import streaming

    monkeypatch.setattr(streaming, "VERIFY_UP_TO", 1000)
    checks = tfloader.convert(CHECKPOINTS / "hf_bert", tmp_path / "out")
    assert outcome(checks, "verify") == "278,560 bytes are more than 1,000; ask for it with --verify"
    checks = tfloader.convert(CHECKPOINTS / "hf_bert", tmp_path / "again", verify=True)
    assert outcome(checks, "tensors").endswith("equal bit for bit")
