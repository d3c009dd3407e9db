"""Test data, decompressed once a session."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from tests.tokenizers.tokenizer_data import DATA


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A folder with all test data, the compressed files without their .gz."""
    folder = tmp_path_factory.mktemp("tokenizers")
    for path in DATA.rglob("*"):
        target = folder / path.relative_to(DATA)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        elif path.suffix == ".gz":
            target.parent.mkdir(exist_ok=True)
            target.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
    return folder
