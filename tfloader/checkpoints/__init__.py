"""Reading and writing the files that checkpoints come in. Importing it imports no framework.

`open_checkpoint` finds out what a path is and gives a `Checkpoint`: names, shapes and dtypes at once, and the
data of one tensor at a time. `write_safetensors` and `write_tensorflow` stream tensors into new files.
"""

from __future__ import annotations

from tfloader.checkpoints.base import Checkpoint, TensorSpec, aligned_empty
from tfloader.checkpoints.opening import open_checkpoint
from tfloader.checkpoints.safetensors_writer import write_safetensors
from tfloader.checkpoints.tensorflow_writer import write_tensorflow

__all__ = ["Checkpoint", "TensorSpec", "aligned_empty", "open_checkpoint", "write_safetensors", "write_tensorflow"]
