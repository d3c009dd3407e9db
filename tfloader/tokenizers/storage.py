"""The files of a tokenizer: a folder has those of one, which are written all at once."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tfloader import files
from tfloader.errors import TokenizerError

# What our tokenizers write, the original names of the same, and what other programs put beside.
TOKENIZER_FILES = frozenset(
    {
        *("vocab.txt", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe", "spiece.model", "tokenizer.json"),
        *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    }
)


def write_files(folder: str | os.PathLike[str], content: Mapping[str, bytes]) -> None:
    """Writes a tokenizer in the place of the one that was there."""
    files.write_files(folder, content, TokenizerError, TOKENIZER_FILES.intersection)
