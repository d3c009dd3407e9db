"""PyTorch files: tensors are read exactly, without PyTorch; nothing in such a file ever runs, and damage is noticed."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.conftest import FIXTURES
from tfloader.checkpoints import TensorSpec, open_checkpoint
from tfloader.errors import CheckpointError

TORCH = FIXTURES / "torch"
F32 = np.arange(6, dtype=np.float32).reshape(2, 3)
WRITTEN = {  # by write.py there
    "f32": F32,
    "turned": F32.T,
    "slice": np.arange(10)[3:6],
    "steps": np.arange(20.0)[::3],
    "bf16": np.arange(4).astype(ml_dtypes.bfloat16).reshape(2, 2).T,
    "f16": np.array([1.5, np.nan], np.float16),
    "i8": np.array([-1, 1], np.int8),
    "u8": np.array([255], np.uint8),
    "i16": np.array([-300], np.int16),
    "i32": np.array([[70000]], np.int32),
    "scalar": np.array(3),
    "none": np.zeros((0, 4), np.float32),
    "bool": np.array([True, False]),
    "parameter": np.ones(2, np.float32),
    "tied": F32,
    "noted": np.ones(3, np.float32),
}


@pytest.mark.parametrize("file", ["zip.bin", "protocol_4.bin", "before_1.6.bin"])
def test_tensors_come_back(file):
    expected = WRITTEN | ({"u16": np.array([60000], np.uint16)} if file == "protocol_4.bin" else {})
    with open_checkpoint(TORCH / file) as checkpoint:
        assert (checkpoint.format, checkpoint.files) == ("torch", (str(TORCH / file),))
        assert list(checkpoint) == list(expected)
        for name, array in expected.items():
            found = checkpoint.read(name)
            assert checkpoint[name] == TensorSpec(array.shape, array.dtype.name)
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            assert found.tobytes() == array.tobytes()
            assert found.flags.c_contiguous
            assert found.ctypes.data % 64 == 0
            found[...] = 0  # the caller's own
        assert checkpoint.read("tied")[1, 2] == 5


def test_reading_imports_no_torch():
    code = (
        f"import sys, tfloader; tfloader.open_checkpoint({str(TORCH / 'zip.bin')!r}).read('f32'); "
        "print(sorted({'torch', 'pickle', '_pickle', 'tensorflow'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "torch" not in found


def test_the_state_of_a_module_has_its_names():
    checkpoint = open_checkpoint(TORCH / "state_dict.bin")
    assert checkpoint.read("weight").tolist() == [[0, 1], [2, 3], [4, 5]]
    assert checkpoint.read("bias").tolist() == [7, 7, 7]
    assert not checkpoint.skipped


def test_what_the_library_reads_is_read(tmp_path):
    """Beside PyTorch itself, of the version at hand."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch's own reader")
    torch.save({"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "x.bin")
    checkpoint = open_checkpoint(tmp_path / "x.bin")
    for name, tensor in torch.load(tmp_path / "x.bin", weights_only=True).items():
        np.testing.assert_array_equal(checkpoint.read(name).astype("float32"), tensor.float().numpy())


def test_shards_follow_the_same_rules(craft, tmp_path):
    craft.torch(tmp_path / "p1.bin", {"a": np.ones(2, np.float32)})
    craft.torch(tmp_path / "p2.bin", {"b": np.zeros(2, np.float32)})
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


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("tensor.bin", ["holds a Tensor, expected a dict"]),
        ("module.bin", ["names 'torch.nn.modules.linear.Linear'", "could run code"]),
        (
            "odd.bin",
            [
                "'complex': dtype 'complex64'",
                "'sparse': it is sparse",
                "'meta': it is sparse, quantised or without data",
                "'wide': (1099511627776,) is more than its storage holds",
                "'fp8': dtype 'float8_e4m3fn'",
                "'negative': its numbers",
            ],
        ),
    ],
)
def test_content_that_is_refused(file, words):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(TORCH / file)
    assert str(TORCH / file) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_the_dicts_of_a_training_checkpoint_are_beginnings_of_names():
    checkpoint = open_checkpoint(TORCH / "training.bin")
    assert set(checkpoint) >= {"loss", "state_dict.weight", "state_dict.bias", "optimizer.state.0.exp_avg"}
    assert checkpoint.read("state_dict.weight").shape == (3, 2)
    assert checkpoint["optimizer.state.1.exp_avg"] == checkpoint["state_dict.bias"]
    assert checkpoint.skipped["epoch"] == "it is a int, not a tensor"


def test_dicts_in_circles_or_of_the_same_name_end(craft, tmp_path):
    name, inner = b"X\1\0\0\0d", b"}q\1" + b"X\1\0\0\0eh\1s"
    checkpoint = open_checkpoint(craft.torch(tmp_path / "x.bin", {"a": F32}, name + inner))
    assert (list(checkpoint), list(checkpoint.skipped)) == (["a"], ["d.e"])
    deep = b"}X\1\0\0\0e" * 10**4 + b"N" + b"s" * 10**4
    checkpoint = open_checkpoint(craft.torch(tmp_path / "y.bin", {"a": F32}, name + deep))
    assert list(checkpoint) == ["a"]


