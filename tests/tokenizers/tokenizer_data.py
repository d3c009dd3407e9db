"""Golden results, readable while tests are collected."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

DATA = Path(__file__).parent.parent / "fixtures" / "tokenizers"


def golden(name: str):
    """The content of a JSON file among the test data."""
    path = DATA / name
    data = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    return json.loads(data)


def ggml(name: str) -> list[tuple[str, list[int]]]:
    """llama.cpp's golden texts and their ids."""
    texts = (DATA / f"{name}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = (DATA / f"{name}.out").read_text().split("\n")
    return [(text, [int(id) for id in line.split()]) for text, line in zip(texts, lines, strict=False)]
