"""Which of a folder's files is taken."""

from __future__ import annotations

import numpy as np
import pytest

from tfloader.checkpoints import open_checkpoint

KINDS = ["sharded", "safetensors", "tensorflow", "hdf5", "torch"]


def put(kind: str, craft, folder) -> None:
    if kind == "sharded":
        craft.good(folder / "shard.safetensors")
        craft.index(folder, {"a": "shard.safetensors"})
    elif kind == "safetensors":
        craft.good(folder / "model.safetensors")
    elif kind == "tensorflow":
        craft.tensorflow(folder / "model.ckpt")
    elif kind == "hdf5":
        h5py = pytest.importorskip("h5py", reason="writes .h5 files")
        with h5py.File(folder / "tf_model.h5", "w") as file:
            file["a"] = np.ones(2)
    elif kind == "torch":
        craft.torch(folder / "pytorch_model.bin", {"a": np.ones(2, np.float32)})


@pytest.mark.parametrize("first", range(len(KINDS)))
def test_the_order_of_preference(craft, tmp_path, first):
    for kind in KINDS[first:]:
        put(kind, craft, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "training_args.bin").write_bytes(b"a pickle")
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert checkpoint.format == ("safetensors" if KINDS[first] == "sharded" else KINDS[first])
        assert checkpoint.path.endswith("index.json") == (first == 0)
        assert "a" in checkpoint
        assert "b" not in checkpoint
        assert 3 not in checkpoint
        assert len(checkpoint) == len(list(checkpoint)) == len(checkpoint.items())
        assert checkpoint.format in repr(checkpoint)
        assert checkpoint["a"].size == (6 if checkpoint.format == "tensorflow" else 2)


def test_the_only_file_of_any_name(craft, tmp_path):
    craft.good(tmp_path / "weights.safetensors")
    assert list(open_checkpoint(tmp_path)) == ["a"]


def test_a_link_that_the_user_gives_is_followed(craft, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "m.safetensors").symlink_to(craft.good(tmp_path / "real"))
    assert list(open_checkpoint(tmp_path / "in" / "m.safetensors")) == ["a"]
