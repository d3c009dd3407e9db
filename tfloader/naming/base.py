"""Naming tables: which tensor of a release is which variable of ours, readable in both directions.

A table is data: an ordered list of rows `(our variable, their tensor, invertible operation)`. The same rows load,
save and convert. What has no way back (old names, stored copies of tied weights, optimizer slots) is declared as
such, with the reason beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfloader.config import TransformerConfig
from tfloader.naming.constants import Buffer, Constant, Shape


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
class Repeated(Identity):
    """Several of our variables start from the same tensor. For loading only: saved, each has a tensor of its own."""

    times: int
    inner: Identity = field(default_factory=Identity)

    def their_shape(self, *ours: Shape) -> Shape:
        return self.inner.their_shape(*ours[: len(ours) // self.times])

    def to_ours(self, array: np.ndarray) -> Sequence[np.ndarray]:
        # Copies, because a variable may take an array's memory over.
        return [piece for _ in range(self.times) for piece in self.inner.to_ours(array.copy())]

    def to_theirs(self, *arrays: np.ndarray) -> np.ndarray:
        return self.inner.to_theirs(*arrays[: len(arrays) // self.times])


# Placeholder by which a row is recognised -> for each block, what all placeholders stand for.
Blocks = Mapping[str, Sequence[Mapping[str, Any]]]
ATTENTION, FEED_FORWARD = "Transformer-{layer}-MultiHeadSelfAttention", "Transformer-{layer}-FeedForward"
QUERY_KEY_VALUE = tuple(f"{ATTENTION}/{name}" for name in ("query", "key", "value"))


@dataclass(frozen=True)
class Row:
    """One line of a naming table.

    Attributes:
        ours: variable path(s), `Layer-Name/attribute/.../variable`, with placeholders for the block (see `counts`).
        theirs: the tensor's name in the release, with placeholders for the block (and format widths).
        op: how the tensor becomes the variable(s) and back.
        part: the optional part of the model that it belongs to ("pooler", "mlm", ...): a tensor of a part that the
            user did not ask for may stay unread. The family declares what makes it (`Transformer.heads`).
        untied: the tensor exists only where the output layer is not the embedding (`tie_word_embeddings`).
    """

    ours: tuple[str, ...]
    theirs: str
    op: Identity = field(default_factory=Identity)
    part: str | None = None
    untied: bool = False

    def expand(self, counts: Blocks) -> Iterator[Row]:
        """Yields the row for every block that its placeholders count, one where blocks share a tensor."""
        counter = next((name for name in counts if f"{{{name}" in self.theirs), None)
        if counter is None:
            yield self
            return
        shared: dict[str, dict[tuple[str, ...], None]] = {}
        for names in counts[counter]:
            ours = tuple(path.format(**names) for path in self.ours)
            shared.setdefault(self.theirs.format(**names), {})[ours] = None
        for theirs, variables in shared.items():
            op = self.op if len(variables) == 1 else Repeated(len(variables), self.op)
            yield Row(tuple(path for ours in variables for path in ours), theirs, op, self.part, self.untied)


def renamed(rows: Sequence[Row], names: Mapping[str, str | None]) -> tuple[Row, ...]:
    """A table under other names: the first prefix in `names` that a tensor's name has is replaced by its value.

    None takes the row out; names with none of the prefixes stay as they are.
    """
    return tuple(replace(item, theirs=new) for item in rows if (new := with_prefix(item.theirs, names)) is not None)


def with_prefix(name: str, names: Mapping[str, str | None]) -> str | None:
    """A name as `renamed` has it; None for one that it takes out."""
    prefix = next((prefix for prefix in names if name.startswith(prefix)), "")
    new = names.get(prefix, "")
    return None if new is None else new + name.removeprefix(prefix)


def row(
    ours: str | Sequence[str], theirs: str, op: Identity | None = None, part: str | None = None, untied: bool = False
) -> Row:
    """Makes a row; one variable may be given as a plain string."""
    return Row((ours,) if isinstance(ours, str) else tuple(ours), theirs, op or Identity(), part, untied)


@dataclass(frozen=True)
class Layout:
    """How the files of a framework name the variables of a layer, and lay out kernels; makes the rows of a layer.

    Attributes:
        kernel, bias: what follows the layer's name for a dense layer.
        gamma, beta: the same for a normalisation.
        op: from the operation on a kernel that is stored as ours ([in, out]) to that on theirs.
    """

    kernel: str
    bias: str
    gamma: str
    beta: str
    op: Callable[[Identity], Identity] = lambda inner: inner

    def dense(self, ours: str | Sequence[str], theirs: str, part: str | None = None) -> tuple[Row, Row]:
        """The rows of a dense layer, or of several that are stored side by side."""
        names = (ours,) if isinstance(ours, str) else ours
        inner = Identity() if len(names) == 1 else Split(len(names))
        kernels, biases = ([f"{name}/{variable}" for name in names] for variable in ("kernel", "bias"))
        return row(kernels, theirs + self.kernel, self.op(inner), part), row(biases, theirs + self.bias, inner, part)

    def norm(self, ours: str, theirs: str, part: str | None = None) -> tuple[Row, Row]:
        """The rows of a layer normalisation."""
        return row(f"{ours}/gamma", theirs + self.gamma, part=part), row(f"{ours}/beta", theirs + self.beta, part=part)


TORCH = Layout(".weight", ".bias", ".weight", ".bias", lambda _: Transpose())  # kernels are [out, in]
TF = Layout("/kernel", "/bias", "/gamma", "/beta")
# GPT-2's: a Conv1D of transformers has kernels [in, out], OpenAI's convolutions of width one [1, in, out].
CONV1D = Layout(".weight", ".bias", ".weight", ".bias")
OPENAI = Layout("/w", "/b", "/g", "/b", LeadingOne)


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
        ignorable: patterns of tensors that hold nothing of the model: optimizer slots, counters.
        buffers: tensors that hold nothing of the model as long as they hold what they must.
        duplicates: copies of tied weights.
        constants: tensors that no variable holds, because they follow from the config.
    """

    rows: tuple[Row, ...]
    old_names: tuple[tuple[str, str], ...] = ()
    ignorable: tuple[str, ...] = ()
    buffers: tuple[Buffer, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    constants: tuple[Constant, ...] = ()

    def canonical(self, name: str) -> str:
        """Today's spelling of a tensor's name."""
        for pattern, replacement in self.old_names:
            name = re.sub(pattern, replacement, name)
        return name

    def is_ignorable(self, name: str) -> bool:
        return any(re.search(pattern, name) for pattern in self.ignorable) or self.buffer(name) is not None

    def buffer(self, name: str) -> Buffer | None:
        return next((buffer for buffer in self.buffers if re.search(buffer.pattern, name)), None)

    def expand(self, counts: Blocks) -> list[Row]:
        """All rows with their placeholders filled in, in table order."""
        return [expanded for item in self.rows for expanded in item.expand(counts)]


def counts(config: TransformerConfig, stored: TransformerConfig | None = None) -> Blocks:
    """What the placeholders of the naming tables stand for in each block of a model.

    Args:
        config: the model's.
        stored: the checkpoint's, where the model shares its weights in another way.
    """
    layers, decoder = config.num_hidden_layers, config.num_decoder_layers
    shared = _shared_blocks(config, stored or config)
    return {
        "layer": [{"layer": index} for index in range(layers)],
        "number": [{"layer": index, "number": index + 1} for index in range(layers)],
        "decoder_layer": [{"decoder_layer": index} for index in range(layers if decoder is None else decoder)],
        "group": shared,
        "block": shared,
    }


def _shared_blocks(config: TransformerConfig, stored: TransformerConfig) -> list[dict[str, Any]]:
    """ALBERT's blocks in order: the name that is common to their layers, and where their tensors stand.

    Blocks with the same weights have the same name: the first one's, or, if that is all blocks, one without a number.
    """
    places, tensors = _places(config), _places(stored)
    alike = len(set(places)) == 1
    # A model of more layers than the checkpoint has nothing to fill the others with, unless all are alike.
    return [
        {"block": "Transformer" if alike else f"Transformer-{places.index(place)}", "group": group, "inner": inner}
        for place, (group, inner) in zip(places, tensors, strict=False)
    ]


def _places(config: TransformerConfig) -> list[tuple[int, int]]:
    """(group, inner block) of each block, as ALBERT divides layers into groups with common weights."""
    layers = config.num_hidden_layers
    groups = (layer * config.num_hidden_groups // layers for layer in range(layers))
    return [(group, inner) for group in groups for inner in range(config.inner_group_num)]
