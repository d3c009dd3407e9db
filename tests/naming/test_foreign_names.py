"""Tensors under names that no release has: what they are is said, a rename reads them, copies stand for others."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tfloader
from tests.conftest import CHECKPOINTS
from tests.releases import case
from tfloader import cli, inspection
from tfloader.checkpoints.tensorflow_writer import write_tensorflow
from tfloader.errors import CheckpointError, ConfigError, WeightsError

HF_BERT, GOOGLE = CHECKPOINTS / "hf_bert", CHECKPOINTS / "bert_google"
TENSORS = load_file(HF_BERT / "model.safetensors")
CONFIG = json.loads((HF_BERT / "config.json").read_text())
SPELLINGS = {
    "model.": lambda name: f"model.{name}",
    "bert.": lambda name: f"bert.{name}",
    "encoder.": lambda name: name.replace("bert.", "encoder.", 1),
    "0.auto_model.": lambda name: name.replace("bert.", "0.auto_model.", 1),
}


def same(a, b):
    return all(np.array_equal(*pair) for pair in zip(a.get_weights(), b.get_weights(), strict=True))


@pytest.fixture(scope="module")
def bert():
    return tfloader.load(HF_BERT, with_mlm="linear")


@pytest.mark.parametrize("prefix", SPELLINGS)
def test_a_foreign_prefix_is_named_and_can_be_renamed(prefix, bert):
    tensors = {SPELLINGS[prefix](name): array for name, array in TENSORS.items()}
    with pytest.raises(CheckpointError, match="not named as in any release") as caught:
        tfloader.load(tensors, config=CONFIG)
    rename = {prefix: ""}
    assert f"those of a Hugging Face BERT: if so, pass rename={rename!r}" in str(caught.value)
    assert same(tfloader.load(tensors, config=CONFIG, with_mlm="linear", rename=rename), bert)


def test_a_scope_of_tensorflow_is_renamed(tmp_path):
    with tfloader.open_checkpoint(GOOGLE) as checkpoint:
        tensors = {f"tower_0/{name}": checkpoint.read(name) for name in checkpoint}
    config = json.loads((GOOGLE / "bert_config.json").read_text())
    with pytest.raises(CheckpointError, match=r"a Google BERT .*rename=\{'tower_0/': ''\}"):
        tfloader.load(tensors, config=config)
    built = tfloader.build_transformer_model(config, tensors, rename={"tower_0/": ""})
    assert same(built, tfloader.load(GOOGLE))


def test_what_torch_compile_puts_before_names_is_known(bert):
    tensors = {f"_orig_mod.module.{name}": array for name, array in TENSORS.items()}
    assert same(tfloader.load(tensors, config=CONFIG, with_mlm="linear"), bert)


@pytest.mark.parametrize(
    ("rename", "words"),
    [
        ({"modle.": ""}, "no tensor's name begins with 'modle.'"),
        (
            {"bert.embeddings.word_embeddings.": "cls.predictions.decoder."},
            "two tensors would be 'cls.predictions.decoder",
        ),
    ],
)
def test_a_rename_that_fits_nothing_or_joins_two_is_refused(rename, words):
    tensors = TENSORS | {"cls.predictions.decoder.weight": TENSORS["bert.embeddings.word_embeddings.weight"]}
    with pytest.raises(CheckpointError, match=words):
        tfloader.load(tensors, config=CONFIG, rename=rename)


def without_copies(name, kept):
    """The tensors of a release as safetensors' `save_model` leaves them: of tied ones one name alone."""
    release = case(name)
    with tfloader.open_checkpoint(release.path) as checkpoint:
        tensors = {key: checkpoint.read(key) for key in checkpoint}
    config = json.loads(Path(release.path, "config.json").read_text())
    tied = {"hf_gpt2": "transformer.wte.weight", "hf_t5_v10": "shared.weight", "hf_nezha": None}[name]
    tied = tied or "nezha.embeddings.word_embeddings.weight"
    copies = {"lm_head.weight", "decoder.embed_tokens.weight", "encoder.embed_tokens.weight"}
    rest = {key: array for key, array in tensors.items() if key != tied and key not in copies}
    return release, rest | {kept: tensors[tied]}, config


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("hf_gpt2", "lm_head.weight"),
        ("hf_t5_v10", "decoder.embed_tokens.weight"),
        ("hf_t5_v10", "lm_head.weight"),
        ("hf_nezha", "cls.predictions.decoder.weight"),
    ],
)
def test_of_tied_tensors_any_one_will_do(name, kept, tmp_path):
    release, tensors, config = without_copies(name, kept)
    save_file({key: np.ascontiguousarray(array) for key, array in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert same(tfloader.load(tmp_path, **release.options), tfloader.load(release.path, **release.options))
    if name == "hf_t5_v10":  # as transformers 5 writes it, which says by the scale alone that it is T5 1.0
        scaled = {"transformers_version": "5.24.0", "tie_word_embeddings": True, "scale_decoder_outputs": True}
        (tmp_path / "config.json").write_text(json.dumps(config | scaled))
        assert same(tfloader.load(tmp_path, **release.options), tfloader.load(release.path, **release.options))
        (tmp_path / "config.json").write_text(json.dumps(config | scaled | {"scale_decoder_outputs": False}))
        if kept == "lm_head.weight":
            with pytest.raises(WeightsError, match="Embedding-Token"):
                tfloader.load(tmp_path, **release.options)


def test_an_output_layer_of_its_own_is_never_taken_for_the_embedding(tmp_path):
    release = case("hf_t5_v11")
    with tfloader.open_checkpoint(release.path) as checkpoint:
        names = [name for name in checkpoint if name != "shared.weight" and "embed_tokens" not in name]
        tensors = {name: checkpoint.read(name) for name in names}
    with pytest.raises((WeightsError, ConfigError), match="Embedding-Token/embeddings has no tensor"):
        tfloader.load(tensors, config=json.loads(Path(release.path, "config.json").read_text()))


def test_attention_that_is_stored_by_heads_is_read(tmp_path):
    """[hidden, heads, size] kernels and [heads, size] biases, as keras.layers.EinsumDense has them."""
    source, folder = CHECKPOINTS / "hf_bert_h5", tmp_path / "by_heads"
    folder.mkdir()
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config))
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    shapes = {"kernel:0": (hidden, heads, -1), "bias:0": (heads, -1)}
    with h5py.File(source / "tf_model.h5") as old, h5py.File(folder / "tf_model.h5", "w") as new:
        old.visititems(lambda name, item: new.__setitem__(name, item[()]) if isinstance(item, h5py.Dataset) else None)
        names = []
        new.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            array, shape = new[name][()], None
            if "/attention/self/" in name:
                shape = shapes[name.rpartition("/")[2]]
            elif "/attention/output/dense/kernel" in name:
                shape = (heads, -1, hidden)
            if shape:
                del new[name]
                new[name] = array.reshape(shape)
    assert same(tfloader.load(folder), tfloader.load(source))
    assert {check.name: check.status for check in inspection.verify(folder)}["exactness"] == "ok"
    tfloader.convert(folder, tmp_path / "safe", to="huggingface")
    assert same(tfloader.load(tmp_path / "safe"), tfloader.load(source))


