"""Does damage crash a reader, hang it, bring out another's exception, or silently give something else?

    python benchmarks/fuzz.py [TARGET ...] [--executions N] [--seconds S] [--seed N] [--first N]

An execution writes a damaged copy of a target's file and reads it. What is done to the file follows from the target,
the seed and the execution's number alone: `--first N --executions 1` repeats one. The readers (`fuzz_weights.py`,
`fuzz_torch.py`, `fuzz_texts.py`) run in forked processes with bounds on memory and time. Their files lie in memory
where the system has a place for that (/dev/shm), or where TMPDIR says. Verdicts, by the bytes' own meaning where
another reader can tell it:

- refused: a TfloaderError. same: what the whole file gives. explained: something else, and another reader finds it too.
- different: something else that no other reader confirms, or what the file does not say.
- foreign: an exception that is none of ours (MemoryError among them). crash: the process died. hang: it did not end.

Prints a table of counts and each kind of fault with its first numbers; the exit status is 1 if there is a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import mmap
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import table

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS, TOKENIZERS = (ROOT / "tests" / "fixtures" / name for name in ("checkpoints", "tokenizers"))
BENIGN = ("refused", "same", "explained")
FAULTS = ("different", "foreign", "crash", "hang")
BATCH = 10_000  # executions of one process, so that leaks end with it
MEMORY = 1 << 30  # bytes that a reader may map beyond what its process has
HANG = 30.0  # seconds
PREFIX = "tfloader-fuzz-"
NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
VALUES = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**63,
    10**30,
    0.5,
    1e308,
    "",
    "a",
    "\0",
    "\ud800",
    "é" * 300,
    [],
    {},
    [[]],
)


@dataclass(frozen=True)
class Target:
    """Files and their reader.

    Attributes:
        files: name -> content; all are there, the first `damaged` of them are damaged.
        open: called once in each process; gives a function from the folder of the files to a value that `==` compares.
        right: whether a value is what the files say by another reader; None or an exception: it cannot tell.
        shapes: end of a file's name -> a way to damage it that knows its format: (random, content) -> content.
    """

    name: str
    files: dict[str, bytes]
    open: Callable[[], Callable[[str], Any]]
    right: Callable[[str, Any], bool | None] = lambda folder, value: None
    shapes: Mapping[str, Callable[[random.Random, bytes], bytes]] = field(default_factory=dict)
    damaged: int = 1


# ---- damage


def flip(draw: random.Random, data: bytearray) -> None:
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def overwrite(draw: random.Random, data: bytearray) -> None:
    size = draw.choice((1, 2, 4, 8))
    place = draw.randrange(len(data))
    number = draw.choice(NUMBERS) & (1 << 8 * size) - 1
    data[place : place + size] = number.to_bytes(size, draw.choice(("little", "big")))


def remove(draw: random.Random, data: bytearray) -> None:
    place = draw.randrange(len(data))
    del data[place : place + draw.choice((1, 2, 8, 64, 1000))]


def cut(draw: random.Random, data: bytearray) -> None:
    del data[draw.randrange(len(data)) :]


def insert(draw: random.Random, data: bytearray) -> None:
    place = draw.randrange(len(data))
    data[place:place] = draw.randbytes(draw.choice((1, 1, 2, 8)))


def repeat(draw: random.Random, data: bytearray) -> None:
    place, target = draw.randrange(len(data)), draw.randrange(len(data))
    data[target:target] = data[place : place + draw.choice((1, 4, 16, 256))]


def damaged_bytes(draw: random.Random, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if data:
            draw.choice((flip, overwrite, remove, cut, insert, repeat))(draw, data)
    return bytes(data)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def damaged_json(draw: random.Random, content: bytes) -> bytes:
    """JSON with one to three values replaced, exchanged, renamed, removed or nested."""
    value = json.loads(content)
    for _ in range(draw.choice((1, 1, 2, 3))):
        found = list(places(value))
        if not found:
            break
        (there, key), (other, other_key) = draw.choice(found), draw.choice(found)
        what = draw.randrange(6)
        if what == 0:
            there[key] = copy.deepcopy(draw.choice(VALUES))
        elif what == 1:
            there[key] = json.loads(json.dumps(other[other_key]))
        elif what == 2 and isinstance(there, dict):
            there[draw.choice((key + "x", key.upper(), "", str(other_key)))] = there.pop(key)
        elif what == 3:
            del there[key]
        elif what == 4:
            there[key] = [there[key]] if draw.random() < 0.5 else {"a": there[key]}
        elif isinstance(there[key], (int, float)):
            there[key] = draw.choice(
                (-there[key], there[key] + 1, there[key] * 2**20, str(there[key]), bool(there[key]))
            )
    text = json.dumps(value, ensure_ascii=draw.random() < 0.5)
    if draw.random() < 0.05:  # two readers of a repeated key may understand two things
        text = text.replace("{", '{"a": 1, "a": 2, ' if text[1:2] != "}" else "{", 1)
    return text.encode("utf-8", "surrogatepass")


def damaged(target: Target, seed: int, number: int) -> tuple[str, bytes]:
    """The name and content of the file that an execution damages."""
    draw = random.Random(f"{target.name} {seed} {number}")
    name = draw.choice(list(target.files)[: target.damaged])
    while True:
        known = [shape for end, shape in target.shapes.items() if name.endswith(end)]
        shape = draw.choice((damaged_bytes, *known))
        if (found := shape(draw, target.files[name])) != target.files[name]:
            return name, found


# ---- executions


def verdict(target: Target, read: Callable[[str], Any], folder: str, whole: Any) -> tuple[str, str]:
    """What came of reading a damaged folder, and where a fault is."""
    from tfloader.errors import TfloaderError

    try:
        value = read(folder)
    except TfloaderError as error:
        message = str(error)
        if len(message) > 20_000 or message != message.encode("utf-8", "replace").decode():
            return "foreign", f"a message of {len(message)} characters that no terminal prints in {origin(error)}"
        return "refused", ""
    except BaseException as error:
        return "foreign", f"{type(error).__name__}: {str(error)[:80]} in {origin(error)}"
    try:
        right = target.right(folder, value)
    except Exception:
        right = None
    if value == whole:
        return ("different", "what was changed has no effect") if right is False else ("same", "")
    return ("explained", "") if right else ("different", "another reader finds something else")


def origin(error: BaseException) -> str:
    """The innermost line of ours that an exception went through."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = [item for item in frames if f"{os.sep}tfloader{os.sep}" in item.filename][-1:] or frames[-1:]
    return f"{os.path.basename(frame[0].filename)}:{frame[0].lineno}"


