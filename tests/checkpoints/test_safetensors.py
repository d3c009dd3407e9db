"""Safetensors: what is written, the library and the reader read; and the old file outlives a failure."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfloader.checkpoints import TensorSpec, aligned_empty, open_checkpoint, write_safetensors
from tfloader.checkpoints.base import DTYPES
from tfloader.errors import CheckpointError

F32 = np.float32


def bits(array: np.ndarray) -> bytes:
    """Compares NaNs and negative zeros too."""
    return np.ascontiguousarray(array).tobytes()


def same(checkpoint, arrays: dict) -> None:
    assert sorted(checkpoint) == sorted(arrays)
    for name, array in arrays.items():
        assert checkpoint[name] == TensorSpec(array.shape, array.dtype.name)
        got = checkpoint.read(name)
        assert got.dtype == array.dtype.newbyteorder("=")
        assert got.shape == array.shape
        assert bits(got) == bits(array)
        assert got.flags.c_contiguous


@st.composite
def tensors(draw, max_side: int = 3):
    names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
    arrays = {}
    for name in draw(st.lists(names, min_size=1, max_size=5, unique=True)):
        dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
        shape = tuple(draw(st.lists(st.integers(0, max_side), max_size=4)))
        raw = np.random.default_rng(len(arrays)).integers(0, 2 if dtype.name == "bool" else 256, 8 * 3**4, np.uint8)
        size = int(np.prod(shape, dtype=int))
        arrays[name] = raw[: size * dtype.itemsize].view(dtype).reshape(shape)
    arrays.pop("__metadata__", None)
    return arrays or {"x": np.ones(1, F32)}


@given(arrays=tensors(), shard=st.sampled_from([1, 40, 10**9]))
def test_round_trip(craft, arrays, shard):
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as folder:
        paths = write_safetensors(folder, craft.items(arrays), max_shard_bytes=shard)
        with open_checkpoint(folder) as checkpoint:
            same(checkpoint, arrays)
            assert set(checkpoint.files) == set(paths)
        if not any(array.dtype == ml_dtypes.bfloat16 for array in arrays.values()):
            read = {}
            for path in paths:
                read |= load_file(path) if path.endswith(".safetensors") else {}
            assert {name: bits(array) for name, array in read.items()} == {n: bits(a) for n, a in arrays.items()}


@given(
    entries=st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__", "é"]),
        st.fixed_dictionaries(
            {},
            optional={
                "dtype": st.sampled_from(["F32", "U8", "F4", "f32", None, ["F32"]]),
                "shape": st.one_of(st.lists(st.sampled_from([0, 1, 2, -1, 2.0, True, 2**63]), max_size=3), st.just({})),
                "data_offsets": st.lists(st.sampled_from([0, 1, 2, 4, 8, 8.0, -4, "0"]), max_size=3),
                "note": st.just("x"),
            },
        ),
        max_size=3,
    ),
    nbytes=st.sampled_from([0, 1, 4, 8]),
    before=st.sampled_from(["", " ", "\ufeff"]),
)
def test_no_header_is_taken_that_the_library_refuses(craft, entries, nbytes, before):
    from safetensors import safe_open

    with tempfile.TemporaryDirectory() as folder:
        path = craft.safetensors(Path(folder, "x.safetensors"), before + json.dumps(entries), bytes(nbytes))
        try:
            with open_checkpoint(path) as checkpoint:
                shapes = {name: list(spec.shape) for name, spec in checkpoint.items()}
        except CheckpointError:
            return
        with safe_open(path, "numpy") as file:  # or it raises SafetensorError
            assert {name: file.get_slice(name).get_shape() for name in file.keys()} == shapes  # noqa: SIM118


def test_memory_round_trip_and_big_endian(craft, tmp_path):
    arrays = {
        "big": np.arange(6, dtype=">f4").reshape(2, 3),
        "scalar": np.array(3, ">i8"),
        "none": np.zeros((0, 3), F32),
        "turned": np.arange(6, dtype=F32).reshape(2, 3).T,
        "bf16": np.arange(3).astype(ml_dtypes.bfloat16),
        "nan": np.array([np.nan, np.inf, -0.0], F32),
    }
    native = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays.items()}
    with open_checkpoint(arrays) as checkpoint:
        same(checkpoint, native)
        assert checkpoint.read("big") is not checkpoint.read("big")
        assert checkpoint.read("big").ctypes.data % 64 == 0
    write_safetensors(tmp_path, craft.items(arrays))
    same(open_checkpoint(tmp_path), native)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 7)])
@pytest.mark.parametrize("dtype", ["bool", "bfloat16", "float64"])
def test_aligned_empty(shape, dtype):
    array = aligned_empty(shape, dtype)
    assert (array.shape, array.dtype) == (shape, DTYPES[dtype])
    assert array.ctypes.data % 64 == 0
    assert array.flags.writeable


def test_reads_are_aligned_and_owned(craft, tmp_path):
    checkpoint = open_checkpoint(craft.good(tmp_path / "x.safetensors", "abc"))
    for name in checkpoint:
        array = checkpoint.read(name)
        assert array.ctypes.data % 64 == 0
        array[:] = 0  # the caller's own
    assert checkpoint.read("c").tolist() == [4, 5]


def test_reads_from_two_threads(craft, tmp_path):
    arrays = {f"t{i}": np.full((50_000,), i, F32) for i in range(40)}
    write_safetensors(tmp_path, craft.items(arrays))
    checkpoint, wrong = open_checkpoint(tmp_path), []

    def read_all():
        wrong.extend(name for name in checkpoint if not (checkpoint.read(name) == arrays[name]).all())

    threads = [threading.Thread(target=read_all) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_shards_and_index(craft, tmp_path):
    arrays = {name: np.ones(n, F32) for name, n in (("a", 2), ("b", 2), ("huge", 100), ("c", 1))}
    paths = write_safetensors(tmp_path, craft.items(arrays), max_shard_bytes=16)
    assert [os.path.basename(path) for path in paths] == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads(Path(paths[-1]).read_text())
    assert index["metadata"] == {"total_size": 420}
    assert index["weight_map"] == {
        "a": "model-00001-of-00003.safetensors",
        "b": "model-00001-of-00003.safetensors",
        "huge": "model-00002-of-00003.safetensors",
        "c": "model-00003-of-00003.safetensors",
    }
    assert sorted(os.listdir(tmp_path)) == sorted(map(os.path.basename, paths))


def test_header_is_as_others_write_it(craft, tmp_path):
    arrays = {"odd": np.ones(3, bool), "x": np.ones(2, F32), "y": np.ones(1, F32)}
    (path,) = write_safetensors(tmp_path, craft.items(arrays), metadata={"note": "ä"})
    data = Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt", "note": "ä"}
    assert list(header) == ["x", "y", "odd"]  # the wide ones first, so that each is aligned
    assert header["odd"] == {"dtype": "BOOL", "shape": [3], "data_offsets": [12, 15]}
    assert open_checkpoint(path).metadata["note"] == "ä"


def test_torch_can_view_what_is_written(craft, tmp_path):
    pytest.importorskip("torch", reason="checks alignment for PyTorch's reader")
    from safetensors.torch import load_file

    arrays = {"odd": np.ones(3, bool), "x": np.arange(2, dtype=F32), "z": np.array(5, np.int64)}
    (path,) = write_safetensors(tmp_path, craft.items(arrays))
    assert {name: tensor.tolist() for name, tensor in load_file(path).items()} == {
        name: array.tolist() for name, array in arrays.items()
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [(10**9, 8), (8, 10**9), (8, 8), (8, 24)],
    ids=["1-to-n", "n-to-1", "n-to-n", "n-to-fewer"],
)
def test_a_new_save_replaces_the_old_one(craft, tmp_path, old, new):
    (tmp_path / "other.safetensors").write_bytes(b"not ours")
    write_safetensors(tmp_path, craft.items({n: np.ones(2, F32) for n in "abcd"}), max_shard_bytes=old)
    arrays = {n: np.zeros(2, F32) for n in "abcd"}
    paths = write_safetensors(tmp_path, craft.items(arrays), max_shard_bytes=new)
    assert sorted(os.listdir(tmp_path)) == sorted([*map(os.path.basename, paths), "other.safetensors"])
    same(open_checkpoint(paths[-1]), arrays)


def test_saving_over_the_file_being_read(craft, tmp_path):
    write_safetensors(tmp_path, craft.items({"a": np.arange(2, dtype=F32), "b": np.ones(2, F32)}))
    with open_checkpoint(tmp_path) as old:
        doubled = [(name, spec, lambda name=name: 2 * old.read(name)) for name, spec in old.items()]
        write_safetensors(tmp_path, doubled)
        assert old.read("a").tolist() == [0, 1]
    same(open_checkpoint(tmp_path), {"a": np.array([0, 2], F32), "b": np.full(2, 2, F32)})


def broken(kind: str, craft):
    """Tensors whose second array makes the writing fail."""
    spec = TensorSpec((2,), "float32")

    def crash():
        raise RuntimeError("the source broke")

    second = {
        "crash": crash,
        "other shape": lambda: np.ones(3, F32),
        "other dtype": lambda: np.ones(2, np.float64),
        "bfloat16 for float32": lambda: np.ones(2, ml_dtypes.bfloat16),
    }[kind]
    return [("a", spec, lambda: np.zeros(2, F32)), ("b", spec, second)]


@pytest.mark.parametrize("shard", [8, 10**9])
@pytest.mark.parametrize("kind", ["crash", "other shape", "other dtype", "bfloat16 for float32"])
def test_a_failure_leaves_the_old_files(craft, tmp_path, kind, shard):
    arrays = {n: np.ones(2, F32) for n in "ab"}
    write_safetensors(tmp_path, craft.items(arrays), max_shard_bytes=shard)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError if kind == "crash" else CheckpointError, match=r"broke|'b' was announced"):
        write_safetensors(tmp_path, broken(kind, craft), max_shard_bytes=shard)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_kill_in_mid_write_leaves_the_old_file(craft, tmp_path):
    arrays = {n: np.ones(2, F32) for n in "ab"}
    write_safetensors(tmp_path, craft.items(arrays))
    program = (
        "import os, sys, numpy as np; from tfloader.checkpoints import *\n"
        "spec = TensorSpec((2,), 'float32')\n"
        "write_safetensors(sys.argv[1], [('a', spec, lambda: np.zeros(2, 'f4')),"
        " ('b', spec, lambda: os.kill(os.getpid(), 9))])"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env={**os.environ, "PYTHONPATH": root})
    assert done.returncode == -9
    same(open_checkpoint(tmp_path), arrays)


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_failed_rename_never_leaves_a_mixture(craft, tmp_path, monkeypatch, failing):
    """Where folders cannot be exchanged: the shards that were not renamed are, by whoever opens the folder next."""
    old, new = ({n: np.full(2, value, F32) for n in "ab"} for value in (1, 2))
    write_safetensors(tmp_path, craft.items(old), max_shard_bytes=8)
    replace, count = os.replace, []

    def fail(*args):
        count.append(1)
        if len(count) == failing:
            raise OSError(5, "Input/output error")
        replace(*args)

    (tmp_path / "logs").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        with pytest.raises(CheckpointError, match=r"Input/output error.*The new files are whole.*next load"):
            write_safetensors(tmp_path, craft.items(new), max_shard_bytes=8)
    same(open_checkpoint(tmp_path), new)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_full_disk_is_said_before_writing(craft, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 3, 7))
    with pytest.raises(CheckpointError, match="8 bytes are to be written, but only 7 are free"):
        write_safetensors(tmp_path, craft.items({"a": np.ones(2, F32)}))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["__metadata__"], "__metadata__"),
        ([""], "not a name"),
        (["a", "a"], "comes twice"),
        (["a\0"], "NUL"),
        (["\ud800"], "Unicode"),
        ([3], "not a name"),
    ],
)
def test_names_that_cannot_be_written(tmp_path, names, words):
    items = [(name, TensorSpec((1,), "float32"), lambda: np.ones(1, F32)) for name in names]
    with pytest.raises(CheckpointError, match=words):
        write_safetensors(tmp_path / "new", items)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1,), "complex64"), ((-1,), "float32"), ((2.0,), "float32"), ((2**62, 4), "bool"), ((True,), "bool")],
)
def test_specs_that_no_array_can_have(shape, dtype):
    with pytest.raises(CheckpointError):
        TensorSpec(shape, dtype)


def test_one_array_at_a_time(tmp_path):
    alive: list[int] = []

    class Counted(np.ndarray):
        def __del__(self):
            if self.base is None:
                alive.pop()

    def give():
        alive.append(1)
        assert len(alive) == 1
        array = np.ndarray.__new__(Counted, (10,), F32)
        array[:] = 1
        return array

    write_safetensors(tmp_path, [(f"t{i}", TensorSpec((10,), "float32"), give) for i in range(5)])
    assert alive == []


def test_mutated_headers_are_refused_or_right(craft, tmp_path):
    """Whatever bytes change in the header: one CheckpointError, or arrays that the file really holds."""
    good = craft.good(tmp_path / "x.safetensors", "abc").read_bytes()
    end = 8 + int.from_bytes(good[:8], "little")
    path, rng = tmp_path / "y.safetensors", random.Random(7)
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.randrange(end)
            data[at] = rng.choice((data[at] ^ 1 << rng.randrange(8), rng.randrange(256), ord("9"), ord('"')))
        path.write_bytes(data)
        try:
            with open_checkpoint(path) as checkpoint:
                for name, spec in checkpoint.items():
                    array = checkpoint.read(name)
                    assert (array.shape, array.dtype.name) == (spec.shape, spec.dtype)
                    assert bits(array) in bytes(data[end:])
        except CheckpointError as error:
            assert str(path) in str(error)
            refused += 1
    assert 150 < refused < 300  # a changed letter of a name is a valid file


def test_importing_imports_no_framework():
    program = (
        "import sys, tfloader.checkpoints as c; c.open_checkpoint({})\n"
        "print(sorted({'tensorflow', 'torch', 'h5py', 'keras'} & set(sys.modules)))"
    )
    root = str(Path(__file__).parents[2])
    out = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("way", ["short reads", "no preadv"])
def test_reads_that_come_in_parts(craft, tmp_path, monkeypatch, way):
    """One read gives at most 2 GB on Linux, and Windows has no preadv."""
    checkpoint = open_checkpoint(craft.good(tmp_path / "x.safetensors", "abc"))
    if way == "no preadv":
        monkeypatch.delattr(os, "preadv")
    else:
        preadv = os.preadv
        monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: preadv(fd, [buffers[0][:3]], at))
    assert [checkpoint.read(name).tolist() for name in "bca"] == [[2, 3], [4, 5], [0, 1]]
