"""TensorFlow checkpoints: `<prefix>.index` with `<prefix>.data-00000-of-00001` and so on.

The index is read here, without TensorFlow, and checked against the sizes of the data files, so a truncated
download is found before anything is loaded. The data are read by TensorFlow, which checks each tensor's CRC.
"""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING

import numpy as np

from tfloader.checkpoints.base import DTYPES, Checkpoint, TensorSpec, Watch, show
from tfloader.checkpoints.bundle import Bundle, read_bundle
from tfloader.checkpoints.files import describe, reading, sniff
from tfloader.errors import CheckpointError, listing

if TYPE_CHECKING:
    import tensorflow as tf

# TensorFlow's numbers of the dtypes (types.proto).
_NAMES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool",
    14: "bfloat16", 17: "uint16", 19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip
_OTHER_DTYPES = {
    7: "string", 8: "complex64", 11: "qint8", 12: "quint8", 13: "qint32", 15: "qint16", 16: "quint16",
    18: "complex128", 20: "resource", 21: "variant",
}  # fmt: skip


class TensorflowCheckpoint(Checkpoint):
    """The checkpoint `<prefix>.index` and its data files. Opening it does not import TensorFlow."""

    format = "tensorflow"

    def __init__(self, prefix: str) -> None:
        check_prefix(prefix)
        index = f"{prefix}.index"
        bundle = read_bundle(index)
        specs, skipped = _specs(index, bundle)
        data = _check_data_files(prefix, bundle)
        super().__init__(prefix, tuple(map(Watch, (index, *data))), specs, skipped)

    def read_tensor(self, name: str) -> tf.Tensor:
        """Reads one tensor as TensorFlow gives it, on the CPU and without a copy; see `read`."""
        import tensorflow as tf

        try:
            with self._reading(name) as spec, tf.init_scope(), tf.device("CPU:0"):
                dtypes = [tf.dtypes.as_dtype(spec.dtype)]
                (tensor,) = tf.raw_ops.RestoreV2(
                    prefix=self.path, tensor_names=[name], shape_and_slices=[""], dtypes=dtypes
                )
        # A short read is a plain IndexError; everything else is an OpError.
        except (tf.errors.OpError, IndexError) as error:
            reason = str(getattr(error, "message", error))
            reason = re.sub(r"^\{\{.*?\}\} |\s*\[Op:\w+\].*", "", reason)  # which node of a graph of ours it was
            if "checksum" in reason.lower():
                reason = "the data's checksum does not match, so the file is damaged"
            raise CheckpointError(
                f"{self.path}: reading {show(name)} failed: {reason[:500]}. Download it again."
            ) from error
        if tuple(tensor.shape) != spec.shape:
            raise CheckpointError(
                f"{self.path}: {show(name)} came as {tuple(tensor.shape)}, but the index says {spec.shape}. "
                "Download it again."
            )
        return tensor

    def _read(self, name: str, spec: TensorSpec) -> np.ndarray:
        import tensorflow as tf

        tensor = self.read_tensor(name)
        # Neither DLPack in numpy nor the buffer protocol knows bfloat16; its bits are a view as well.
        if spec.dtype == "bfloat16":
            tensor = tf.bitcast(tensor, tf.uint16)
        return np.asarray(memoryview(tensor)).view(spec.numpy_dtype).reshape(spec.shape)


def check_prefix(prefix: str) -> None:
    """Refuses paths that TensorFlow takes for patterns, and then does not find."""
    found = sorted({c for c in prefix if c in "*?[" or (c == "\\" and os.sep == "/")})
    if found:
        raise CheckpointError(
            f"{prefix}: TensorFlow takes {' '.join(found)} in a path for a pattern, and then cannot read it. "
            "Rename or move the folder, or open it with a relative path."
        )


def _specs(path: str, bundle: Bundle) -> tuple[dict[str, TensorSpec], dict[str, str]]:
    """The tensors of numbers, and the rest as {name: reason}; disagreeing sizes are an error."""
    specs: dict[str, TensorSpec] = {}
    skipped: dict[str, str] = {}
    problems = []
    for name, entry in bundle.tensors.items():
        dtype = _NAMES.get(entry.dtype)
        if dtype is None:
            found = _OTHER_DTYPES.get(entry.dtype, f"number {entry.dtype}")
            skipped[name] = f"its dtype is TensorFlow's {found}, which is not supported"
            continue
        try:
            spec = TensorSpec(entry.shape, dtype)
        except CheckpointError as error:
            problems.append(f"{show(name)}: {error}")
            continue
        if not entry.pieces and entry.nbytes != spec.nbytes:
            problems.append(
                f"{show(name)}: {dtype} {spec.shape} takes {spec.nbytes} bytes, but {entry.nbytes} are stored"
            )
        specs[name] = spec
    for piece in bundle.pieces.values():
        dtype = _NAMES.get(piece.dtype)
        if dtype and piece.nbytes != math.prod(piece.shape) * DTYPES[dtype].itemsize:
            problems.append(f"a piece of a variable: {dtype} {piece.shape}, but {piece.nbytes} bytes are stored")
    if problems:
        raise CheckpointError(f"{path}: its entries contradict themselves. Download it again:\n{listing(problems)}")
    return specs, skipped


def _check_data_files(prefix: str, bundle: Bundle) -> tuple[str, ...]:
    """The data files in use, each there and large enough for what the index says it holds."""
    files, problems = [], []
    for shard, end in sorted(bundle.extents().items()):
        file = f"{prefix}.data-{shard:05d}-of-{bundle.shards:05d}"
        files.append(file)
        try:
            with reading(file):
                kind, size = sniff(file), os.path.getsize(file)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if size < end:
            what = "" if kind == "unknown" else f"; it is {describe(kind)}"
            problems.append(f"{file}: {size} bytes, but the index needs at least {end}{what}")
    if problems:
        raise CheckpointError(
            f"{prefix}: data files are missing or cut short. Download them again and keep them next to "
            f"{prefix}.index:\n{listing(problems)}"
        )
    return tuple(files)
