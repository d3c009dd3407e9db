"""HDF5 files of weights, such as `tf_model.h5`: every dataset is a tensor, named by its full path.

HDF5 can point out of the file, compute data, and declare far more than it stores. h5py follows all of that
silently, so everything but plain datasets that are stored in the file itself is refused here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfloader.checkpoints.base import DTYPES, Checkpoint, TensorSpec, Watch, aligned_empty, show
from tfloader.checkpoints.files import expect
from tfloader.errors import CheckpointError, listing

# Filters that cannot expand data without bound: at most one of the compressions, which reach about 1000:1.
_COMPRESSIONS = {1: "gzip", 4: "szip", 32000: "lzf"}
_MAX_PADDING = 8  # times the data: the chunks at the edges reach over them
_CHECKS = {2: "shuffle", 3: "fletcher32"}


class Hdf5Checkpoint(Checkpoint):
    """One HDF5 file. Names have no leading slash and keep a `:0` at the end."""

    format = "hdf5"

    def __init__(self, path: str) -> None:
        expect(path, "an HDF5 file", "hdf5")
        import h5py.h5o

        try:
            self._file = h5py.File(path, "r", locking="best-effort")
            watch = Watch(path, self._file.id.get_vfd_handle())
            h5py.h5o.visit(self._file.id, lambda name: None)  # or else a group that cannot be read looks empty
            specs, problems = _walk(self._file)
        except Exception as error:  # the C library reports damage as whatever h5py maps it to
            self.close()
            raise CheckpointError(
                f"{path}: not an intact HDF5 file: {error}. It may be cut short; download it again."
            ) from error
        if problems:
            self.close()
            raise CheckpointError(
                f"{path}: holds more than plain arrays of numbers that are stored in the file itself, so it "
                f"is not read. Get the weights as safetensors, or from whom you trust:\n{listing(problems)}"
            )
        super().__init__(path, (watch,), specs)

    def _read(self, name: str, spec: TensorSpec) -> np.ndarray:
        result = aligned_empty(spec.shape, spec.dtype)
        try:
            if spec.size:
                self._file[name].read_direct(result)  # also turns big-endian data into native
        except Exception as error:
            raise CheckpointError(
                f"{self.path}: reading {show(name)} failed: {error}. Download the file again."
            ) from error
        return result


def _walk(file: Any) -> tuple[dict[str, TensorSpec], list[str]]:
    """All datasets, and all that is wrong. Each group is entered once, so cycles of hard links end."""
    import h5py

    specs: dict[str, TensorSpec] = {}
    problems: list[str] = []
    seen = {file["/"]}
    stack: list[tuple[str, Any]] = [("", file["/"])]
    while stack:
        prefix, group = stack.pop()
        for key in group:
            name = f"{prefix}{key}"
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                where = f"{getattr(link, 'filename', '')}{getattr(link, 'path', '')}"
                kind = "an external" if isinstance(link, h5py.ExternalLink) else "a soft"
                problems.append(f"{show(name)}: {kind} link to {show(where)}")
                continue
            item = group[key]
            if isinstance(item, h5py.Dataset):
                try:
                    specs[name] = _spec(item)
                except CheckpointError as error:
                    problems.append(f"{show(name)}: {error}")
            elif isinstance(item, h5py.Group) and item in seen:
                problems.append(f"{show(name)}: a group that is reached by two paths")
            elif isinstance(item, h5py.Group):
                seen.add(item)
                stack.append((f"{name}/", item))
            else:
                problems.append(f"{show(name)}: a {type(item).__name__}, which is neither an array nor a group")
    return dict(sorted(specs.items())), problems


def _spec(dataset: Any) -> TensorSpec:
    """Shape and dtype of a dataset; one that is not plain numbers stored in this file is refused."""
    import h5py

    if dataset.shape is None:
        raise CheckpointError("it has no value (a null dataspace)")
    if dataset.dtype.name not in DTYPES:
        raise CheckpointError(f"its dtype is {dataset.dtype}, expected numbers")
    # h5py names a dtype by some of what HDF5 says of its bits, and reads what has others in one of two ways.
    if not dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype, logical=True)):
        raise CheckpointError(f"its numbers are not laid out as {dataset.dtype}")
    if dataset.is_virtual:
        raise CheckpointError("a virtual dataset, which takes its data from other files")
    if dataset.external:
        raise CheckpointError(f"its data are in another file, {show(str(dataset.external[0][0]))}")
    filters = dataset.id.get_create_plist()
    codes = [filters.get_filter(i)[0] for i in range(filters.get_nfilters())]
    compressed = [code for code in codes if code in _COMPRESSIONS]
    for code in codes:
        if code not in _COMPRESSIONS and code not in _CHECKS:
            raise CheckpointError(f"it is stored through the filter number {code}, which is not supported")
    if len(compressed) > 1:
        raise CheckpointError("it is compressed more than once")
    spec = TensorSpec(dataset.shape, dataset.dtype.name)
    stored, declared, unit = dataset.id.get_storage_size(), spec.nbytes, "bytes"
    if dataset.chunks is not None:
        count = math.prod(-(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        unpacked = count * math.prod(dataset.chunks) * dataset.dtype.itemsize
        if unpacked > _MAX_PADDING * max(spec.nbytes, 2**20):
            raise CheckpointError(f"its chunks {dataset.chunks} unpack to {unpacked} bytes for {spec.nbytes} of data")
        if compressed:
            stored, declared, unit = dataset.id.get_num_chunks(), count, "chunks"
    if stored < declared:
        raise CheckpointError(f"it declares {declared} {unit}, but {stored} {unit} are stored")
    return spec
