"""From a checkpoint's naming table to another one's, a tensor of the target at a time, without a model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import numpy as np

from tfloader.ahead import done_ahead
from tfloader.checkpoints.writing import Item
from tfloader.checks import Check
from tfloader.conversion import companions
from tfloader.conversion.comparison import compared
from tfloader.conversion.folder import new_folder, problems_with
from tfloader.conversion.source import Source, token_ids
from tfloader.errors import ConversionError, TfloaderError, listing
from tfloader.naming.assembly import assembled
from tfloader.naming.fit import READABLE_DTYPES
from tfloader.naming.release import Release
from tfloader.naming.writing import as_published, release_to_write, write_folder
from tfloader.progress import progress_bar

VERIFY_UP_TO = 1000**3  # bytes of tensors
MAX_SHARD_BYTES = 5 * 1000**3


def export(
    source: str,
    target: str,
    *,
    to: str,
    model: str | None = None,
    dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    keep_tokens: Any = None,
    tokenizer: str | os.PathLike[str] | bool | None = None,
    ignore: Collection[str] = (),
    rename: Mapping[str, str] | None = None,
    verify: bool | None = None,
) -> list[Check]:
    """Writes a folder of tensors; see `tfloader.convert`. `to` is "huggingface" or "tensorflow"."""
    with Source(source, token_ids(keep_tokens), model, ignore, rename) as opened:
        plan = plan_of(opened, target, to, dtype, tokenizer)
        with new_folder(target, nbytes=plan.nbytes) as stage:
            with (
                progress_bar(f"{source} to {to}", plan.nbytes) as bar,
                made_ahead(plan.tensors, bar) as tensors,
            ):
                write_folder(stage, plan.release, plan.config, tensors, max_shard_bytes)
            companions.write(stage, plan.tokenizer, plan.release, plan.generation)
            checks = [*plan.report, *verified(opened, stage, plan, verify)]
    return checks


@dataclass(frozen=True)
class Plan:
    """All that is to be written, complete before anything is; `report` says what there is to know about it."""

    release: Release
    config: dict[str, Any]
    tensors: list[Item]
    tokenizer: Any | None
    generation: dict[str, Any] | None
    report: list[Check]

    @property
    def nbytes(self) -> int:
        return sum(spec.nbytes for _, spec, _ in self.tensors)


class Problems(list[str]):
    """What keeps a source from becoming a target, collected before anything is written.

    Attributes:
        tokenizer, generation: what goes along, as far as it can be read.
    """

    def __init__(self, source: Source, target: str, tokenizer: Any) -> None:
        super().__init__([*problems_with(target, source.path), *source.problems()])
        self.source, self.target = source.path, target
        self.tokenizer = self.caught(companions.tokenizer_of, source, tokenizer)
        self.generation = self.caught(companions.generation_defaults, source)

    def caught(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns; None where it raises, which is noted."""
        try:
            return function(*arguments)
        except TfloaderError as error:
            self.append(str(error))
            return None

    def refuse(self) -> NoReturn:
        raise ConversionError(f"{self.source} cannot become {self.target}; nothing was written:\n{listing(self)}")


def plan_of(source: Source, target: str, to: str, dtype: str | None, tokenizer: Any) -> Plan:
    """Pairs every tensor of the target with its variables, and every variable with a place.

    Raises:
        ConversionError: listing what is wrong with the source, what the target cannot hold, and what is in its place.
    """
    problems = Problems(source, target, tokenizer)
    if dtype not in (None, *READABLE_DTYPES):
        problems.append(f"dtype must be one of {', '.join(READABLE_DTYPES)}, found {dtype!r}.")
        dtype = None
    release: Release = problems.caught(release_to_write, source.config, to, source.release)
    if release is None:
        problems.refuse()
    tensors, unplaced = assembled(source.variables, release, source.config, dtype)
    problems += unplaced
    shapes = {name: spec.shape for name, spec, _ in tensors}
    config, lost = problems.caught(companions.translated_config, source, release, shapes) or ({}, [])
    if problems:
        problems.refuse()
    tensors = as_published(release, config, tensors)
    tensors.sort(key=lambda item: -item[1].numpy_dtype.itemsize)  # the order of a safetensors file
    report = _report(source, release, tensors, problems.tokenizer, lost)
    return Plan(release, config, tensors, problems.tokenizer, problems.generation, report)


@contextlib.contextmanager
def made_ahead(tensors: Sequence[Item], bar: Any) -> Iterator[list[Item]]:
    """The same tensors, to be asked for in this order: while one is written, a thread makes the next."""
    order = iter(range(len(tensors)))

    def take(asked: int) -> np.ndarray:
        if (index := next(order)) != asked:
            raise RuntimeError(f"tensor {asked} was asked for before tensor {index}")
        array = next(arrays)
        bar.update(array.nbytes)
        return array

    with contextlib.closing(done_ahead([(spec.nbytes, make) for _, spec, make in tensors], threads=1)) as arrays:
        yield [(name, spec, partial(take, index)) for index, (name, spec, _) in enumerate(tensors)]


def _report(
    source: Source, release: Release, tensors: Sequence[Item], tokenizer: Any | None, lost: Sequence[str]
) -> list[Check]:
    nbytes = sum(spec.nbytes for _, spec, _ in tensors)
    dtypes = ", ".join(sorted({spec.dtype for _, spec, _ in tensors}))
    checks = [
        Check("source", "ok", f"{source.release.title}, {len(source.variables)} variables"),
        Check("target", "ok", f"{release.title}, {len(tensors)} tensors, {dtypes}, {nbytes:,} bytes"),
        Check("tokenizer", "ok", type(tokenizer).__name__) if tokenizer else Check("tokenizer", "skipped", "none"),
    ]
    if foreign := source.fit.foreign:
        checks.append(Check("left behind", "ok", f"{len(foreign)} tensors that are not of the model: {foreign[0]} ..."))
    if lost:
        checks.append(Check("unsaid", "ok", f"{release.written_config} has no words for " + "; ".join(lost)))
    return checks


def verified(source: Source, stage: str, plan: Plan, wanted: bool | None) -> Iterator[Check]:
    """Whether what was written is what was meant: its release and config always, the rest if it is wanted.

    Raises:
        ConversionError: it is not.
    """
    with Source(stage, model=source.model, like=source) as again:
        is_meant = again.release == plan.release
        if problems := again.problems() if is_meant else [f"it reads as {again.release.title}"]:
            raise ConversionError(f"What was written is not whole. Please report this bug:\n{listing(problems)}")
        if reason := reason_not_to_verify(max(source.nbytes, plan.nbytes), wanted):
            yield Check("verify", "skipped", reason)
            return
        checks = list(compared(source, again, plan.tokenizer or False))
    if failed := [f"{check.name}: {check.detail}" for check in checks if check.status == "FAILED"]:
        raise ConversionError(f"What was written is not the same model, so it was removed:\n{listing(failed)}")
    yield from checks


def reason_not_to_verify(nbytes: int, wanted: bool | None) -> str | None:
    """Why what was written is not verified; None where it is."""
    if wanted is None and nbytes > VERIFY_UP_TO:
        return f"{nbytes:,} bytes are more than {VERIFY_UP_TO:,}; ask for it with --verify"
    return "not wanted" if wanted is False else None
