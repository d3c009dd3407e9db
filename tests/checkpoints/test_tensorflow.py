"""TensorFlow checkpoints: the index reader agrees with TensorFlow, and hostile indexes never reach it."""

from __future__ import annotations

import itertools
import os
import random
import struct
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

from tfloader.checkpoints import TensorSpec, open_checkpoint, tensorflow_writer, write_tensorflow
from tfloader.checkpoints.bundle import read_bundle
from tfloader.checkpoints.table import DamagedError, crc32c, decompress_snappy, read_table
from tfloader.errors import CheckpointError

tf = pytest.importorskip("tensorflow", reason="TensorFlow reads the data of its checkpoints")
ROOT = str(Path(__file__).parents[2])
VARIED = {
    "f16": np.arange(3, dtype=np.float16),
    "bf16": np.arange(4).astype(ml_dtypes.bfloat16).reshape(2, 2),
    "f64": np.array([np.nan, np.inf, -0.0]),
    "scalar": np.float32(1.5),
    "none": np.zeros((0, 5), np.int32),
    "bool": np.array([[True], [False]]),
    "u8": np.arange(7, dtype=np.uint8),
    "i64": np.array(-3),
    "model/layer_0/kernel:0": np.ones((2, 3, 1), np.float32),
    "x/.ATTRIBUTES/VARIABLE_VALUE": np.ones(1, np.float32),
    "ä/\U0001f600": np.ones(2, np.float32),
}


def same_as_tensorflow(prefix) -> None:
    reader = tf.train.load_checkpoint(str(prefix))
    checkpoint = open_checkpoint(prefix)
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    assert sorted([*checkpoint, *checkpoint.skipped]) == sorted(shapes)
    for name, spec in checkpoint.items():
        assert spec == TensorSpec(tuple(shapes[name]), dtypes[name].name)
        array = checkpoint.read(name)
        assert (array.shape, array.dtype) == (spec.shape, spec.numpy_dtype)
        assert array.tobytes() == np.asarray(reader.get_tensor(name)).tobytes()
        assert checkpoint.read_tensor(name).dtype == dtypes[name]


def test_every_dtype_and_shape(craft, tmp_path):
    same_as_tensorflow(craft.tensorflow(tmp_path / "m", VARIED))


def test_many_tensors_in_several_blocks(craft, tmp_path):
    """Blocks of the index end after 256 kB, so this takes thousands of long names."""
    arrays = {f"{i * 7919 % 9973}/{'scope/' * 20}{i}": np.int32(i) for i in range(4000)}
    prefix = craft.tensorflow(tmp_path / "m", arrays)
    assert os.path.getsize(f"{prefix}.index") > 2 * 256 * 1024
    checkpoint = open_checkpoint(prefix)
    assert sorted(checkpoint) == sorted(arrays)
    assert {spec for _, spec in checkpoint.items()} == {TensorSpec((), "int32")}
    for name in list(arrays)[::999]:
        assert checkpoint.read(name) == arrays[name]


