"""PyTorch `.bin` and `.pt` files of tensors.

They are pickles, which can run code, so only `torch.load(weights_only=True)` of a PyTorch that has no known
way around it reads them; nothing is ever unpickled here.
"""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from tfloader.checkpoints.base import DTYPES, Checkpoint, TensorSpec, aligned_copy, show
from tfloader.checkpoints.files import expect, reading
from tfloader.errors import CheckpointError, listing

if TYPE_CHECKING:
    import torch

_OLDEST = (2, 6)  # CVE-2025-32434: before it, weights_only=True could run code
_CONVERT = (
    'On a machine with PyTorch >= 2.6 and safetensors, convert it: python -c "import torch; '
    "from safetensors.torch import save_file; "
    "d = torch.load('{path}', weights_only=True, map_location='cpu'); save_file("
    "{{k: v.clone().contiguous() for k, v in d.items()}}, 'model.safetensors')\""
)


class TorchCheckpoint(Checkpoint):
    """One file of a dict from names to tensors; entries that are no tensors are `skipped`."""

    format = "torch"

    def __init__(self, path: str) -> None:
        kind = expect(path, "a PyTorch file of weights", "torch", "torch-legacy")
        torch = _import_torch(path)
        if kind == "torch":
            _check_zip(path)
        try:
            with reading(path):
                content = torch.load(path, weights_only=True, mmap=kind == "torch", map_location="cpu")
        except CheckpointError:
            raise
        except Exception as error:  # whatever the pickle machinery meets in a damaged or hostile file
            reason = str(error).strip().split("\n")[0][:300]
            raise CheckpointError(
                f"{path}: PyTorch refuses to read this as weights only: {reason} The file is damaged, or it "
                "holds more than tensors and could run code. Get the weights as safetensors."
            ) from error
        self._tensors, specs, skipped = _tensors(path, content)
        super().__init__(path, (path,), specs, skipped)

    def close(self) -> None:
        super().close()
        self._tensors = {}

    def _read(self, name: str, spec: TensorSpec) -> np.ndarray:
        import torch

        tensor = self._tensors[name].detach().resolve_conj().resolve_neg()
        if tensor.dtype == torch.bfloat16:  # which numpy() refuses; its bits are the same
            tensor = tensor.view(torch.int16)
        return aligned_copy(tensor.numpy().view(spec.numpy_dtype), spec.dtype)


def _import_torch(path: str):
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(
            f"{path}: reading PyTorch files needs PyTorch >= 2.6. Run pip install torch. "
            f"Or: {_CONVERT.format(path=path)}"
        ) from error
    version = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if version is None or tuple(map(int, version.groups())) < _OLDEST:
        raise CheckpointError(
            f"{path}: PyTorch {torch.__version__} can be made to run code by such a file (CVE-2025-32434); "
            f"2.6 or newer is needed. Upgrade it. Or: {_CONVERT.format(path=path)}"
        )
    return torch


def _check_zip(path: str) -> None:
    """Compressed members could expand without bound, and memory mapping would take them as they are."""
    with zipfile.ZipFile(path) as archive:
        packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise CheckpointError(
            f"{path}: members of this PyTorch file are compressed, which PyTorch does not do. Save it again "
            f"with torch.save:\n{listing(map(show, packed))}"
        )


def _tensors(path: str, content: Any) -> tuple[dict[str, torch.Tensor], dict[str, TensorSpec], dict[str, str]]:
    import torch

    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}, expected a dict from names to tensors. "
            "Save model.state_dict() instead."
        )
    tensors: dict[str, torch.Tensor] = {}
    specs: dict[str, TensorSpec] = {}
    skipped: dict[str, str] = {}
    problems = []
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            skipped[str(name)] = f"it is a {type(tensor).__name__}, not a tensor"
            continue
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            problems.append(f"{show(name)}: its dtype {dtype} is not supported")
        elif tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            problems.append(f"{show(name)}: it is sparse, quantised or without data")
        else:
            specs[name] = TensorSpec(tuple(tensor.shape), dtype)
            if specs[name].nbytes > tensor.untyped_storage().nbytes():
                problems.append(f"{show(name)}: {specs[name].shape} is more than its storage holds")
            tensors[name] = tensor
    if problems:
        raise CheckpointError(f"{path}: tensors that are not supported:\n{listing(problems)}")
    if not tensors and skipped:
        raise CheckpointError(
            f"{path}: no tensors at its top level, but these. Save the inner dict by itself:\n"
            + listing(f"{show(name)}: {reason}" for name, reason in skipped.items())
        )
    return tensors, specs, skipped
