"""Where a target may be; that it appears whole or not at all, whatever fails or kills; that the source is only read."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.conversion.conftest import contents, fingerprint
from tfloader.errors import ConversionError, TfloaderError

ROOT = Path(__file__).parents[2]
BERT = CHECKPOINTS / "hf_bert"
QUICK = {"verify": False}


def refused(words, source, target, **options):
    with pytest.raises(ConversionError, match=words):
        tfloader.convert(source, target, **QUICK, **options)


# ---- where it may be


def test_the_source_and_what_lies_in_it_are_no_targets(copy, tmp_path):
    source = copy("hf_bert")
    before = fingerprint(source)
    os.symlink(source, tmp_path / "link")
    (source / "empty").mkdir()
    for target in (source, source / "out", source / "a/b", source / "empty", tmp_path / "link", tmp_path / "link/out"):
        refused("the target (is|lies inside) the source", source, target)
    refused("lies inside the source", source / "model.safetensors", source / "out")
    refused("the target is the source", tmp_path / "link", source)
    (source / "empty").rmdir()
    assert fingerprint(source) == before


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: (path.mkdir(), (path / "a").write_text("x")), r"the folder is there and holds a\. Give a new"),
        (lambda path: path.write_text("x"), "there is a file of this name"),
        (lambda path: path.symlink_to("nowhere"), "there is a file of this name"),
    ],
    ids=["a full folder", "a file", "a broken link"],
)
def test_what_is_there_is_never_replaced(make, words, tmp_path):
    make(tmp_path / "out")
    refused(words, BERT, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path):
    (tmp_path / "out").mkdir()
    tfloader.convert(BERT, tmp_path / "out", **QUICK)
    tfloader.convert(BERT, tmp_path / "a/b/c", **QUICK)
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    os.symlink(tmp_path / "disk", tmp_path / "link")
    tfloader.convert(BERT, tmp_path / "link", **QUICK)
    (tmp_path / "disk" / "lost+found").rmdir()
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "a/b/c") == fingerprint(tmp_path / "disk")


def test_the_new_folder_has_the_usual_permissions(tmp_path):
    tfloader.convert(BERT, tmp_path / "out", **QUICK)
    (tmp_path / "usual").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


# ---- when something fails


def test_too_little_room_is_found_before_anything_is_written(monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)._replace(free=278_559)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    refused("278560 bytes are to be written, but only 278559 are free", BERT, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("function", ["fsync", "replace", "mkdir", "open"])
def test_whichever_call_fails_nothing_is_left(function, monkeypatch, tmp_path):
    """The nth call of a function of `os` reports a full disk, for every n until the conversion succeeds."""
    source = CHECKPOINTS / "hf_bert_sharded"
    before = fingerprint(source)
    original = getattr(os, function)
    for failing in itertools.count():
        calls = itertools.count()

        def full(*arguments, calls=calls, failing=failing, **options):
            if next(calls) == failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(os, function, full)
            try:
                tfloader.convert(source, tmp_path / "out", max_shard_bytes=60_000, **QUICK)
            except TfloaderError as error:
                assert "No space left on device" in str(error)
                assert not list(tmp_path.iterdir()), failing
                continue
        assert contents(tmp_path / "out").items() >= contents(source).items()
        if next(calls) <= failing:
            break
        shutil.rmtree(tmp_path / "out")  # a failure that does no harm, such as of a folder that is there
    assert failing
    assert fingerprint(source) == before


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """The folder in which a process whose files may not grow was to write both formats; and what it said."""
    folder = tmp_path_factory.mktemp("limited")
    code = f"""
import resource, tfloader
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for to in ("huggingface", "tensorflow"):
    try:
        tfloader.convert({str(BERT)!r}, f"{folder}/{{to}}", to, verify=False)
    except tfloader.TfloaderError as error:
        print(to, type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    return folder, done.stdout.splitlines()


@pytest.mark.parametrize("to", ["huggingface", "tensorflow"])
def test_a_file_system_that_takes_no_more_bytes_leaves_nothing(to, limited):
    """A limit of the system on the size of a file, which also TensorFlow's own writer meets."""
    folder, errors = limited
    assert any(line.startswith(to) and line.endswith("Error") for line in errors)
    assert not list(folder.iterdir())


def test_what_was_written_wrong_does_not_appear(monkeypatch, tmp_path):
    from tfloader.conversion import streaming

    honest = streaming.write_folder

    def swapped(path, release, config, tensors, max_shard_bytes):
        q, k = (next(i for i, item in enumerate(tensors) if f"{x}.weight" in item[0]) for x in ("query", "key"))
        tensors[q], tensors[k] = (tensors[k][0], *tensors[q][1:]), (tensors[q][0], *tensors[k][1:])
        honest(path, release, config, tensors, max_shard_bytes)

    monkeypatch.setattr(streaming, "write_folder", swapped)
    with pytest.raises(ConversionError, match=r"not the same model[\s\S]*0-MultiHeadSelfAttention/query/kernel d"):
        tfloader.convert(BERT, tmp_path / "out")
    assert not list(tmp_path.iterdir())


# ---- several at once, and the killed


def test_a_second_conversion_to_the_same_target_neither_mixes_nor_replaces(monkeypatch, tmp_path):
    from tfloader.conversion import companions

    honest, first = companions.write, []

    def meanwhile(stage, *arguments):
        honest(stage, *arguments)
        if not first:
            first.append(stage)
            tfloader.convert(BERT, tmp_path / "out", dtype="float16", **QUICK)
            assert os.path.isdir(stage), "a living process' folder was removed"

    monkeypatch.setattr(companions, "write", meanwhile)
    refused("writing failed: Directory not empty", BERT, tmp_path / "out")
    assert {kind for kind, _, _ in contents(tmp_path / "out").values()} == {"float16"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_conversion_left_is_removed_by_the_next_to_the_same_target(tmp_path):
    for name in (".out.1234.part", ".other.1234.part", ".out.1234.txt"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("half")
    tfloader.convert(BERT, tmp_path / "out", **QUICK)
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".other.1234.part", ".out.1234.txt"}


def test_an_interrupt_leaves_nothing(monkeypatch, tmp_path):
    from tfloader.conversion import companions

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(companions, "write", interrupted)
    with contextlib.suppress(KeyboardInterrupt):
        tfloader.convert(BERT, tmp_path / "out", **QUICK)
    assert not list(tmp_path.iterdir())


# ---- on a terminal


def test_there_is_no_progress_bar_where_there_is_no_terminal(tmp_path, capfd):
    tfloader.convert(BERT, tmp_path / "out", **QUICK)
    assert capfd.readouterr() == ("", "")
