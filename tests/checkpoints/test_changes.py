"""Files that change while they are open, that are no files at all, and folders that a save fills meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from tfloader import load_config
from tfloader.checkpoints import opening
from tfloader.errors import CheckpointError, ConfigError, TfloaderError
from tfloader.files import read_json
from tfloader.staging import staged

OLD = np.arange(200_000, dtype=np.float32)
FORMATS = ["safetensors", "tensorflow", "hdf5", "torch"]


def written(kind, craft, folder, value=OLD):
    """(what to open, the file with the data) of two tensors; the file is old enough for any change to be seen."""
    arrays = {"a": value, "b": value + 1}
    if kind == "safetensors":
        from tfloader.checkpoints import write_safetensors

        path = file = write_safetensors(folder, craft.items(arrays))[0]
    elif kind == "tensorflow":
        path = str(craft.tensorflow(folder / "m", arrays))
        file = f"{path}.data-00000-of-00001"
    elif kind == "hdf5":
        import h5py

        path = file = str(folder / "x.h5")
        with h5py.File(path, "w") as target:
            for name, array in arrays.items():
                target[name] = array
    else:
        path = file = str(craft.torch(folder / "x.bin", arrays))
    os.utime(file, ns=(10**9, 10**9))
    return path, file


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("change", ["other numbers", "cut"])
def test_a_change_in_the_place_of_an_open_file_is_noticed(change, kind, craft, tmp_path):
    path, file = written(kind, craft, tmp_path)
    with opening.open_checkpoint(path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("a"), OLD)
        if change == "cut":
            os.truncate(file, 5000)
        else:
            with open(file, "r+b") as target:
                target.seek(500_000)
                target.write(bytes(100))
        for name in "ab":
            with pytest.raises(CheckpointError, match=rf"{os.path.basename(file)}: the file changed since"):
                checkpoint.read(name)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_replaced_gives_the_old_numbers_or_an_error(kind, craft, tmp_path):
    path, file = written(kind, craft, tmp_path)
    (tmp_path / "new").mkdir()
    _, new = written(kind, craft, tmp_path / "new", OLD + 5)
    with opening.open_checkpoint(path) as checkpoint:
        assert checkpoint.is_in_place()
        os.replace(new, file)
        assert not checkpoint.is_in_place()
        if kind == "tensorflow":  # which opens the path anew for each tensor
            with pytest.raises(CheckpointError, match="the file changed since"):
                checkpoint.read("b")
        else:
            np.testing.assert_array_equal(checkpoint.read("b"), OLD + 1)


def test_a_text_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x.json").write_text("{}")
    states = iter([1, 2])
    monkeypatch.setattr("tfloader.files.state_of", lambda _: next(states))
    with pytest.raises(ConfigError, match=r"x\.json: cannot be read \(it changed meanwhile\)"):
        read_json(str(tmp_path / "x.json"))


# ---- a save at the same time


@pytest.mark.parametrize("times", [1, opening._ATTEMPTS])
def test_shards_of_two_saves_are_never_taken_together(times, craft, tmp_path, monkeypatch):
    def save(value):
        from tfloader.checkpoints import write_safetensors

        arrays = {name: np.full(3, value, np.float32) for name in "abc"}
        write_safetensors(tmp_path / "m", craft.items(arrays), max_shard_bytes=1)

    opened, original = [], opening.SafetensorsCheckpoint

    def open_shard(path):
        opened.append(path)
        shard = original(path)
        if len(opened) % 3 == 1 and len(opened) // 3 < times:
            save(len(opened))
        return shard

    save(0)
    monkeypatch.setattr(opening, "SafetensorsCheckpoint", open_shard)
    if times > 1:
        with pytest.raises(CheckpointError, match="replaced again and again"):
            opening.open_checkpoint(tmp_path / "m")
        return
    with opening.open_checkpoint(tmp_path / "m") as checkpoint:
        assert {checkpoint.read(name)[0] for name in "abc"} == {1}


def test_a_config_of_a_later_save_is_not_taken_for_earlier_tensors(copy_of_bert, monkeypatch):
    from tfloader.naming import reading

    original = reading.read_config

    def read_config(*arguments, **options):
        with staged(copy_of_bert, TfloaderError) as stage:
            for name in ("config.json", "model.safetensors"):
                shutil.copy(copy_of_bert / name, stage)
        return original(*arguments, **options)

    monkeypatch.setattr(reading, "read_config", read_config)
    with pytest.raises(CheckpointError, match="it was replaced since"):
        load_config(copy_of_bert)


@pytest.fixture
def copy_of_bert(tmp_path):
    from tests.conftest import CHECKPOINTS

    return shutil.copytree(CHECKPOINTS / "hf_bert", tmp_path / "bert")


# ---- what is no file

NAMES = ("x.safetensors", "x.safetensors.index.json", "x.h5", "x.bin", "x.index", "checkpoint", "x.bin.index.json")
SCRIPT = """
import json, sys
from tfloader import load_config, load_vocab, load_tokenizer
from tfloader.checkpoints import open_checkpoint
from tfloader.errors import TfloaderError
from tfloader.naming import read_raw_config
for reader, path in json.load(sys.stdin):
    try:
        globals()[reader](path)
        print("nothing raised by", reader, path)
    except TfloaderError as error:
        print(json.dumps([path, str(error)]))
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_no_reader_waits_for_a_pipe_or_reads_a_device(tmp_path):
    jobs = []
    for kind in ("pipe", "link", "zero", "socket"):
        (tmp_path / kind).mkdir()
        names = NAMES if kind != "socket" else NAMES[:1]
        for name in (*names, "config.json", "vocab.txt", "tokenizer.json"):
            path = tmp_path / kind / name
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "socket":
                with socket.socket(socket.AF_UNIX) as made:
                    made.bind(os.path.relpath(path))
            else:
                path.symlink_to("/dev/zero" if kind == "zero" else tmp_path / "pipe" / name)
            reader = {"config.json": "read_raw_config", "vocab.txt": "load_vocab", "tokenizer.json": "load_tokenizer"}
            jobs.append((reader.get(name, "open_checkpoint"), str(path)))
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(jobs), capture_output=True, text=True, timeout=100, check=True
    ).stdout.splitlines()
    assert len(found) == len(jobs)
    for line, (_, path) in zip(found, jobs, strict=True):
        named, message = json.loads(line)
        assert named == path
        assert os.path.dirname(path) in message
