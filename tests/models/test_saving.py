"""`save` over what is in the folder: one checkpoint is there afterwards, old or new, and nobody's files are lost."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader import staging
from tfloader.downloads.downloading import RECORD
from tfloader.errors import CheckpointError, TfloaderError, TokenizerError
from tfloader.naming import writing

BERT = CHECKPOINTS / "bert_google"
HUGGINGFACE = {"config.json", "model.safetensors"}
TENSORFLOW = {"bert_config.json", "bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index", "checkpoint"}
WORDPIECE = {"vocab.txt", "tokenizer.json", "tokenizer_config.json"}
MINE = {"README.md": "mine", "notes.txt": "mine", "state.safetensors.note": "mine"}


@pytest.fixture(scope="module")
def bert():
    return tfloader.load(BERT)


@pytest.fixture(scope="module")
def changed():
    """The same model after some training, and with another activation."""
    model = tfloader.load(BERT, hidden_act="relu")
    model.get_layer("Embedding-Norm").beta.assign_add(np.ones(48))
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return tfloader.load_tokenizer(BERT)


def is_in(folder, model) -> bool:
    """Whether `load` gives just this model, config and weights."""
    found = tfloader.load(folder)
    same = found.transformer.config.hidden_act == model.transformer.config.hidden_act
    return same and all(np.array_equal(*pair) for pair in zip(found.get_weights(), model.get_weights(), strict=True))


def names(folder) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def add(folder, files=MINE) -> None:
    Path(folder).mkdir(exist_ok=True)
    for name, text in files.items():
        (Path(folder) / name).write_text(text)


WAYS = {
    "whole": ({}, HUGGINGFACE),
    "sharded": ({"max_shard_bytes": 100_000}, None),
    "tensorflow": ({"format": "tensorflow"}, TENSORFLOW),
}


@pytest.mark.parametrize("new", WAYS)
@pytest.mark.parametrize("old", WAYS)
def test_a_save_in_any_form_replaces_one_in_any_other(bert, changed, tmp_path, old, new):
    add(tmp_path)
    tfloader.save(bert, tmp_path, **WAYS[old][0])
    tfloader.save(changed, tmp_path, **WAYS[new][0])
    options, expected = WAYS[new]
    if expected is None:
        tfloader.save(changed, tmp_path / "alone", **options)
        expected = names(tmp_path / "alone") | {"alone"}
        assert len(expected) > 4
    assert names(tmp_path) == expected | set(MINE)
    assert {(tmp_path / name).read_text() for name in MINE} == {"mine"}
    assert is_in(tmp_path, changed)


@pytest.mark.parametrize("format", ["huggingface", "tensorflow"])
def test_another_family_leaves_nothing_of_the_one_before(bert, tokenizer, tmp_path, format):
    add(tmp_path)
    tfloader.save(bert, tmp_path, format, tokenizer=tokenizer)
    tfloader.save(tfloader.load(CHECKPOINTS / "gpt2_openai"), tmp_path)
    assert names(tmp_path) == HUGGINGFACE | set(MINE)
    assert tfloader.load(tmp_path).transformer.config.family == "gpt2"


def test_the_tokenizer_stays_while_it_belongs_to_the_model(bert, changed, tokenizer, tmp_path):
    tokenizer.save(tmp_path)  # before any model
    tfloader.save(bert, tmp_path)
    assert names(tmp_path) == HUGGINGFACE | WORDPIECE
    tfloader.save(changed, tmp_path, "tensorflow")
    assert names(tmp_path) == TENSORFLOW | WORDPIECE
    tfloader.save(tfloader.load(BERT, keep_tokens=range(150)), tmp_path)  # whose tokens have other ids
    assert names(tmp_path) == HUGGINGFACE


def test_a_new_tokenizer_replaces_one_of_another_kind(bert, tokenizer, tmp_path):
    stale = {"spiece.model": "old", "added_tokens.json": "{}", "vocab.json": "{}", "merges.txt": ""}
    tfloader.save(bert, tmp_path)
    add(tmp_path, stale)
    tfloader.save(bert, tmp_path, tokenizer=tokenizer)
    assert names(tmp_path) == HUGGINGFACE | WORDPIECE
    add(tmp_path, stale)
    tokenizer.save(tmp_path)
    assert names(tmp_path) == HUGGINGFACE | WORDPIECE
    assert tfloader.load_tokenizer(tmp_path).tokenize("a 天") == tokenizer.tokenize("a 天")


def test_the_original_names_are_used_for_the_tokenizer_as_well(tmp_path):
    source = CHECKPOINTS / "gpt2_openai"
    tfloader.save(tfloader.load(source), tmp_path, "tensorflow", tokenizer=tfloader.load_tokenizer(source))
    assert names(tmp_path) >= {"hparams.json", "encoder.json", "vocab.bpe"}
    assert tfloader.load_tokenizer(tmp_path).vocab_size == tfloader.load_tokenizer(source).vocab_size


OTHERS = ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "tf_model.h5", "flax_model.msgpack", RECORD]
OTHERS += ["bert_model.ckpt.meta", "model.ckpt-10.index", "run.data-00000-of-00001"]


@pytest.mark.parametrize("other", OTHERS)
def test_a_folder_with_another_checkpoint_is_refused_before_anything_is_written(bert, changed, tmp_path, other):
    tfloader.save(bert, tmp_path)
    add(tmp_path, {other: "theirs"})
    with pytest.raises(CheckpointError, match=rf"holds files of another checkpoint[\s\S]*remove them:\n  - {other}"):
        tfloader.save(changed, tmp_path)
    assert names(tmp_path) == HUGGINGFACE | {other}
    (tmp_path / other).unlink()
    assert is_in(tmp_path, bert)


def test_adapters_and_states_beside_stay_unless_load_would_take_them_for_the_model(bert, changed, tmp_path):
    tfloader.save(bert, tmp_path)
    add(tmp_path, {"adapters.safetensors": "mine", "optimizer.pt": "mine"})
    tfloader.save(changed, tmp_path)
    assert names(tmp_path) == HUGGINGFACE | {"adapters.safetensors", "optimizer.pt"} and is_in(tmp_path, changed)
    with pytest.raises(CheckpointError, match=r"remove them:\n  - adapters\.safetensors"):
        tfloader.save(bert, tmp_path, "tensorflow")
    assert is_in(tmp_path, changed)


# ---- when something fails


@pytest.mark.parametrize("function", ["write_safetensors", "write_json", "write_tokenizer"])
def test_interrupted_at_any_part_the_old_one_is_there_whole(bert, changed, tokenizer, tmp_path, monkeypatch, function):
    from tfloader.models import builder

    tfloader.save(bert, tmp_path)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(builder if function == "write_tokenizer" else writing, function, interrupted)
    with pytest.raises(KeyboardInterrupt):
        tfloader.save(changed, tmp_path, tokenizer=tokenizer)
    assert names(tmp_path) == HUGGINGFACE and is_in(tmp_path, bert)


def test_without_its_tokenizer_the_model_is_not_written_either(bert, tokenizer, tmp_path):
    unsaveable = tfloader.Tokenizer(tfloader.load_vocab(BERT / "vocab.txt"), pre_tokenize=str.split)
    for wrong, words in ((unsaveable, "no tokenizer file can hold"), (str(BERT), "what load_tokenizer.* found str")):
        with pytest.raises(TokenizerError, match=words):
            tfloader.save(bert, tmp_path / "new", tokenizer=wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["huggingface", "tensorflow"])
def test_an_interrupted_move_is_finished_by_whoever_opens_the_folder(
    bert, changed, tokenizer, tmp_path, monkeypatch, format
):
    """Where the folder stays the same one, because it has a subfolder."""
    old = {"huggingface": "tensorflow", "tensorflow": "huggingface"}[format]
    tfloader.save(bert, tmp_path / "at once", format, tokenizer=tokenizer)
    expected = names(tmp_path / "at once")

    readers = (tfloader.load, tfloader.load_tokenizer, lambda path: tfloader.load_vocab(path / "vocab.txt"))
    for index, read in enumerate(readers):
        folder = tmp_path / str(index)
        tfloader.save(bert, folder, old)
        (folder / "logs").mkdir()
        replace, calls = os.replace, []

        def killed(*paths, replace=replace, calls=calls):
            calls.append(paths)
            if len(calls) == 2:
                raise KeyboardInterrupt
            replace(*paths)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                tfloader.save(changed, folder, format, tokenizer=tokenizer)
        assert staging.COMMIT in os.listdir(folder)
        read(folder)
        assert names(folder) == expected | {"logs"} and is_in(folder, changed)


def test_a_folder_that_cannot_be_made_is_said_in_our_words(bert, tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "deeper", tmp_path / ("x" * 300), "", "a\0b"):
        with pytest.raises(TfloaderError, match=r"writing failed|not the path of a folder|is no path"):
            tfloader.save(bert, path)
    assert names(tmp_path) == {"file"}
