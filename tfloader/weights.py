"""Moves tensors between checkpoints and models, through the naming table of the release.

`tfloader.naming.fit` judges before anything is assigned. Then the tensors stream through, a few at a time.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

import keras
import numpy as np

from tfloader.ahead import done_ahead
from tfloader.checkpoints import open_checkpoint
from tfloader.checkpoints.base import ALIGNMENT, Checkpoint, TensorSpec, aligned_copy, largest_magnitude
from tfloader.checkpoints.writing import Item
from tfloader.config import TransformerConfig
from tfloader.errors import WeightsError, listing
from tfloader.layers.initializers import TruncatedNormal
from tfloader.layers.lora import adapted
from tfloader.layers.normalization import Conditional
from tfloader.naming import detect_release, uncut_vocab_size_beside
from tfloader.naming.assembly import assembled
from tfloader.naming.base import Row, counts
from tfloader.naming.fit import Fit, Source, canonical_names, fit
from tfloader.naming.heads import PART
from tfloader.naming.release import Release

READERS = 2
IN_FLIGHT = 128 * 1024**2  # bytes


def load_weights(
    transformer: Any,
    checkpoint: Any,
    *,
    release: Release | None = None,
    ignore: Collection[str] = (),
    source_config: TransformerConfig | None = None,
    fresh: bool = False,
) -> list[str]:
    """Fills every variable of a built Transformer, or none of them.

    Returns the paths of those of a new head, of which the checkpoint has nothing: they start at random.

    Args:
        checkpoint: a path, a mapping of arrays, or an open Checkpoint.
        release: which release it is; None: found by its names.
        ignore: patterns (`classifier.*`) of tensors that may stay unread.
        source_config: the config before the user's own changes; blocks that only it has may stay unread.
        fresh: the model is new, so that it need not stay as it is if a tensor cannot be read or represented.

    Raises:
        WeightsError: listing every variable without a source, tensor without use, and wrong shape or dtype.
        CheckpointError: a file cannot be read as what it claims to be.
    """
    checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
    ignore = [ignore] if isinstance(ignore, str) else ignore
    release = release or detect_release(checkpoint, [transformer.config.family])
    if source_config is None:
        transformer.vocabulary.refuse_again(uncut_vocab_size_beside(checkpoint, release))
    found = fitted(transformer, checkpoint, release, ignore, source_config)
    found.refuse(checkpoint)
    if not fresh:
        for source in found.sources:
            _prepared(transformer, checkpoint, source)
    jobs = [
        (checkpoint[source.name].nbytes, partial(_prepared, transformer, checkpoint, source))
        for source in found.sources
    ]
    for source, pieces in zip(found.sources, done_ahead(jobs, READERS, IN_FLIGHT), strict=True):
        for path, piece in zip(source.row.ours, pieces, strict=True):
            transformer.variable(path).assign(_tensor(piece) if isinstance(piece, np.ndarray) else piece)
    for path in found.new:
        variable = transformer.variable(path)
        if path.endswith("/kernel"):
            variable.assign(TruncatedNormal(stddev=transformer.config.initializer_range)(variable.shape))
    return found.new


def fitted(
    transformer: Any,
    checkpoint: Checkpoint,
    release: Release,
    ignore: Collection[str] = (),
    source_config: TransformerConfig | None = None,
    left_out: Collection[str] | None = None,
) -> Fit:
    """How a checkpoint fits a built Transformer; see `tfloader.naming.fit`.

    Args:
        left_out: optional parts whose tensors may stay unread; None: those that the model was built without.
    """
    rows = release.naming.expand(counts(transformer.config, source_config))
    new = _new_layers(transformer, checkpoint, rows, release, ignore, source_config or transformer.config)
    variables = stored_shapes(transformer, rows, new)
    unread = transformer.left_out if left_out is None else left_out
    found = fit(checkpoint, release, transformer.config, variables, ignore, source_config, unread)
    found.new = [f"{name}/{variable.name}" for name in new for variable in transformer.head_layers[name].weights]
    return found


def _new_layers(
    transformer: Any,
    checkpoint: Checkpoint,
    rows: Iterable[Row],
    release: Release,
    ignore: Collection[str],
    stored: TransformerConfig,
) -> list[str]:
    """The layers of a model's head that are not the checkpoint's: it has none of their tensors, or another head's.

    Where its config names this very head, they are missed, unless they are ignored.
    """
    if not transformer.head_layers:
        return []
    naming, head = release.naming, transformer.config.head
    every, kept = canonical_names(checkpoint, naming), canonical_names(checkpoint, naming, ignore)
    found = []
    for name, layer in transformer.head_layers.items():
        own = [row for row in rows if row.ours[0].startswith(f"{name}/")]
        there, left = ({row.theirs for row in own} & names for names in (every, kept))
        of_another = stored.head not in (None, head) and any(row.part == PART for row in own)
        if layer.weights and (of_another or (not left and (there or stored.head != head))):
            found.append(name)
    return found


def stored_shapes(transformer: Any, rows: Iterable[Row], new: Collection[str] = ()) -> dict[str, tuple[int, ...]]:
    """The shape in a checkpoint of every variable of a model that must come from there.

    By the path in the rows, or for those that are in none, by Keras' path. Not among them is what a model has beside
    its checkpoint: layers of a `new` head; of a conditional one, the network of the condition, and what its norms add,
    which starts at zero.
    """
    model, shapes = transformer.model, {}
    known = {id(variable) for name in new for variable in transformer.head_layers[name].weights}
    for path in (path for row in rows for path in row.ours):
        variable = transformer.variable(path)
        # Of two paths to one variable the first counts; the tensor of the second has no use.
        if variable is not None and id(variable) not in known:
            known.add(id(variable))
            shapes[path] = transformer.source_shape(path)
    if transformer.layer_norm_cond is not None:
        condition = keras.Model(transformer.additional_inputs, transformer.layer_norm_cond)
        known.update(id(variable) for variable in condition.weights)
        norms = (layer for layer in transformer.layers.values() if isinstance(layer, Conditional))
        known.update(id(variable) for layer in norms for variable in layer.added_weights)
    return shapes | {item.path: tuple(item.shape) for item in model.weights if id(item) not in known}


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


def tensors_to_save(transformer: Any, release: Release) -> list[Item]:
    """All tensors of a model as a release names them: (name, spec, function that makes the array). LoRA is merged.

    Raises:
        WeightsError: the release has no place for some variables.
    """
    tensors, problems = assembled(ModelValues(transformer, release), release, transformer.config)
    if problems:
        raise WeightsError(f"A {release.title} checkpoint cannot hold this model:\n{listing(problems)}")
    return tensors


class ModelValues:
    """The `Values` of a model: others than those in the table by Keras' path, and LoRA merged."""

    def __init__(self, transformer: Any, release: Release) -> None:
        paths = (path for row in release.naming.expand(counts(transformer.config)) for path in row.ours)
        found = {path: _as_saved(transformer, path) for path in paths}
        self.variables = {path: variable for path, variable in found.items() if variable is not None}
        covered = {id(part) for item in self.variables.values() for part in getattr(item, "parts", [item])}
        self.variables |= {item.path: item for item in transformer.model.weights if id(item) not in covered}
        self.specs = {
            path: TensorSpec(tuple(item.shape), keras.backend.standardize_dtype(item.dtype))
            for path, item in self.variables.items()
        }

    def read(self, path: str) -> np.ndarray:
        return _array(self.variables[path])

    def describe(self, path: str) -> str:
        return path


def _as_saved(transformer: Any, path: str) -> Any | None:
    """The variable of a path, or where its layer has LoRA, what stands for it with the adapter merged into it."""
    layer, _, name = path.rpartition("/")
    found = adapted(transformer.variable(layer))
    return found if found and found.base.name == name else transformer.variable(path)


def _array(variable: Any) -> np.ndarray:
    """A variable's value, on TensorFlow's CPU without a copy."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        value = tf.convert_to_tensor(variable.value)
        if "CPU" in value.device and value.shape.num_elements():
            return tensor_view(value)
    return np.asarray(keras.ops.convert_to_numpy(variable.value))