class Tally:
    """Memory that a worker shares with its parent, so that what was counted outlives a crash: the number of the
    execution under way, and how many ended in each benign verdict."""

    def __init__(self) -> None:
        self.cells = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    @property
    def number(self) -> int:
        return self.cells[0]

    def begin(self, number: int) -> None:
        self.cells[0] = number

    def count(self, kind: str) -> None:
        self.cells[1 + BENIGN.index(kind)] += 1

    def counts(self) -> Counter:
        return Counter(dict(zip(BENIGN, self.cells[1:], strict=False)))


def work(target: Target, seed: int, numbers: range, folder: str, tally: Tally, report: int) -> None:
    """Runs executions in this process; faults go as lines of JSON into a file."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    read = target.open()
    refill(target, folder)
    whole = read(folder)
    with open("/proc/self/statm", encoding="ascii") as file:
        mapped = int(file.read().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        name, content = damaged(target, seed, number)
        put(folder, name, content)
        tally.begin(number)
        kind, where = verdict(target, read, folder, whole)
        if kind in BENIGN:
            tally.count(kind)
        else:
            os.write(report, (json.dumps([number, kind, where]) + "\n").encode())
        put(folder, name, target.files[name])


def put(folder: str, name: str, content: bytes) -> None:
    with open(os.path.join(folder, name), "wb") as file:
        file.write(content)


def refill(target: Target, folder: str) -> None:
    """Leaves the whole files in a folder, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    for name, content in target.files.items():
        put(folder, name, content)


