"""Moves tensors between checkpoints and models, through the naming table of the release.

Everything is checked before anything is assigned: each variable has exactly one source, each tensor is used or
declared to hold nothing of the model, every shape and dtype fits. Then the tensors stream through one at a time.
"""

from __future__ import annotations

import fnmatch
import math
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfloader.checkpoints import open_checkpoint
from tfloader.checkpoints.base import ALIGNMENT, Checkpoint, TensorSpec, aligned_copy, largest_magnitude
from tfloader.config import TransformerConfig
from tfloader.errors import WeightsError, listing
from tfloader.naming import detect_release
from tfloader.naming.agreement import deviations, differences
from tfloader.naming.base import Release, Row, counts
from tfloader.training.lora import adapted

READERS = 2
IN_FLIGHT = 128 * 1024**2  # bytes
READABLE_DTYPES = {"float32", "float16", "bfloat16"}


@dataclass(frozen=True)
class Source:
    """Where a row's tensor stands: the name as the file spells it."""

    row: Row
    name: str


def load_weights(
    transformer: Any,
    checkpoint: Any,
    *,
    release: Release | None = None,
    ignore: Collection[str] = (),
    source_config: TransformerConfig | None = None,
    fresh: bool = False,
) -> None:
    """Fills every variable of a built Transformer, or none of them.

    Args:
        checkpoint: a path, a mapping of arrays, or an open Checkpoint.
        release: which release it is; None: found by its names.
        ignore: patterns (`classifier.*`) of tensors that may stay unread.
        source_config: the config before the user's own changes; blocks that only it has may stay unread.
        fresh: nobody else holds the model yet, so that it need not survive a tensor that cannot be read or held.

    Raises:
        WeightsError: listing every variable without a source, tensor without use, and wrong shape or dtype.
        CheckpointError: a file cannot be read as what it claims to be.
    """
    checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
    ignore = [ignore] if isinstance(ignore, str) else ignore
    release = release or detect_release(checkpoint, [transformer.config.family])
    sources = plan(transformer, checkpoint, release, ignore, source_config)
    if not fresh:
        for source in sources:
            _prepared(transformer, checkpoint, source)
    for source, pieces in _streamed(transformer, checkpoint, sources):
        for path, piece in zip(source.row.ours, pieces, strict=True):
            transformer.variable(path).assign(_tensor(piece) if isinstance(piece, np.ndarray) else piece)


def plan(
    transformer: Any,
    checkpoint: Checkpoint,
    release: Release,
    ignore: Collection[str] = (),
    source_config: TransformerConfig | None = None,
) -> list[Source]:
    """Pairs every variable with its tensor, in the order of the table; see `load_weights` for what is refused."""
    naming = release.naming
    problems: list[str] = []
    names: dict[str, str] = {}
    for name in checkpoint:
        canonical = naming.canonical(name)
        if naming.is_ignorable(name) or any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore):
            continue
        if canonical in names:
            problems += differences(checkpoint, names[canonical], name)
        else:
            names[canonical] = name

    rows = naming.expand(counts(transformer.config, source_config))
    unread = {row.theirs for row in rows if row.part in transformer.left_out}
    if source_config is not None:
        unread |= {row.theirs for row in naming.expand(counts(source_config))} - {row.theirs for row in rows}

    sources, filled, missing = [], set(), []
    stand_in = {copy.of: copy.theirs for copy in naming.duplicates if copy.of not in names and copy.theirs in names}
    for row in rows:
        variables = [transformer.variable(path) for path in row.ours]
        if any(variable is None for variable in variables):
            continue
        theirs = stand_in.get(row.theirs, row.theirs)
        if theirs not in names:
            missing.append(f"{' + '.join(row.ours)} has no tensor {row.theirs!r}")
        else:
            sources.append(Source(row, names.pop(theirs)))
            problems += _misfits(transformer, sources[-1], checkpoint)
            if filled & {id(variable) for variable in variables}:
                problems.append(f"{sources[-1].name} is another tensor for {' + '.join(row.ours)}, which have one")
        filled.update(id(variable) for variable in variables)
    used = {source.row.theirs: source.name for source in sources}
    for copy in naming.duplicates:
        if copy.theirs in names and copy.theirs not in unread:
            name = names.pop(copy.theirs)
            if copy.of in used:
                problems += differences(checkpoint, used[copy.of], name)
    for constant in naming.constants:
        if constant.theirs in names:
            config = source_config or transformer.config
            problems += deviations(checkpoint, names.pop(constant.theirs), constant, config)
    missing += [
        f"{variable.path} is not in the table of {release.title}" for variable in _strangers(transformer, filled)
    ]
    leftover = [f"{name} {checkpoint[name].shape}" for canonical, name in names.items() if canonical not in unread]

    parts = []
    if missing:
        parts.append(f"Variables without a source ({len(missing)}):\n{listing(missing)}")
    if leftover:
        parts.append(
            f"Tensors without a use ({len(leftover)}):\n{listing(leftover)}\n"
            "  If the model does not need them, name them in ignore=[...] (patterns such as 'classifier.*')."
        )
    if problems:
        parts.append(f"Tensors that do not fit ({len(problems)}):\n{listing(problems)}")
    if parts:
        raise WeightsError(f"{checkpoint.path} ({release.title}) does not fit the model:\n" + "\n".join(parts))
    return sources