def test_averages_alone_are_read_by_a_name_for_their_end_everywhere(tmp_path, capsys):
    end = "/ExponentialMovingAverage"
    with tfloader.open_checkpoint(GOOGLE) as checkpoint:
        averages = {name + end: checkpoint.read(name) for name in checkpoint}
        items = [(name + end, spec, lambda name=name: averages[name + end]) for name, spec in checkpoint.items()]
        write_tensorflow(tmp_path / "averages" / "bert_model.ckpt", items)
    config = json.loads((GOOGLE / "bert_config.json").read_text())
    with pytest.raises(CheckpointError) as caught:
        tfloader.load(averages, config=config)
    rename = {"*" + end: ""}
    assert f"pass rename={rename!r} (--rename '*{end}=')" in str(caught.value)
    assert same(tfloader.load(averages, config=config, rename=rename), tfloader.load(GOOGLE))
    with pytest.raises(CheckpointError, match="no tensor's name ends with '/EMA'"):
        tfloader.load(averages, config=config, rename={"*/EMA": ""})

    (tmp_path / "averages" / "bert_config.json").write_text(json.dumps(config))
    path, given = str(tmp_path / "averages"), ["--rename", f"*{end}="]
    assert cli.main(["info", path, *given]) == cli.main(["verify", path, *given]) == 0
    assert cli.main(["convert", path, str(tmp_path / "out"), *given]) == 0
    assert same(tfloader.load(tmp_path / "out"), tfloader.load(GOOGLE))
    with pytest.raises(SystemExit, match="2"):
        cli.main(["info", path, "--rename", "x"])


def test_several_ids_end_a_text_through_load_save_cut_and_generation(tmp_path):
    config = CONFIG | {"eos_token_id": [1, 2]}
    model = tfloader.load(TENSORS, config=config, application="lm")
    assert model.transformer.config.eos_token_id == (1, 2)
    tfloader.save(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == [1, 2]
    checks = {check.name: check.status for check in inspection.verify(tmp_path)}
    assert checks["config"] == checks["exactness"] == "ok"
    cut = tfloader.load(tmp_path, keep_tokens=[0, 2, 5, 1], application="lm")
    assert cut.transformer.config.eos_token_id == (3, 1)
    assert tfloader.TextGenerator(model).own_eos_token_ids() == (1, 2)
    free = {"suppress_tokens": [id for id in range(model.transformer.config.vocab_size) if id not in (2, 5)]}
    written = tfloader.TextGenerator(model).generate_ids([[7]], max_new_tokens=9, do_sample=True, seed=1, **free)
    assert written.sequences[0][-1] == 2 or 2 not in written.sequences[0]
    for wrong in ([], [1, "2"], "1", [True], 1.5):
        with pytest.raises(ConfigError, match="eos_token_id must be"):
            tfloader.load(TENSORS, config=CONFIG | {"eos_token_id": wrong})


def test_special_tokens_outside_of_the_vocabulary_are_told(tmp_path):
    config = CONFIG | {"eos_token_id": 50_256}
    with pytest.warns(UserWarning, match=r"eos_token_id = 50256, but there are \d+ tokens: give eos_token_id="):
        tfloader.load(TENSORS, config=config)
    tfloader.load(TENSORS, config=config, eos_token_id=None)
    with pytest.warns(UserWarning, match=r"eos_token_id = \(1, 50256\), but there are"):
        tfloader.load(TENSORS, config=config | {"eos_token_id": [1, 50_256]})
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(TENSORS, tmp_path / "model.safetensors")
    details = {check.name: check.detail for check in inspection.verify(tmp_path)}
    assert "eos_token_id = 50256" in details["config"]