def test_what_is_no_tensor_is_skipped(craft, tmp_path):
    entry = b"X\x05\0\0\0epochK\x03"
    checkpoint = open_checkpoint(craft.torch(tmp_path / "x.pt", {"a": np.ones(1, np.float32)}, more=entry))
    assert list(checkpoint) == ["a"]
    assert list(checkpoint.skipped) == ["epoch"]


# ---- hostile pickles


def global_of(name: str) -> bytes:
    return b"c%s\n%s\n" % tuple(name.encode().rsplit(b".", 1))


HOSTILE = {
    "a call of another module": (global_of("os.mkdir") + b"(X\3\0\0\0rantR", "names 'os.mkdir'"),
    "a name alone": (global_of("os.mkdir"), "names 'os.mkdir'"),
    "a name that begins well": (global_of("torch.hub.load"), "names 'torch.hub.load'"),
    "an instance": (b"(ios\nmkdir\n", "instruction INST"),
    "an extension": (b"\x82\x01", "instruction EXT1"),
    "a call of a call": (global_of("collections.Counter") + b")R)R", "calls a Call"),
    "arguments that are none": (global_of("collections.Counter") + b"NR", "calls a Name"),
    "an object of a function": (global_of("torch._utils._rebuild_tensor_v2") + b")\x81", "which is no class"),
    "a mark that is not there": (b"ttttt", "intact pickle"),
    "an instruction that tensors do not need": (b"0", "instruction POP"),
    "an unknown note": (b"h\xff", "intact pickle"),
    "nothing after it": (b"X\xff\0\0\0short", "intact pickle"),
    "bytes that are no instruction": (b"\xff\xff", "intact pickle"),
    "items put into a number": (b"K\1K\1K\1s", "puts items where none can be"),
    "items put into a function": (global_of("collections.Counter") + b"Na", "puts items where none can be"),
    "items put into a call": (global_of("torch.Size") + b")RNNs", "puts items where none can be"),
    "attributes of a function": (global_of("collections.Counter") + b"}b", "a dict as attributes to a Name"),
    "attributes that are none": (b"}Nb", "a NoneType as attributes to a dict"),
    "a key that has no hash": (b"}]Ns", "intact pickle"),
    "an ordered dict of a number": (global_of("collections.OrderedDict") + b"K\1\x85R", "an OrderedDict of a int"),
    "an ordered dict of three": (global_of("collections.OrderedDict") + b"NNN\x87R", "intact pickle"),
    "what lies before a mark": (b"N(\x85", "takes from an empty stack"),
    "an end with more on the stack": (b"Nu}.", "intact pickle"),
    "an end before a mark's": (b"N(N.", "ends in the middle"),
    "data outside that are no storage": (b"(NNNNNtQ", "a storage of an unknown kind"),
    "a storage of no class": (b"(X\7\0\0\0storagectorch\nfloat32\nX\1\0\0\x000NK\1NtQ", "a storage of an unknown kind"),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_pickle_is_refused_and_runs_nothing(attack, zipped, craft, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value, words = HOSTILE[attack]
    path = craft.torch(tmp_path / "x.bin", {"a": np.ones(1, np.float32)}, b"X\1\0\0\0b" + value, zipped=zipped)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(path)
    assert [file.name for file in tmp_path.iterdir()] == ["x.bin"]


def test_a_class_is_no_name_of_a_tensor(craft, tmp_path):
    tensor = craft.torch(tmp_path / "one.bin", {"a": np.ones(1, np.float32)})
    with zipfile.ZipFile(tensor) as archive:
        pickled = archive.read("archive/data.pkl").replace(b"X\1\0\0\0a", global_of("torch.FloatStorage"))
        with zipfile.ZipFile(tmp_path / "x.bin", "w") as other:
            other.writestr("archive/data.pkl", pickled)
            other.writestr("archive/data/0", archive.read("archive/data/0"))
    assert list(open_checkpoint(tmp_path / "x.bin")) == ["(object)"]


def test_an_ordered_dict_as_python_2_wrote_it_is_read(craft, tmp_path):
    pairs = b"]]X\1\0\0\0xaK\7aa"  # [["x", 7]]
    more = b"X\1\0\0\0b" + global_of("collections.OrderedDict") + pairs + b"\x85R"
    assert list(open_checkpoint(craft.torch(tmp_path / "x.bin", {"a": F32}, more)).skipped) == ["b.x"]


def test_strides_of_nothing_may_be_anything(craft, tmp_path):
    path = craft.torch(tmp_path / "x.bin", {"a": F32}, sizes=(2, 0), strides=(2**64, 2**64))
    assert open_checkpoint(path).read("a").shape == (2, 0)


def test_a_call_that_would_take_memory_is_not_made(craft, tmp_path):
    huge = global_of("builtins.bytearray") + b"\x8a\x08" + struct.pack("<q", 2**60) + b"\x85R"
    checkpoint = open_checkpoint(craft.torch(tmp_path / "x.bin", {"a": np.ones(1, np.float32)}, b"X\1\0\0\0b" + huge))
    assert checkpoint.skipped["b"].startswith("it is a bytearray")


NESTED = {
    "as deep as it is long": b"]" * 10**5 + b"a" * (10**5 - 1),
    "2^60 lists if written out": b"(]q\0" + b"".join(b"(h%ch%clq%c" % (i, i, i + 1) for i in range(60)) + b"l",
}


@pytest.mark.parametrize("lists", NESTED)
def test_nested_lists_end(lists, craft, tmp_path):
    checkpoint = open_checkpoint(craft.torch(tmp_path / "x.bin", {"z": F32}, b"X\1\0\0\0b" + NESTED[lists]))
    assert list(checkpoint.skipped) == ["b"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_another_pickle_is_no_file_of_tensors(tmp_path):
    (tmp_path / "x.bin").write_bytes(pickle.dumps({"a": [1]}))
    with pytest.raises(CheckpointError, match=r"x\.bin: this is no intact PyTorch file"):
        open_checkpoint(tmp_path / "x.bin")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sizes": (3, 2), "strides": (3,)}, "not described as PyTorch does"),
        ({"sizes": (7,), "strides": (1,)}, "more than its storage holds"),
        ({"strides": (7, 1)}, "more than its storage holds"),
        ({"strides": (-1, 1)}, "not described as PyTorch does"),
        ({"offset": 1}, "more than its storage holds"),
        ({"offset": -1}, "not described as PyTorch does"),
        ({"sizes": (2**40, 2**40)}, "larger than any memory"),
        ({"count": 100}, "cut short"),
        ({"kind": "Wide"}, "dtype 'Wide'"),
    ],
)
def test_a_tensor_that_contradicts_its_storage_is_refused(change, words, craft, tmp_path):
    path = craft.torch(tmp_path / "x.bin", {"a": F32}, **change)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(path)


# ---- the archive


def test_compressed_members_are_refused(tmp_path):
    with zipfile.ZipFile(TORCH / "zip.bin") as source, zipfile.ZipFile(tmp_path / "x.bin", "w", 8) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(CheckpointError, match="members are compressed"):
        open_checkpoint(tmp_path / "x.bin")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(craft, tmp_path):
    path = craft.torch(tmp_path / "x.bin", {"a": F32})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", bytes(24))
    with pytest.raises(CheckpointError, match="is there twice"):
        open_checkpoint(path)


def test_a_member_that_is_not_where_the_directory_says_is_refused(tmp_path):
    """Its checksum would be that of other bytes of the same length."""
    data = (TORCH / "zip.bin").read_bytes()
    (tmp_path / "x.bin").write_bytes(data.replace(b"zip/data/3", b"zip/data/9", 1))
    with pytest.raises(CheckpointError, match="is not where it is said to be"):
        open_checkpoint(tmp_path / "x.bin")


@pytest.mark.parametrize("file", ["zip.bin", "before_1.6.bin"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short(file, share, tmp_path):
    data = (TORCH / file).read_bytes()
    (tmp_path / "x.bin").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=r"x\.bin"):
        open_checkpoint(tmp_path / "x.bin")


def flipped(source: Path, target: Path, at: bytes) -> Path:
    """A copy with the last bit of some bytes turned."""
    data = bytearray(source.read_bytes())
    data[data.index(at) + len(at) - 1] ^= 1
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("name", ["f32", "turned", "tied"])
def test_a_flipped_bit_is_noticed(name, tmp_path):
    checkpoint = open_checkpoint(flipped(TORCH / "zip.bin", tmp_path / "x.bin", F32.tobytes()))
    assert checkpoint.read("i32") == 70000
    if name == "turned":  # has its own storage, a copy of the same bytes
        assert checkpoint.read(name)[2, 1] == 5
    else:
        with pytest.raises(CheckpointError, match=rf"x\.bin: reading '{name}' failed: the data's checksum"):
            checkpoint.read(name)


def test_a_flipped_bit_beside_the_part_that_is_read_is_noticed(tmp_path):
    checkpoint = open_checkpoint(flipped(TORCH / "zip.bin", tmp_path / "x.bin", np.arange(10).tobytes()[:-7]))
    with pytest.raises(CheckpointError, match="reading 'slice' failed: the data's checksum"):
        checkpoint.read("slice")


def test_a_flipped_bit_in_the_description_is_noticed(tmp_path):
    path = flipped(TORCH / "zip.bin", tmp_path / "x.bin", b"turned")
    with pytest.raises(CheckpointError, match=r"checksum of '.*data\.pkl' does not match"):
        open_checkpoint(path)


def test_a_file_without_checksums_is_read():
    assert open_checkpoint(TORCH / "no_crc.bin").read("a").tolist() == [0, 1, 2, 3]
