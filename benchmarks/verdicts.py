"""Do `load`, `info`, `verify` and `convert` give the same verdict on the same damaged checkpoint?

    python benchmarks/verdicts.py [--real N] [--judged N] [--fixtures PATTERN ...]

Damages every tensor of every fixture in tests/fixtures/checkpoints in each of eight ways, one at a time, in memory.
Of each, what the judge tells each command is compared; of N mutants of each kind and fixture (1), also what the
commands themselves do, run from end to end. Prints a table in Markdown; the exit status is 1 if verdicts differ.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from common import table

from tfloader import inspection
from tfloader.checkpoints import open_checkpoint
from tfloader.checkpoints.base import Checkpoint, TensorSpec, Watch
from tfloader.conversion import convert
from tfloader.conversion.variables import Variables
from tfloader.errors import TfloaderError
from tfloader.models import builder
from tfloader.naming import config_beside, release_of, renamed
from tfloader.naming.assembly import assembled
from tfloader.naming.fit import fit
from tfloader.naming.release import Release
from tfloader.naming.writing import release_to_write
from tfloader.weights import fitted

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures" / "checkpoints"
# Fixtures whose tensors are named as in several families', or that hold two models: the families to ask for.
FAMILIES = {"b4k_roformer": ("roformer",), "electra_google": ("electra", "electra_generator")}
COMMANDS = ("load", "info", "verify", "convert")
SPELLINGS = (
    lambda name: f"module.{name}",
    lambda name: f"model.{name}",
    lambda name: name.partition("/")[2],
    lambda name: name.partition(".")[2],
    lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
)


class Mutant(Checkpoint):
    """A checkpoint of the same files and container with other tensors."""

    def __init__(self, origin: Checkpoint, tensors: dict[str, np.ndarray]) -> None:
        specs = {name: TensorSpec(array.shape, array.dtype.name) for name, array in tensors.items()}
        super().__init__(origin.path, tuple(map(Watch, origin.files)), specs)
        self.format, self.tensors = origin.format, tensors

    def _read(self, name: str, spec: TensorSpec) -> np.ndarray:
        return np.ascontiguousarray(self.tensors[name]).copy()

    def close(self) -> None:
        """It may be opened again."""


# ---- the ways to damage a tensor: (tensors, its name, the release) -> whether it could be done


def _change(change: Callable[[np.ndarray], np.ndarray], rank: int = 0) -> Callable[..., bool]:
    def mutate(tensors: dict[str, np.ndarray], name: str, release: Release) -> bool:
        if tensors[name].ndim < rank:
            return False
        tensors[name] = change(tensors[name])
        return True

    return mutate


def _doubled(change: float) -> Callable[..., bool]:
    def mutate(tensors: dict[str, np.ndarray], name: str, release: Release) -> bool:
        naming, wanted = release.naming, release.naming.canonical(name)
        others = (spelling(name) for spelling in SPELLINGS)
        other = next((item for item in others if item not in tensors and naming.canonical(item) == wanted), None)
        if other is not None:
            tensors[other] = tensors[name] + tensors[name].dtype.type(change)
        return other is not None

    return mutate


def _dropped(tensors: dict[str, np.ndarray], name: str, release: Release) -> bool:
    return tensors.pop(name) is not None


def _renamed(tensors: dict[str, np.ndarray], name: str, release: Release) -> bool:
    tensors[f"{name}x"] = tensors.pop(name)
    return True


KINDS: dict[str, Callable[..., bool]] = {
    "transposed": _change(np.transpose, rank=2),
    "one row short": _change(lambda array: array[:-1], rank=1),
    "one column short": _change(lambda array: array[..., :-1], rank=2),
    "dropped": _dropped,
    "doubled, equal": _doubled(0),
    "doubled, other values": _doubled(1),
    "renamed": _renamed,
    "int32": _change(lambda array: array.astype("int32")),
}


# ---- verdicts: per command, whether it accepts


@dataclass
class Fixture:
    """A checkpoint, and the family that is asked for; models are built once for each config and set of heads."""

    folder: str
    family: str | None = None
    models: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with open_checkpoint(self.folder) as origin:
            self.origin = origin
            self.tensors = {name: np.array(origin.read(name)) for name in origin}
            self.release = release_of(origin, self.family)

    def __str__(self) -> str:
        return f"{Path(self.folder).name}{f' ({self.family})' if self.family else ''}"

    def mutants(self, kinds: Sequence[str] = tuple(KINDS)) -> Iterator[tuple[str, str, Mutant]]:
        """Each kind, the tensor, and the checkpoint in which it is damaged so."""
        for kind in kinds:
            for name in self.tensors:
                tensors = dict(self.tensors)
                if KINDS[kind](tensors, name, self.release):
                    yield kind, name, Mutant(self.origin, tensors)

    def judged(self, checkpoint: Checkpoint) -> dict[str, bool]:
        """By what the judge says to each command: with every head of which there is a tensor."""
        try:
            release, config, options = self._understood(checkpoint)
            key = repr((config, sorted(options.items())))
            if key not in self.models:
                transformer = builder.FAMILIES[config.family](config, dtype="float32", **options)
                transformer.initializer.filled_later = True
                self.models[key] = transformer.build()
            wide = fitted(self.models[key], checkpoint, release, (), config)
            strict = fitted(self.models[key], checkpoint, release, left_out=())
            target = release_to_write(config, release.writes or "huggingface", release)
            lost = assembled(Variables(checkpoint, strict), target, config)[1]
            load, whole = wide.problems(checkpoint), strict.problems(checkpoint)
        except TfloaderError:
            return dict.fromkeys(COMMANDS, False)
        known = not fit(checkpoint, release, config).unknown  # all that `info` sees
        return {
            "load": not load,
            "info": not load and known,
            "verify": not (load or whole),
            "convert": not (whole or lost),
        }

    def _understood(self, checkpoint: Checkpoint) -> tuple[Release, Any, dict[str, Any]]:
        release = release_of(checkpoint, self.family)
        config, _ = config_beside(checkpoint, release)
        return release, config, fit(checkpoint, release, config).options(builder.FAMILIES[config.family])

    def run(self, checkpoint: Checkpoint, folder: str) -> dict[str, bool]:
        """By the commands themselves, run on the fixture's folder with other tensors in its files."""

        def opened(path: Any, *arguments: Any, **options: Any) -> Checkpoint:
            return checkpoint if os.fspath(path) == self.folder else open_checkpoint(path, *arguments, **options)

        with mock.patch.object(renamed, "open_checkpoint", opened):
            load = self._accepts(self._load, checkpoint)
            checks = [check.status for check in inspection.verify(self.folder, self.family)]
            return {"load": load, "verify": "FAILED" not in checks, "convert": self._accepts(self._convert, folder)}

    @staticmethod
    def _accepts(command: Callable[[Any], None], argument: Any) -> bool:
        try:
            command(argument)
        except TfloaderError:
            return False
        return True

    def _load(self, checkpoint: Checkpoint) -> None:
        options = self._understood(checkpoint)[2]
        builder.load(self.folder, model=self.family, dtype="float32", **options)

    def _convert(self, folder: str) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        to = self.release.writes or "huggingface"
        convert(self.folder, folder, to, model=self.family, tokenizer=False, verify=False)