@pytest.mark.parametrize("rows", [3, 63, 64, 65, 8191, 8192, 20000])
@pytest.mark.parametrize("columns", ["-", "0,2"])
def test_variables_in_pieces(tmp_path, rows, columns):
    whole = np.random.default_rng(0).standard_normal((rows, 2)).astype(np.float32)
    pieces = list(itertools.pairwise([0, 1, rows // 2 + 1, rows]))
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "m"),
        tensor_names=["ä/part"] * 3 + ["other"],
        shape_and_slices=[f"{rows} 2 {a},{b - a}:{columns}" for a, b in pieces] + [""],
        tensors=[tf.constant(whole[a:b]) for a, b in pieces] + [tf.constant(1)],
    )
    checkpoint = open_checkpoint(tmp_path / "m")
    assert dict(checkpoint) == {"ä/part": TensorSpec((rows, 2), "float32"), "other": TensorSpec((), "int32")}
    assert checkpoint.read("ä/part").tobytes() == whole.tobytes()


def test_strings_and_complex_numbers_are_left_out(craft, tmp_path):
    prefix = craft.tensorflow(tmp_path / "m", {"s": np.array([b"x"]), "c": np.ones(1, complex), "a": np.ones(1)})
    checkpoint = open_checkpoint(prefix)
    assert list(checkpoint) == ["a"]
    assert {name: reason.split(",")[0] for name, reason in checkpoint.skipped.items()} == {
        "s": "its dtype is TensorFlow's string",
        "c": "its dtype is TensorFlow's complex128",
    }
    with pytest.raises(CheckpointError, match="'s' cannot be read: its dtype is TensorFlow's string"):
        checkpoint.read("s")


def test_object_graph_checkpoints(tmp_path):
    path = tf.train.Checkpoint(v=tf.Variable([1.0, 2.0])).write(str(tmp_path / "ck"))
    checkpoint = open_checkpoint(path)
    assert list(checkpoint) == ["v/.ATTRIBUTES/VARIABLE_VALUE"]
    assert list(checkpoint.skipped) == ["_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert checkpoint.read("v/.ATTRIBUTES/VARIABLE_VALUE").tolist() == [1, 2]


@pytest.mark.parametrize(
    "spelling",
    ["m.ckpt-1", "m.ckpt-1.index", "m.ckpt-1.data-00000-of-00001", "m.ckpt-1.meta", "checkpoint", ""],
)
def test_every_way_to_name_a_checkpoint(craft, tmp_path, spelling):
    craft.tensorflow(tmp_path / "m.ckpt-1")
    craft.tensorflow(tmp_path / "m.ckpt-2")
    (tmp_path / "m.ckpt-1.meta").write_bytes(b"a graph")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/home/x/run/m.ckpt-1"\n')
    checkpoint = open_checkpoint(tmp_path / spelling)
    assert checkpoint.path == str(tmp_path / "m.ckpt-1")
    assert checkpoint.read("b/c") == 7


def test_the_only_checkpoint_of_a_folder_and_relative_paths(craft, tmp_path, monkeypatch):
    craft.tensorflow(tmp_path / "m.ckpt")
    assert open_checkpoint(tmp_path).path == str(tmp_path / "m.ckpt")
    monkeypatch.chdir(tmp_path)
    assert open_checkpoint("m.ckpt").read("b/c") == 7
    assert open_checkpoint(".").read("b/c") == 7


def test_listing_needs_no_tensorflow(craft, tmp_path):
    craft.tensorflow(tmp_path / "m")
    program = (
        "import sys; from tfloader.checkpoints import open_checkpoint\n"
        "c = open_checkpoint(sys.argv[1]); print(c['a'], 'tensorflow' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == "TensorSpec(shape=(2, 3), dtype='float32') False"


def test_reads_are_not_copied(craft, tmp_path):
    checkpoint = open_checkpoint(craft.tensorflow(tmp_path / "m", {"x": np.ones(1000, np.float32)}))
    array = checkpoint.read("x")
    assert not array.flags.owndata
    assert array.ctypes.data % 64 == 0
    assert checkpoint.read("x").ctypes.data != array.ctypes.data


def test_reads_inside_of_a_tf_function_being_traced(craft, tmp_path):
    checkpoint = open_checkpoint(craft.tensorflow(tmp_path / "m"))
    seen = []
    tf.function(lambda: seen.append(checkpoint.read("b/c")))()
    assert seen == [7]


def test_reads_from_two_threads(tmp_path, craft):
    arrays = {f"t{i}": np.full(5000, i, np.float32) for i in range(60)}
    checkpoint, wrong = open_checkpoint(craft.tensorflow(tmp_path / "m", arrays)), []

    def read_all():
        wrong.extend(name for name in checkpoint if not (checkpoint.read(name) == arrays[name]).all())

    threads = [threading.Thread(target=read_all) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# The index's parts


def test_crc32c():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


@pytest.mark.parametrize(
    ("packed", "plain"),
    [
        (b"\x00", b""),
        (b"\x03\x08abc", b"abc"),
        (b"\x0a\x00a\x15\x01", b"a" * 10),  # a copy that overlaps its own output
        (b"\x08\x0cabcd\x0e\x04\x00", b"abcdabcd"),
        (b"\x08\x0cabcd\x0f\x04\x00\x00\x00", b"abcdabcd"),
        (b"\x46\xf0\x45" + b"x" * 70, b"x" * 70),
        (b"\x80\x04\xf4\xff\x01" + b"y" * 512, b"y" * 512),
    ],
)
def test_snappy(packed, plain):
    assert decompress_snappy(packed) == plain


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x05\x08abc",
        b"\x02\x08abc",
        b"\x05\x01\x01",
        b"\x05\x00a\x01\x02",
        b"\xff\xff\xff\xff\x0f\x00a",
        b"\x04\xf0",
        b"\x08\x0cabcd\x0e\x04",
    ],
)
def test_damaged_snappy(packed):
    with pytest.raises(DamagedError):
        decompress_snappy(packed)


def test_an_index_in_snappy(craft, tmp_path):
    """Google's own T5 checkpoints are written like this."""
    prefix = craft.tensorflow(tmp_path / "m", {"a": np.ones(2, np.float32)})
    plain = read_bundle(f"{prefix}.index")
    index = Path(f"{prefix}.index").read_bytes()

    def literal(body: bytes) -> bytes:  # all of it as one Snappy literal with a length of two bytes
        return bytes([len(body) & 127 | 128, len(body) >> 7, 61 << 2]) + struct.pack("<H", len(body) - 1) + body

    packed = craft.table(list(read_table(index)), 1, literal)
    assert packed != index
    Path(f"{prefix}.index").write_bytes(packed)
    assert read_bundle(f"{prefix}.index") == plain
    same_as_tensorflow(prefix)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": 0},
        {"dtype": 2},
        {"shape": (1, 2)},
        {"shape": (2,)},
        {"nbytes": 8},
        {"shape": (1, 2), "nbytes": 8},
        {"shape": (4,)},
    ],
)
def test_a_piece_that_is_not_as_announced_is_refused(craft, tmp_path, change):
    """TensorFlow 2.21 aborts the process on the first of these."""
    prefix = tmp_path / "m"
    craft.tensorflow(prefix, {"x": np.ones((4, 2), np.float32)})
    # Rows 0 and 1, and rows 2 and 3; of each all columns.
    slices = b"\x3a\x06\x0a\x02\x10\x02\x0a\x00" + b"\x3a\x08\x0a\x04\x08\x02\x10\x02\x0a\x00"
    good = {"dtype": 1, "shape": (2, 2), "nbytes": 16}

    def index(second: dict) -> bytes:
        return craft.table(
            [
                (b"", b"\x08\x01"),
                (b"\0x\0\1\1\2\x80\x82\x80\x7f", craft.entry(**good)),
                (b"\0x\0\1\1\2\x82\x82\x80\x7f", craft.entry(**second, offset=16)),
                (b"x", craft.entry(1, (4, 2), more=slices)),
            ]
        )

    Path(f"{prefix}.index").write_bytes(index(good))
    assert open_checkpoint(prefix)["x"].shape == (4, 2)
    Path(f"{prefix}.index").write_bytes(index(good | change))
    with pytest.raises(CheckpointError, match=r"piece of ('x'|a variable)"):
        open_checkpoint(prefix)


