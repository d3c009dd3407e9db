"""PyTorch files: tensors are read exactly, and nothing in such a file ever runs."""

from __future__ import annotations

import os
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest

from tfloader.checkpoints import TensorSpec, open_checkpoint
from tfloader.errors import CheckpointError

torch = pytest.importorskip("torch", reason="reads .bin files")


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_tensors_come_back(tmp_path, zipped):
    tensors = {
        "f32": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "turned": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
        "slice": torch.arange(10)[3:6],
        "bf16": torch.arange(4, dtype=torch.bfloat16).reshape(2, 2).T,
        "f16": torch.tensor([1.5, float("nan")], dtype=torch.float16),
        "scalar": torch.tensor(3),
        "none": torch.zeros(0, 4),
        "bool": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    tensors["tied"] = tensors["f32"]
    path = saved(tmp_path / "pytorch_model.bin", tensors, _use_new_zipfile_serialization=zipped)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == "torch"
        assert checkpoint.files == (str(path),)
        assert list(checkpoint) == list(tensors)
        for name, tensor in tensors.items():
            array = checkpoint.read(name)
            wide = array.astype(np.float64) if array.dtype == ml_dtypes.bfloat16 else array
            expected = tensor.detach().double() if tensor.dtype == torch.bfloat16 else tensor.detach()
            assert checkpoint[name] == TensorSpec(array.shape, array.dtype.name)
            np.testing.assert_array_equal(wide, expected.numpy(), strict=True)
            assert array.flags.c_contiguous
            assert array.ctypes.data % 64 == 0
            array[...] = 0  # the caller's own, even of a memory map
        assert checkpoint.read("tied")[1, 2] == 5
    assert checkpoint["bf16"].dtype == "bfloat16"


def test_shards_follow_the_same_rules(craft, tmp_path):
    saved(tmp_path / "p1.bin", {"a": torch.ones(2)})
    saved(tmp_path / "p2.bin", {"b": torch.zeros(2)})
    index = craft.index(tmp_path, {"a": "p1.bin", "b": "p2.bin"}, "bin")
    for source in (index, tmp_path):
        with open_checkpoint(source) as checkpoint:
            assert checkpoint.read("b").tolist() == [0, 0]
    craft.index(tmp_path, {"a": "p2.bin", "b": "../p1.bin"}, "bin")
    with pytest.raises(CheckpointError, match="plain file names"):
        open_checkpoint(tmp_path)
    craft.index(tmp_path, {"a": "p2.bin", "b": "p2.bin"}, "bin")
    with pytest.raises(CheckpointError, match=r"'a' should be in p2\.bin, but is not"):
        open_checkpoint(tmp_path)


class Hostile:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_hostile_pickle_runs_nothing(tmp_path, zipped):
    path = saved(
        tmp_path / "x.bin",
        {"a": torch.ones(1), "b": Hostile(str(tmp_path / "ran"))},
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(CheckpointError, match=r"x\.bin: PyTorch refuses"):
        open_checkpoint(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.ones(2), "holds a Tensor, expected a dict"),
        ({"model": {"a": torch.ones(1)}}, "'model': it is a dict"),
        ({"c": torch.ones(1, dtype=torch.complex64)}, "complex64"),
        ({"s": torch.eye(3).to_sparse()}, "sparse"),
        ({"m": torch.empty(3, device="meta")}, "without data"),
        ({"wide": torch.ones(1).expand(2**40)}, "more than its storage holds"),
    ],
)
def test_content_that_is_refused(tmp_path, content, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        open_checkpoint(saved(tmp_path / "x.bin", content))
    assert str(tmp_path / "x.bin") in str(caught.value)


def test_what_is_no_tensor_is_skipped(tmp_path):
    path = saved(tmp_path / "x.pt", {"a": torch.ones(1), "epoch": 3, 5: torch.ones(1)})
    checkpoint = open_checkpoint(path)
    assert list(checkpoint) == ["a"]
    assert sorted(checkpoint.skipped) == ["5", "epoch"]


def test_compressed_members_are_refused(tmp_path):
    """Memory-mapped, their compressed bytes would be taken for numbers."""
    plain = saved(tmp_path / "plain.bin", {"a": torch.zeros(1000)})
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(tmp_path / "x.bin", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(CheckpointError, match="members of this PyTorch file are compressed"):
        open_checkpoint(tmp_path / "x.bin")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_file_cut_short(tmp_path, zipped):
    path = saved(tmp_path / "x.bin", {"a": torch.ones(1000)}, _use_new_zipfile_serialization=zipped)
    os.truncate(path, path.stat().st_size - 600)
    with pytest.raises(CheckpointError, match=r"x\.bin"):
        open_checkpoint(path)


def test_without_torch_the_error_says_how_to_convert(tmp_path, monkeypatch):
    path = saved(tmp_path / "x.bin", {"a": torch.ones(1)})
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CheckpointError, match=r"(?s)x\.bin.*pip install torch.*save_file"):
        open_checkpoint(path)


@pytest.mark.parametrize("version", ["2.5.1", "1.13.0+cu117", "nonsense"])
def test_old_versions_are_refused(tmp_path, monkeypatch, version):
    path = saved(tmp_path / "x.bin", {"a": torch.ones(1)})
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("must not be called"))
    with pytest.raises(CheckpointError, match=r"CVE-2025-32434.*2\.6"):
        open_checkpoint(path)