def _misfits(transformer: Any, source: Source, checkpoint: Checkpoint) -> Iterator[str]:
    spec = checkpoint[source.name]
    expected = source.row.op.their_shape(*(transformer.source_shape(path) for path in source.row.ours))
    if tuple(spec.shape) != tuple(expected):
        hint = ""
        if any(path in transformer.vocabulary_axes for path in source.row.ours):
            hint = " (vocab_size in the config and in the tensors differ; saved after keep_tokens? pass vocab_size=)"
        yield f"{source.name} has shape {tuple(spec.shape)}, the config means {tuple(expected)}{hint}"
    if spec.dtype not in READABLE_DTYPES:
        yield f"{source.name} is stored as {spec.dtype}; supported: {', '.join(sorted(READABLE_DTYPES))}"


def _strangers(transformer: Any, filled: Collection[int]) -> list[Any]:
    """Variables of the model that no row fills, less those of the condition and of the terms that start at zero."""
    new = set()
    if transformer.layer_norm_cond is not None:
        condition = keras.Model(transformer.additional_inputs, transformer.layer_norm_cond)
        new.update(id(variable) for variable in condition.weights)
    for layer in transformer.layers.values():
        for name in ("beta_dense", "gamma_dense", "scale_dense", "hidden_dense"):
            if hasattr(layer, name):
                new.update(id(variable) for variable in getattr(layer, name).weights)
    return [item for item in transformer.model.weights if id(item) not in filled and id(item) not in new]


def _streamed(
    transformer: Any, checkpoint: Checkpoint, sources: Sequence[Source]
) -> Iterator[tuple[Source, list[Any]]]:
    """Yields each source, in order, with what its variables take, while threads prepare the next ones.

    No more than IN_FLIGHT bytes of the checkpoint, or one larger tensor, are on their way at a time.
    """
    upcoming: deque[Source] = deque(sources)
    waiting: deque[tuple[Source, Future]] = deque()
    in_flight = 0
    with ThreadPoolExecutor(READERS) as pool:
        while upcoming or waiting:
            while upcoming and (not waiting or in_flight + checkpoint[upcoming[0].name].nbytes <= IN_FLIGHT):
                source = upcoming.popleft()
                in_flight += checkpoint[source.name].nbytes
                waiting.append((source, pool.submit(_prepared, transformer, checkpoint, source)))
            source, future = waiting.popleft()
            yield source, future.result()
            del future  # and the arrays with it
            in_flight -= checkpoint[source.name].nbytes


def _prepared(transformer: Any, checkpoint: Checkpoint, source: Source) -> list[Any]:
    """Reads a tensor; gives an array in the layout and dtype of each of its variables.

    On TensorFlow, a tensor of a checkpoint that hands it out uncopied stays one where nothing is to be done to it.
    """
    read = checkpoint.read
    if keras.backend.backend() == "tensorflow":
        read = getattr(checkpoint, "read_tensor", read)
    whole = read(source.name)
    pieces = source.row.op.to_ours(whole if isinstance(whole, np.ndarray) else tensor_view(whole))
    prepared = []
    for path, piece in zip(source.row.ours, pieces, strict=True):
        piece = transformer.cut_vocabulary(path, piece)
        dtype = keras.backend.standardize_dtype(transformer.variable(path).dtype)
        if dtype == "float16" and piece.dtype != np.float16:
            largest = largest_magnitude(piece)
            if largest > float(np.finfo("float16").max):
                raise WeightsError(
                    f"{source.name} has the value {largest:g}, which float16 cannot hold. Use dtype='bfloat16'."
                )
        if not piece.flags.c_contiguous or piece.dtype.name != dtype:
            prepared.append(aligned_copy(piece, dtype))
        elif isinstance(whole, np.ndarray) or piece.flags.writeable or piece.size < math.prod(whole.shape):
            prepared.append(piece)
        else:  # a read-only view of the whole tensor
            prepared.append(keras.ops.reshape(whole, piece.shape))
    return prepared


