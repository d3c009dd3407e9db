"""What is optional in a family, as data: the part of its naming tables, and the builder option that makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Head:
    """An optional part of a family's models: a head, or one half of an encoder-decoder.

    Attributes:
        part: what its rows in the naming tables are marked with: `row(..., part="mlm")`.
        option: the builder option that makes it; the family keeps its value in an attribute of the same name.
        present: the option's value with the part; for a classifier, the one that gives logits.
        absent: the option's value without it. Where several parts have one option, an absent part decides.
    """

    part: str
    option: str
    present: Any
    absent: Any
