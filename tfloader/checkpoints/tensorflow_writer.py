"""Writes TensorFlow checkpoints in groups of about 250 MB, so that memory never holds the whole model.

As with safetensors, all files appear at once.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable

from tfloader.checkpoints.tensorflow import check_prefix
from tfloader.checkpoints.writing import Item, checked_items, fetch, groups
from tfloader.errors import CheckpointError
from tfloader.staging import staged

_GROUP_BYTES = 250 * 1000**2
_STATE = "checkpoint"


def write_tensorflow(prefix: str | os.PathLike[str], tensors: Iterable[Item]) -> list[str]:
    """Writes `<prefix>.index`, its data files, and the `checkpoint` file that names it.

    Args:
        prefix: path and first part of the file names; the folder is made if it is not there.
        tensors: (name, TensorSpec, zero-argument callable that gives the array). The callables are called
            once each, in order; at most about 250 MB of arrays is held at a time, or one larger array.

    Returns:
        The paths that were written: data files, index, state file.

    Raises:
        CheckpointError: names, specs or arrays do not fit, or the files cannot be written. Those of an earlier save
            stay then.
    """
    import tensorflow as tf

    prefix = os.fspath(prefix)
    check_prefix(prefix)
    folder, base = os.path.split(prefix)
    folder = folder or "."
    if not base or re.search(r"[\0\n\"\\]", base):
        raise CheckpointError(f"{prefix}: not a usable prefix. Give a path such as out/model.ckpt.")
    items = checked_items(prefix, tensors)
    if not items:
        raise CheckpointError(f"{prefix}: there are no tensors to write.")
    own = re.compile(re.escape(base) + r"\.(index|data-\d{5}-of-\d{5})")
    nbytes = sum(spec.nbytes for _, spec, _ in items)
    with staged(folder, CheckpointError, nbytes, lambda there: filter(own.fullmatch, there)) as stage:
        folder_of_parts = os.path.join(stage, f"{base}.parts")
        os.mkdir(folder_of_parts)
        try:
            parts = []
            with tf.init_scope(), tf.device("CPU:0"):
                for group in groups(items, _GROUP_BYTES):
                    parts.append(os.path.join(folder_of_parts, f"part{len(parts)}"))
                    tf.raw_ops.SaveV2(
                        prefix=parts[-1],
                        tensor_names=[name for name, _, _ in group],
                        shape_and_slices=[""] * len(group),
                        tensors=[tf.convert_to_tensor(fetch(prefix, item)) for item in group],
                    )
                tf.raw_ops.MergeV2Checkpoints(
                    checkpoint_prefixes=parts, destination_prefix=os.path.join(stage, base), delete_old_dirs=False
                )
        except tf.errors.OpError as error:
            raise CheckpointError(
                f"{prefix}: TensorFlow could not write it: {error.message}. Files of an earlier save stay."
            ) from error
        shutil.rmtree(folder_of_parts)
        names = sorted(filter(own.fullmatch, os.listdir(stage)))  # "data" before "index"
        with open(os.path.join(stage, _STATE), "w", encoding="utf-8") as file:
            file.write(f'model_checkpoint_path: "{base}"\nall_model_checkpoint_paths: "{base}"\n')
        names.append(_STATE)
    return [os.path.join(folder, name) for name in names]
