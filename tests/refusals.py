"""A good checkpoint to be damaged, and what a refusal must say."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from tests.conftest import CHECKPOINTS
from tfloader.checkpoints import open_checkpoint

BERT = CHECKPOINTS / "hf_bert"
RAW = json.loads((BERT / "config.json").read_text())
HEADS = {"with_nsp": True, "with_mlm": True}
WORDS = "bert.embeddings.word_embeddings.weight"


def tensors_of(folder):
    with open_checkpoint(folder) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint}


def refused(error, words, function, *arguments, **options):
    """Checks that it is refused as `error`, with all of `words` in the message; gives the message."""
    with pytest.raises(error) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert len(message) < 5_000
    return message


def calls(function: Callable) -> int:
    """How many functions are called, Python's and C's: work counted, which no other load on the machine changes."""
    made = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return made
