"""Which tensor of a checkpoint is which variable of a model: `fit`, whose result `load` and all commands show.

Names, shapes and dtypes decide, so it needs no framework; the shapes are those of the model's own variables. Only
`Fit.disagreements` reads tensors: those that must repeat others, or follow from the config.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfloader.checkpoints.base import Checkpoint, TensorSpec
from tfloader.config import TransformerConfig
from tfloader.errors import WeightsError, listing
from tfloader.naming.base import Identity, Naming, Row, Shape, counts
from tfloader.naming.constants import Constant
from tfloader.naming.heads import PART
from tfloader.naming.release import Release

READABLE_DTYPES = ("bfloat16", "float16", "float32")
ROUNDING = {"float16": 1e-3, "bfloat16": 1e-2}


@dataclass(frozen=True)
class Source:
    """A row of the naming table, with the name of its tensor as the file spells it."""

    row: Row
    name: str


@dataclass
class Fit:
    """What each tensor of a checkpoint is for, and what is wrong with them.

    Attributes:
        release, specs, config: what was judged; the config is the checkpoint's own.
        variables: path -> shape in the checkpoint, of all that the model takes from there; None: names alone were
            judged, and nothing is found missing or of a wrong shape.
        sources: rows that have their tensor, in the order of the table; a stored copy stands in where the original is
            absent.
        parts: optional parts of which there are tensors, and, if variables are known, that the model has.
        tied: optional parts whose tensors are the embedding's.
        foreign: tensors that are declared to hold nothing of the model: optimizer slots, constants, what was ignored.
        unread: tensors of parts or blocks that were left out on purpose.
        unknown: tensors without a use -> why.
        new: variables of a head that is not the checkpoint's, by path; they are not among `variables`.
        missing: variables without a tensor, each told.
        misfits: tensors of a wrong shape or dtype, each told.
        repeats: pairs of tensors that must hold the same values.
        constants: tensors that must hold what follows from the config, or always the same.
    """

    release: Release
    specs: Mapping[str, TensorSpec]
    config: TransformerConfig
    variables: Mapping[str, Shape] | None
    sources: list[Source] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    tied: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)
    repeats: list[tuple[str, str]] = field(default_factory=list)
    constants: list[tuple[str, Constant]] = field(default_factory=list)

    def options(self, family: Any) -> dict[str, Any]:
        """The options of a family's builder that make every part of which there is something, and no other."""
        return family.options_for({*self.parts, *self.tied})

    @property
    def unused(self) -> list[str]:
        """The tensors without a use, each told with its shape and the reason."""
        return [f"{name} {self.specs[name].shape} has no use: {why}" for name, why in self.unknown.items()]

    def disagreements(self, checkpoint: Checkpoint) -> Iterator[str]:
        """What is wrong with stored copies and constants, whose values are read from the checkpoint."""
        for first, second in self.repeats:
            yield from differences(checkpoint, first, second)
        for name, constant in self.constants:
            yield from deviations(checkpoint, name, constant, self.config)

    def problems(self, checkpoint: Checkpoint) -> list[str]:
        """All that keeps the checkpoint from being just this model, whole."""
        return [*self.missing, *self.unused, *self.misfits, *self.disagreements(checkpoint)]

    def refuse(self, checkpoint: Checkpoint) -> None:
        """Raises a WeightsError that lists all problems, if there are any."""
        hint = "\n  If the model does not need them, name them in ignore=[...] (patterns such as 'classifier.*')."
        sections = (
            ("Variables without a source", self.missing, ""),
            ("Tensors without a use", self.unused, hint),
            ("Tensors that do not fit", [*self.misfits, *self.disagreements(checkpoint)], ""),
        )
        told = [f"{title} ({len(found)}):\n{listing(found)}{hint}" for title, found, hint in sections if found]
        if told:
            title = self.release.title
            raise WeightsError(f"{checkpoint.path} ({title}) does not fit the model:\n" + "\n".join(told))