def test_pieces_that_leave_a_gap_are_refused(craft, tmp_path):
    prefix = craft.tensorflow(tmp_path / "m", {"x": np.ones((4, 2), np.float32)})
    half = craft.entry(1, (4, 2), more=b"\x3a\x06\x0a\x02\x10\x02\x0a\x00")
    pairs = [
        (b"", b"\x08\x01"),
        (b"\0x\0\1\1\2\x80\x82\x80\x7f", craft.entry(1, (2, 2), nbytes=16)),
        (b"x", half),
    ]
    Path(f"{prefix}.index").write_bytes(craft.table(pairs))
    with pytest.raises(CheckpointError, match="do not add up"):
        open_checkpoint(prefix)


@pytest.mark.parametrize("resealed", [False, True], ids=["any bytes", "with valid checksums"])
def test_mutated_indexes_are_refused_or_right(craft, tmp_path, resealed):
    """Only a CheckpointError or the tensors as they were: each tensor's own checksum guards its data.

    A mutation may rename a tensor, or change its shape or dtype to one of as many bytes; not its bytes.
    """
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b/long": np.int64(7),
        "b/longer": np.ones(3),
    }
    good_prefix = craft.tensorflow(tmp_path / "good", arrays)
    good = Path(f"{good_prefix}.index").read_bytes()
    prefix = tmp_path / "m"
    Path(f"{prefix}.data-00000-of-00001").write_bytes(Path(f"{good_prefix}.data-00000-of-00001").read_bytes())
    contents = {np.asarray(array).tobytes() for array in arrays.values()} | {b""}
    rng, refused, read = random.Random(3), 0, 0
    for _ in range(250):
        data = bytearray(good)
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.randrange(len(data) - (48 if resealed else 0))
            data[at] = rng.choice((data[at] ^ 1 << rng.randrange(8), rng.randrange(256), 0, 127, 128, 255))
        Path(f"{prefix}.index").write_bytes(craft.resealed(bytes(data)) if resealed else data)
        try:
            checkpoint = open_checkpoint(prefix)
        except CheckpointError as error:
            assert str(prefix) in str(error)
            refused += 1
            continue
        for name in checkpoint:
            try:
                assert checkpoint.read(name).tobytes() in contents
                read += 1
            except CheckpointError as error:
                assert str(prefix) in str(error)
    assert refused > 100
    assert read > 10 if resealed else True


