"""What the tests of conversion share: fixtures as folders, their bytes, and damaged copies of them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import CHECKPOINTS
from tfloader.checkpoints import open_checkpoint


def contents(path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """The dtype, shape and bytes of each tensor."""
    with open_checkpoint(path) as checkpoint:
        return {name: (spec.dtype, spec.shape, checkpoint.read(name).tobytes()) for name, spec in checkpoint.items()}


def arrays_of(path) -> dict[str, np.ndarray]:
    with open_checkpoint(path) as checkpoint:
        return {name: checkpoint.read(name).copy() for name in checkpoint}


def fingerprint(folder: Path) -> dict[str, str]:
    """A hash of every file in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def rewrite_json(file: Path, **values) -> None:
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


@pytest.fixture
def copy(tmp_path):
    """A copy of a fixture that may be damaged."""
    return lambda name: Path(shutil.copytree(CHECKPOINTS / name, tmp_path / name, copy_function=shutil.copyfile))


@pytest.fixture
def changed(copy):
    """A copy of a safetensors fixture whose tensors went through a function that changes the dictionary."""
    from safetensors.numpy import save_file

    def change(name: str, function) -> Path:
        folder = copy(name)
        tensors = arrays_of(folder)
        function(tensors)
        save_file(tensors, folder / "model.safetensors")
        return folder

    return change