def _tensor(array: np.ndarray) -> Any:
    """A C-contiguous array as a tensor of the backend, on TensorFlow without a copy where the memory fits."""
    if keras.backend.backend() != "tensorflow" or not array.size:
        return keras.ops.convert_to_tensor(array)
    import tensorflow as tf

    if array.ctypes.data % ALIGNMENT or not array.flags.writeable:
        array = aligned_copy(array, array.dtype.name)
    if array.dtype.name == "bfloat16":  # the exchange protocol knows no bfloat16
        return tf.bitcast(tf.experimental.dlpack.from_dlpack(array.view("uint16").__dlpack__()), tf.bfloat16)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def tensor_view(tensor: Any) -> np.ndarray:
    """A read-only array over the memory of an eager TensorFlow tensor on the CPU."""
    import tensorflow as tf

    dtype = tensor.dtype.as_numpy_dtype
    if tensor.dtype == tf.bfloat16:  # the buffer protocol knows no bfloat16
        tensor = tf.bitcast(tensor, tf.uint16)
    return np.asarray(memoryview(tensor)).view(dtype).reshape(tensor.shape)


def tensors_to_save(transformer: Any, release: Release) -> list[tuple[str, TensorSpec, Any]]:
    """All tensors of a model as a release names them: (name, spec, function that makes the array). LoRA is merged.

    Raises:
        WeightsError: the release has no place for some variables.
    """
    result, covered = {}, set()
    for row in release.naming.expand(counts(transformer.config)):
        variables = [_as_saved(transformer, path) for path in row.ours]
        if any(variable is None for variable in variables):
            continue
        shape = tuple(row.op.their_shape(*(tuple(variable.shape) for variable in variables)))
        spec = TensorSpec(shape, keras.backend.standardize_dtype(variables[0].dtype))
        covered.update(id(part) for variable in variables for part in getattr(variable, "parts", [variable]))
        result[row.theirs] = (spec, _maker(row, variables))
    for copy in release.naming.duplicates:
        if copy.written and copy.of in result:
            result[copy.theirs] = result[copy.of]
    for constant in release.naming.constants:
        spec = TensorSpec(constant.shape(transformer.config), next(iter(result.values()))[0].dtype)
        result[constant.theirs] = (spec, constant.maker(transformer.config, spec.numpy_dtype))
    strangers = [item.path for item in transformer.model.weights if id(item) not in covered]
    if strangers:
        raise WeightsError(f"A {release.title} checkpoint has no place for these variables:\n{listing(strangers)}")
    return [(name, spec, make) for name, (spec, make) in result.items()]


def _as_saved(transformer: Any, path: str) -> Any | None:
    """The variable of a path, or where its layer has LoRA, what stands for it with the adapter merged into it."""
    layer, _, name = path.rpartition("/")
    found = adapted(transformer.variable(layer))
    return found if found and found.base.name == name else transformer.variable(path)


def _maker(row: Row, variables: Sequence[Any]) -> Any:
    return lambda: row.op.to_theirs(*(_array(variable) for variable in variables))


def _array(variable: Any) -> np.ndarray:
    """A variable's value, on TensorFlow's CPU without a copy."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        value = tf.convert_to_tensor(variable.value)
        if "CPU" in value.device and value.shape.num_elements():
            return tensor_view(value)
    return np.asarray(keras.ops.convert_to_numpy(variable.value))


def as_mapping(transformer: Any, release: Release) -> Mapping[str, np.ndarray]:
    """The tensors of a model under a release's names, as arrays."""
    return {name: make() for name, _, make in tensors_to_save(transformer, release)}
