"""The files of a tokenizer: a folder has those of one, which are written all at once."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tfloader import files
from tfloader.errors import TokenizerError


def write_files(folder: str | os.PathLike[str], content: Mapping[str, bytes]) -> None:
    """Writes a tokenizer in the place of the one that was there."""
    files.write_files(folder, content, TokenizerError, files.TOKENIZER_FILES.intersection)