@given(st.binary(max_size=200))
def test_any_bytes_as_an_index(craft, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.index"
        for content in (
            data,
            data + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb",
            craft.table([(b"", b"\x08\x01"), (b"a", data)]),
        ):
            path.write_bytes(content)
            try:
                open_checkpoint(path)
            except CheckpointError as error:
                assert str(path)[:-6] in str(error)


# Writing


def test_what_is_written_is_what_tensorflow_reads(craft, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorflow_writer, "_GROUP_BYTES", 20)  # several groups
    arrays = {name: np.asarray(array) for name, array in VARIED.items()}
    arrays["turned"] = np.arange(6, dtype=np.float32).reshape(2, 3).T
    arrays["big-endian"] = np.arange(3, dtype=">f4")
    paths = write_tensorflow(tmp_path / "out" / "model.ckpt", craft.items(arrays))
    assert [os.path.basename(path) for path in paths[-2:]] == ["model.ckpt.index", "checkpoint"]
    assert len(paths) > 4
    assert sorted(os.listdir(tmp_path / "out")) == sorted(map(os.path.basename, paths))
    assert tf.train.latest_checkpoint(str(tmp_path / "out")) == str(tmp_path / "out" / "model.ckpt")
    same_as_tensorflow(tmp_path / "out" / "model.ckpt")
    checkpoint = open_checkpoint(tmp_path / "out")
    for name, array in arrays.items():
        assert checkpoint.read(name).tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()


def test_a_new_save_replaces_the_old_one(craft, tmp_path, monkeypatch):
    many = {name: np.ones(10, np.float32) for name in "abc"}
    monkeypatch.setattr(tensorflow_writer, "_GROUP_BYTES", 40)
    write_tensorflow(tmp_path / "m", craft.items(many))
    monkeypatch.undo()
    (tmp_path / "m2.index").write_bytes(b"not ours")
    write_tensorflow(tmp_path / "m", craft.items({"a": np.zeros(10, np.float32)}))
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "m.data-00000-of-00001", "m.index", "m2.index"]
    assert not open_checkpoint(tmp_path / "m").read("a").any()


def test_saving_over_the_checkpoint_being_read(craft, tmp_path):
    prefix = craft.tensorflow(tmp_path / "m")
    old = open_checkpoint(prefix)
    write_tensorflow(prefix, [(name, spec, lambda name=name: old.read(name) * 2) for name, spec in old.items()])
    assert open_checkpoint(prefix).read("b/c") == 14


def test_a_failure_leaves_the_old_files(craft, tmp_path):
    prefix = craft.tensorflow(tmp_path / "m")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    spec = TensorSpec((2,), "float32")
    for second, error in (
        (lambda: np.ones(3, np.float32), CheckpointError),
        (lambda: 1 / 0, ZeroDivisionError),
    ):
        with pytest.raises(error):
            write_tensorflow(prefix, [("a", spec, lambda: np.ones(2, np.float32)), ("b", spec, second)])
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("prefix", "names", "words"),
    [
        ("m", [], "no tensors"),
        ("m", ["a", "a"], "comes twice"),
        ("m", [""], "not a name"),
        ("m", ["\0a"], "NUL"),
        ("m*", ["a"], "pattern"),
        ('m"', ["a"], "not a usable prefix"),
    ],
)
def test_what_cannot_be_written(tmp_path, prefix, names, words):
    items = [(name, TensorSpec((), "float32"), lambda: np.float32(1)) for name in names]
    with pytest.raises(CheckpointError, match=words):
        write_tensorflow(tmp_path / "new" / prefix, items)
    assert not (tmp_path / "new").exists()