def fit(
    specs: Mapping[str, TensorSpec],
    release: Release,
    config: TransformerConfig,
    variables: Mapping[str, Shape] | None = None,
    ignore: Collection[str] = (),
    stored_config: TransformerConfig | None = None,
    left_out: Collection[str] = (),
) -> Fit:
    """Pairs the tensors of a checkpoint with the variables of a model, through the naming table of the release.

    Args:
        specs: name -> shape and dtype; an open Checkpoint is such a mapping.
        config: the model's.
        variables: path -> shape in the checkpoint, of every variable that a tensor must fill; those that are not in
            the table have any other name. None: names alone are judged.
        ignore: patterns of tensors that may stay unread.
        stored_config: the checkpoint's, if the model's differs; blocks that only it has may stay unread.
        left_out: optional parts that the model was built without on purpose; their tensors may stay unread.
    """
    naming = release.naming
    found = Fit(release, specs, stored_config or config, variables)
    every = naming.expand(counts(config, stored_config))
    rows = [row for row in every if not (row.untied and config.tie_word_embeddings)]
    table = {row.theirs: row for row in rows}
    found.tied = list(dict.fromkeys(row.part for row in every if row.part and row.theirs not in table))
    names = _by_canonical_name(found, ignore)

    repeated = []
    for copy in naming.duplicates:
        if copy.theirs in names and copy.theirs not in table:
            name = names.pop(copy.theirs)
            if names.setdefault(copy.of, name) != name:
                repeated.append((copy.of, name))
    _match(found, [row for row in rows if row.part != PART or config.head], names)
    used = {source.row.theirs: source.name for source in found.sources}
    found.repeats += [(used[original], name) for original, name in repeated if original in used]

    found.parts = list(dict.fromkeys(source.row.part for source in found.sources if source.row.part))
    beyond = {row.theirs for row in naming.expand(counts(found.config))} - {row.theirs for row in every}
    for canonical, name in names.items():
        row = table.get(canonical)
        if canonical in beyond or (row and row.part in left_out):
            found.unread.append(name)
        else:
            found.unknown[name] = _why_unused(found, row, config.head)
    return found


def canonical_names(specs: Iterable[str], naming: Naming, ignore: Collection[str] = ()) -> set[str]:
    """Today's spellings of the tensors that are not ignored."""
    return {naming.canonical(name) for name in specs if not any(fnmatch.fnmatchcase(name, item) for item in ignore)}


def _by_canonical_name(found: Fit, ignore: Iterable[str]) -> dict[str, str]:
    """Today's spelling -> name in the file, of what may be the model's; the rest is sorted out."""
    naming = found.release.naming
    constants = {constant.theirs: constant for constant in naming.constants}
    names: dict[str, str] = {}
    for name, spec in found.specs.items():
        canonical, buffer = naming.canonical(name), naming.buffer(name)
        ignored = any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)
        constant = buffer.at(name, tuple(spec.shape)) if buffer else constants.get(canonical)
        if ignored or constant or naming.is_ignorable(name):
            found.foreign.append(name)
            if constant and not ignored:
                found.constants.append((name, constant))
        elif names.setdefault(canonical, name) != name:
            found.repeats.append((names[canonical], name))
    return names


def _match(found: Fit, rows: Iterable[Row], names: dict[str, str]) -> None:
    """Takes from `names` the tensor of each row whose variables the model has."""
    filled: set[str] = set()
    variables = found.variables
    for row in rows:
        if variables is not None and not all(path in variables for path in row.ours):
            continue
        if row.theirs in names:
            source = Source(row, names.pop(row.theirs))
            if variables is not None:
                source = _by_heads(found, source, variables)
            found.sources.append(source)
            if variables is not None:
                found.misfits += _misfits(found, source, variables)
                if filled & set(row.ours):
                    found.misfits.append(f"{source.name} is another tensor for {' + '.join(row.ours)}, which have one")
        elif variables is not None:
            found.missing.append(f"{' + '.join(row.ours)} has no tensor {row.theirs!r}")
        filled.update(row.ours)
    unnamed = [path for path in variables or () if path not in filled]
    found.missing += [f"{path} is not in the table of {found.release.title}" for path in unnamed]