@contextlib.contextmanager
def a_folder() -> Iterator[str]:
    """A folder, removed at the end; the next one's maker removes what a killed process left."""
    from tfloader.filesystem import hold, locked

    parent = tempfile.gettempdir() if "TMPDIR" in os.environ or not os.path.isdir("/dev/shm") else "/dev/shm"
    with locked(parent):
        for found in Path(parent).glob(f"{PREFIX}*"):
            if (lock := hold(str(found), wait=False)) is not None:  # or else its maker lives
                shutil.rmtree(found, ignore_errors=True)
                os.close(lock)
        place = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        lock = hold(place, wait=True)
    try:
        yield os.path.join(place, "files")
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def supervised(target: Target, seed: int, numbers: range, until: float) -> tuple[Counter, list[tuple[int, str, str]]]:
    """Runs executions in one process after another: (counts of verdicts, faults as (number, verdict, where))."""
    with a_folder() as folder:
        return _supervised(target, seed, numbers, until, folder)


def _supervised(
    target: Target, seed: int, numbers: range, until: float, folder: str
) -> tuple[Counter, list[tuple[int, str, str]]]:
    counts, faults, first = Counter(), [], numbers.start
    while first < numbers.stop and time.monotonic() < until:
        tally = Tally()
        tally.begin(-1)
        with tempfile.TemporaryFile(dir=os.path.dirname(folder)) as report:  # a pipe could be full
            child = os.fork()
            if child == 0:
                try:
                    last = min(first + BATCH, numbers.stop)
                    work(target, seed, range(first, last), folder, tally, report.fileno())
                except BaseException:
                    os.write(report.fileno(), (json.dumps([-1, "broken", traceback.format_exc()]) + "\n").encode())
                os._exit(0)
            died = watched(child, tally, until)
            report.seek(0)
            found = [tuple(json.loads(line)) for line in report]
        if broken := [where for _, kind, where in found if kind == "broken"]:
            raise RuntimeError(f"the target {target.name} cannot be run:\n{broken[0]}")
        if died in ("crash", "hang"):
            found.append((tally.number, died, f"{target.name}"))
        faults += found
        counts += tally.counts() + Counter(kind for _, kind, _ in found)
        first = max(first, tally.number + 1)
    return counts, faults


def watched(child: int, tally: Tally, until: float) -> str:
    """Waits for a process: "crash" or "hang" if it ended so, "late" if the time was up, or ""."""
    number, since, ended = -2, time.monotonic(), 0
    while not ended:
        ended, status = os.waitpid(child, os.WNOHANG)
        now = time.monotonic()
        if tally.number != number:
            number, since = tally.number, now
        hangs = number >= 0 and now - since > HANG
        if not ended and (hangs or now > until):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hang" if hangs else "late"
        time.sleep(0 if ended else 0.02)
    return "crash" if os.WIFSIGNALED(status) else ""


def main(arguments: Sequence[str] | None = None) -> int:
    import fuzz_texts
    import fuzz_torch
    import fuzz_weights

    targets = {**fuzz_torch.TARGETS, **fuzz_weights.TARGETS, **fuzz_texts.TARGETS}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", default=[], help=f"some of {', '.join(targets)} (all)")
    parser.add_argument("--executions", type=int, default=1000, help="of each target (1000)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each target (no limit)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first execution (0)")
    options = parser.parse_args(arguments)
    rows, bad = [], defaultdict(list)
    for name in options.targets or targets:
        target = targets[name]()
        numbers = range(options.first, options.first + options.executions)
        began = time.monotonic()
        counts, faults = supervised(target, options.seed, numbers, began + options.seconds)
        speed = counts.total() / (time.monotonic() - began)
        rows.append([name, str(counts.total()), f"{speed:.0f}", *(str(counts[kind]) for kind in (*BENIGN, *FAULTS))])
        for number, kind, where in faults:
            bad[name, kind, where].append(number)
    print(table(["target", "executions", "a second", *BENIGN, *FAULTS], rows))
    for (name, kind, where), found in bad.items():
        print(f"{name}: {kind}, {len(found)} times: {where}; executions {', '.join(map(str, found[:5]))}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