def fixtures(patterns: Sequence[str] = ("*",)) -> Iterator[Fixture]:
    """Those of these names that this environment can read."""
    for folder in sorted(path for pattern in patterns for path in FIXTURES.glob(pattern) if path.is_dir()):
        for family in FAMILIES.get(folder.name, (None,)):
            try:
                yield Fixture(str(folder), family)
            except TfloaderError as error:
                print(f"left out: {folder.name}: {str(error).splitlines()[0]}", file=sys.stderr)


def compared(chosen: Sequence[Fixture], real: int, per_kind: int | None = None, seed: int = 0) -> tuple[Counter, list]:
    """Counts of (kind, what) over all mutants, and each difference.

    Args:
        real: how many mutants of each kind and fixture the commands themselves are run on.
        per_kind: how many of each kind and fixture are judged; None: all.
    """
    tally: Counter = Counter()
    differing: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        for number, fixture in enumerate(chosen):
            for kind in KINDS:
                mutants = list(fixture.mutants([kind]))
                random.Random(f"{seed} {number} {kind}").shuffle(mutants)
                for index, (_, name, mutant) in enumerate(mutants[:per_kind]):
                    verdict = fixture.judged(mutant)
                    tally[kind, "judged"] += 1
                    tally[kind, "accepted" if verdict["load"] else "refused"] += 1
                    if len(set(verdict.values())) > 1:
                        tally[kind, "differ"] += 1
                        differing.append(f"{fixture}: {name} {kind}: judged {verdict}")
                    if index < real:
                        found = fixture.run(mutant, os.path.join(place, "out"))
                        tally[kind, "run"] += 1
                        if any(found[command] != verdict[command] for command in found):
                            tally[kind, "run differ"] += 1
                            differing.append(f"{fixture}: {name} {kind}: judged {verdict}, run {found}")
            fixture.models.clear()
    return tally, differing


COLUMNS = ("judged", "refused", "accepted", "differ", "run", "run differ")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=int, default=1, help="mutants of each kind and fixture that are run (1)")
    parser.add_argument("--judged", type=int, help="mutants of each kind and fixture that are judged (all)")
    parser.add_argument("--fixtures", nargs="+", default=["*"], help="names of fixtures, as patterns (all)")
    options = parser.parse_args()
    chosen = list(fixtures(options.fixtures))
    tally, differing = compared(chosen, options.real, options.judged)
    rows = [[kind, *(str(tally[kind, column]) for column in COLUMNS)] for kind in KINDS]
    total = [str(sum(tally[kind, column] for kind in KINDS)) for column in COLUMNS]
    print(f"{len(chosen)} fixtures of {len({fixture.release.name for fixture in chosen})} releases\n")
    print(table(["each tensor", *COLUMNS], [*rows, ["all", *total]]))
    print("\n".join(differing))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
