"""Naming tables: which tensor of a release is which variable of ours, readable in both directions.

A table is data: an ordered list of rows `(our variable, their tensor, invertible operation)`. The same rows load,
save and convert. What has no way back (old names, stored copies of tied weights, optimizer slots) is declared as
such, with the reason beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfloader.config import Dialect, TransformerConfig
from tfloader.errors import ConfigError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Identity:
    """Their tensor is our variable."""

    def their_shape(self, *ours: Shape) -> Shape:
        return ours[0]

    def to_ours(self, array: np.ndarray) -> Sequence[np.ndarray]:
        return [array]

    def to_theirs(self, *arrays: np.ndarray) -> np.ndarray:
        return arrays[0]


@dataclass(frozen=True)
class Transpose(Identity):
    """Their matrix is our matrix transposed (torch keeps kernels as [out, in])."""

    def their_shape(self, *ours: Shape) -> Shape:
        return ours[0][::-1]

    def to_ours(self, array: np.ndarray) -> Sequence[np.ndarray]:
        return [array.T]

    def to_theirs(self, *arrays: np.ndarray) -> np.ndarray:
        return arrays[0].T


@dataclass(frozen=True)
class Split(Identity):
    """Their tensor holds several of our variables side by side on the last axis, in the row's order."""

    parts: int

    def their_shape(self, *ours: Shape) -> Shape:
        return (*ours[0][:-1], sum(shape[-1] for shape in ours))

    def to_ours(self, array: np.ndarray) -> Sequence[np.ndarray]:
        return np.split(array, self.parts, axis=-1)

    def to_theirs(self, *arrays: np.ndarray) -> np.ndarray:
        return np.concatenate(arrays, axis=-1)


@dataclass(frozen=True)
class LeadingOne(Identity):
    """Their tensor has an extra first axis of size 1 (a convolution of width one) around another operation."""

    inner: Identity = field(default_factory=Identity)

    def their_shape(self, *ours: Shape) -> Shape:
        return (1, *self.inner.their_shape(*ours))

    def to_ours(self, array: np.ndarray) -> Sequence[np.ndarray]:
        return self.inner.to_ours(array[0])

    def to_theirs(self, *arrays: np.ndarray) -> np.ndarray:
        return self.inner.to_theirs(*arrays)[None]


@dataclass(frozen=True)
class Row:
    """One line of a naming table.

    Attributes:
        ours: variable path(s), `Layer-Name/attribute/.../variable`; `{layer}` and `{decoder_layer}` count blocks.
        theirs: the tensor's name in the release, with the same placeholders (and format widths).
        op: how the tensor becomes the variable(s) and back.
        part: the optional part of the model that it belongs to ("pooler", "mlm", ...): a tensor of a part that the
            user did not ask for may stay unread.
    """

    ours: tuple[str, ...]
    theirs: str
    op: Identity = field(default_factory=Identity)
    part: str | None = None

    def expand(self, counts: Mapping[str, int]) -> Iterator[tuple[dict[str, int], Row]]:
        """Yields (indices, row) for every block that the row's placeholder counts."""
        counter = next((name for name in counts if f"{{{name}" in self.theirs), None)
        if counter is None:
            yield {}, self
            return
        for index in range(counts[counter]):
            names = {counter: index}
            ours = tuple(path.format(**names) for path in self.ours)
            yield names, Row(ours, self.theirs.format(**names), self.op, self.part)


def row(ours: str | Sequence[str], theirs: str, op: Identity | None = None, part: str | None = None) -> Row:
    """Makes a row; one variable may be given as a plain string."""
    return Row((ours,) if isinstance(ours, str) else tuple(ours), theirs, op or Identity(), part)


@dataclass(frozen=True)
class Duplicate:
    """A tensor that repeats another one: it must be equal to it, or stands in for it where that one is absent.

    `written`: the release's own writer stores the copy, so ours does too.
    """

    theirs: str
    of: str
    written: bool = False


