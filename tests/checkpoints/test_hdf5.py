"""HDF5: plain datasets are read exactly; test_faults.py has what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tfloader.checkpoints import TensorSpec, open_checkpoint
from tfloader.errors import CheckpointError

h5py = pytest.importorskip("h5py", reason="reads .h5 files")


def write(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, options in datasets.items():
            file.create_dataset(name, **options)
    return path


@pytest.mark.parametrize(
    "array",
    [
        np.float32(1.5),
        np.zeros((0, 4), np.float32),
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.arange(6, dtype=">i8"),
        np.array([True, False]),
        np.arange(3, dtype=np.float16),
        np.array([np.nan, np.inf, -0.0]),
        np.arange(4, dtype=np.uint8),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_arrays_come_back(tmp_path, array):
    with open_checkpoint(write(tmp_path / "x.h5", a={"data": array})) as checkpoint:
        assert dict(checkpoint) == {"a": TensorSpec(array.shape, array.dtype.name)}
        got = checkpoint.read("a")
    assert got.dtype == array.dtype.newbyteorder("=")
    assert got.tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()
    assert got.ctypes.data % 64 == 0
    assert got.flags.writeable


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (3, 2)},
        {"chunks": (3, 2), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (3, 2), "compression": "lzf"},
    ],
    ids=["chunked", "gzip", "lzf"],
)
def test_chunks_and_compression(tmp_path, options):
    array = np.arange(35, dtype=np.float32).reshape(5, 7)
    checkpoint = open_checkpoint(write(tmp_path / "x.h5", a={"data": array, **options}))
    assert (checkpoint.read("a") == array).all()


def test_names_are_full_paths(tmp_path):
    """As Keras and transformers write them, with group attributes that say nothing here."""
    path = write(tmp_path / "tf_model.h5", **{"bert/bert/pooler/kernel:0": {"data": np.ones(2)}, "b": {"data": [1]}})
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = [b"bert"]
        file.create_group("dropout")
    assert list(open_checkpoint(tmp_path)) == ["b", "bert/bert/pooler/kernel:0"]


def test_one_array_under_two_names(tmp_path):
    path = write(tmp_path / "x.h5", a={"data": np.ones(2, np.float32)})
    with h5py.File(path, "a") as file:
        file["tied"] = file["a"]
    assert open_checkpoint(path).read("tied").tolist() == [1, 1]


def test_groups_linked_twice_do_not_multiply(tmp_path):
    """40 groups, each linked twice from the one above, have 2^40 paths."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("end")
        for i in range(40):
            above = file.create_group(f"g{i}")
            above["l"] = above["r"] = group
            group = above
    with pytest.raises(CheckpointError, match="reached by two paths"):
        open_checkpoint(tmp_path / "x.h5")


def test_damaged_data_is_said_with_the_name(tmp_path):
    path = write(
        tmp_path / "x.h5",
        a={"data": np.random.default_rng(0).random(500), "chunks": (500,), "fletcher32": True},
    )
    with h5py.File(path) as file:
        at = file["a"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[at + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"x\.h5: reading 'a' failed"):
        open_checkpoint(path).read("a")


@pytest.mark.parametrize("change", ["set_norm", "set_fields", "set_ebias"])
def test_numbers_whose_bits_lie_otherwise_are_refused(change, tmp_path):
    """h5py calls some of these float32, too, and reads them in one way or another."""
    layout = h5py.h5t.IEEE_F32LE.copy()
    getattr(layout, change)(*{"set_norm": (h5py.h5t.NORM_NONE,), "set_fields": (31, 23, 8, 0, 22)}.get(change, (126,)))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        h5py.h5d.create(file.id, b"a", layout, h5py.h5s.create_simple((2,))).write(
            h5py.h5s.ALL, h5py.h5s.ALL, np.ones(2, np.float32)
        )
    with pytest.raises(CheckpointError, match=r"'a': its (numbers are not laid out as|dtype is)"):
        open_checkpoint(tmp_path / "x.h5")


def test_a_group_that_cannot_be_read_is_not_empty(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a/kernel"], file["b/kernel"] = np.ones(2), np.zeros(2)
    content = path.read_bytes()
    place = content.rindex(b"TREE\0")
    path.write_bytes(content[: place + 4] + b"\0\1" + bytes(7) + content[place + 13 :])
    with pytest.raises(CheckpointError, match="not an intact HDF5 file"):
        open_checkpoint(path)