@dataclass(frozen=True)
class ByHeads(Identity):
    """Their tensor has one axis of ours as two, [heads, size of a head]."""

    plain: Shape
    stored: Shape
    inner: Identity

    def their_shape(self, *ours: Shape) -> Shape:
        return self.stored

    def to_ours(self, array: np.ndarray) -> Sequence[np.ndarray]:
        return self.inner.to_ours(array.reshape(self.plain))

    def to_theirs(self, *arrays: np.ndarray) -> np.ndarray:
        return self.inner.to_theirs(*arrays).reshape(self.stored)


def _by_heads(found: Fit, source: Source, variables: Mapping[str, Shape]) -> Source:
    """The same, read by heads where an attention's tensor is stored so."""
    row, stored = source.row, found.specs[source.name].shape
    plain = tuple(row.op.their_shape(*(variables[path] for path in row.ours)))
    heads = found.config.num_attention_heads, found.config.head_size
    split = [(*plain[:axis], *heads, *plain[axis + 1 :]) for axis, size in enumerate(plain) if size == math.prod(heads)]
    if "Attention/" not in row.ours[0] or stored not in split:
        return source
    return Source(replace(row, op=ByHeads(plain, stored, row.op)), source.name)


def _misfits(found: Fit, source: Source, variables: Mapping[str, Shape]) -> Iterator[str]:
    spec = found.specs[source.name]
    expected = tuple(source.row.op.their_shape(*(variables[path] for path in source.row.ours)))
    if spec.shape != expected:
        differing = {size for size, other in zip(expected, spec.shape, strict=False) if size != other}
        hint = " (saved after keep_tokens? pass vocab_size=)" if found.config.vocab_size in differing else ""
        yield f"{source.name} has shape {spec.shape}, the config means {expected}{hint}"
    if spec.dtype not in READABLE_DTYPES:
        yield f"{source.name} is stored as {spec.dtype}; supported: {', '.join(READABLE_DTYPES)}"


def _why_unused(found: Fit, row: Row | None, head: str | None) -> str:
    if row is None:
        return f"a {found.release.title} model has none of this name"
    if row.part == PART:
        its = f"head={found.config.head!r}" if found.config.head else "head=..., of which the config says nothing,"
        if head:
            return f"it is of another head: pass {its}, or name it in ignore=[...] for a new {head!r}"
        return f"it is of a head for a task: pass {its} for it, or head=False for the model without it"
    if row.part:
        return f"it is of the part {row.part!r}, which the family does not declare in `heads`, or did not make"
    return f"a model with this config has no {' + '.join(row.ours)}"


def differences(checkpoint: Checkpoint, first: str, second: str) -> Iterator[str]:
    """What is wrong with a tensor that should repeat another one, bit for bit."""
    if tuple(checkpoint[first].shape) != tuple(checkpoint[second].shape):
        yield f"{second} should repeat {first}, but has another shape"
        return
    one, other = checkpoint.read(first), checkpoint.read(second)
    if one.dtype != other.dtype or not np.array_equal(np.ravel(one).view("uint8"), np.ravel(other).view("uint8")):
        yield f"{second} should repeat {first} (tied weights), but has other values"


def deviations(checkpoint: Checkpoint, name: str, constant: Constant, config: TransformerConfig) -> Iterator[str]:
    """What is wrong with a tensor that should hold what follows from the config."""
    if tuple(checkpoint[name].shape) != constant.shape(config):
        yield f"{name} has shape {tuple(checkpoint[name].shape)}, the config means {constant.shape(config)}"
        return
    rounding = ROUNDING.get(checkpoint[name].dtype, 1e-6)
    found = checkpoint.read(name).astype("float32")
    if not np.allclose(found, constant.values(config), rtol=rounding, atol=rounding):
        yield f"{name} should be a constant that follows from the config, but has other values (unless in ignore=[...])"