@dataclass(frozen=True)
class Naming:
    """A release's tensors.

    Attributes:
        rows: the two-way table.
        old_names: one-way (pattern, replacement) pairs that turn older spellings into today's.
        ignorable: patterns of tensors that hold nothing of the model: optimizer slots, counters, constant buffers.
        duplicates: copies of tied weights.
    """

    rows: tuple[Row, ...]
    old_names: tuple[tuple[str, str], ...] = ()
    ignorable: tuple[str, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()

    def canonical(self, name: str) -> str:
        """Today's spelling of a tensor's name."""
        for pattern, replacement in self.old_names:
            name = re.sub(pattern, replacement, name)
        return name

    def is_ignorable(self, name: str) -> bool:
        return any(re.search(pattern, name) for pattern in self.ignorable)

    def expand(self, counts: Mapping[str, int]) -> list[Row]:
        """All rows with their placeholders filled in, in table order."""
        return [expanded for item in self.rows for _, expanded in item.expand(counts)]


@dataclass(frozen=True)
class Release:
    """One way in which a model is published: container, tensor names, config dialect.

    Attributes:
        name: short name.
        title: what `tfloader info` prints.
        family: the family that builds it.
        formats: containers in which it comes.
        signature: a tensor (canonical name) that, among the releases in those containers, only this one has.
        naming: the table of tensors.
        config_files: patterns of its config file's name, best first.
        dialects: the config dialects that these files may be in; a file's `model_type` chooses.
        writes: the format name under which `tfloader.save` writes it, or None where it is only read.
        written_config: name of the config file when writing.
        architecture: for Hugging Face folders: the class name for a set of tensors, and the prefix of the canonical
            names that this class leaves out.
    """

    name: str
    title: str
    family: str
    formats: tuple[str, ...]
    signature: str
    naming: Naming
    config_files: tuple[str, ...]
    dialects: tuple[Dialect, ...]
    writes: str | None = None
    written_config: str = "config.json"
    architecture: Callable[[Collection[str]], tuple[str, str]] | None = None

    def dialect_for(self, raw: Mapping[str, Any], source: str) -> Dialect:
        """The dialect of a config file, by its `model_type` and its keys.

        Raises:
            ConfigError: the file says that it belongs to a model of another type.
        """
        candidates = [dialect for dialect in self.dialects if dialect.accepts(raw)]
        if candidates:
            return min(candidates, key=lambda dialect: dialect.missing(raw))
        expected = " or ".join(repr(dialect.constants.get("model_type")) for dialect in self.dialects)
        raise ConfigError(
            f"{source}: model_type is {raw.get('model_type')!r}, but the tensors beside it are named as those of a "
            f"{self.title} checkpoint ({expected}). Such a model may compute differently and is not implemented."
        )


def counts(config: TransformerConfig) -> dict[str, int]:
    """How often each placeholder of the naming tables repeats for a config."""
    decoder = config.num_decoder_layers
    layers = config.num_hidden_layers
    return {"layer": layers, "decoder_layer": layers if decoder is None else decoder}


TF_OPTIMIZER_SLOTS = (
    r"(^|/)global_step$",
    r"/(adam|lamb)_[mv](_\d+)?$",
    r"/(Adam|Adam_1|Adafactor|Momentum|LAMB|LAMB_1)$",
    r"(^|/)beta[12]_power(_\d+)?$",
    r"_slot_(v|vr|vc|m)$",
    r"/(adafactor)_(m|v|vr|vc)$",
    r"(^|/)(current_loss_scale|good_steps|num_good_steps|loss_scale)$",
    r"^save_counter/",
)

__all__ = [
    "TF_OPTIMIZER_SLOTS",
    "Duplicate",
    "Identity",
    "LeadingOne",
    "Naming",
    "Release",
    "Row",
    "Split",
    "Transpose",
    "counts",
    "row",
]
