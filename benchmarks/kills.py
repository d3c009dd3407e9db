"""Is a folder ever there and not whole? Kills what writes folders, at random moments and at its calls, and looks.

    python benchmarks/kills.py TASK[,TASK...] [KILLS] [SEED]

Each task runs in a forked process that gets SIGKILL. Every second kill comes at a moment drawn from the time that the
whole task takes. The others come before a call on the file system (Python's audit events tell of them): first the call
in which things appear, the last that renames or exchanges; then those beside it, further and further away. After each
kill the readers must find all of the old state or all of the new one:

- convert: a checkpoint of random values into many small shards, where nothing is; and the source as it was.
- save: a model with its tokenizer over an older save, which differs in weights, config and tokenizer, beside a user's
  file. The folders change places in one step.
- save-in-place: the same where the folder has a subfolder, and so stays the same one.
- unpack: an archive of many files, where nothing is.
- download: the same archive, from a server in this process; what was fetched before a kill is not fetched again.
- backup: a training's state over the one of an epoch before.

Then the task runs once more, and is not killed: the new state must be there, and no file or folder besides. Prints a
line of JSON for each task.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import itertools
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from load import gpt2

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BERT = os.path.join(ROOT, "tests", "fixtures", "checkpoints", "bert_google")
PARTS = 20  # about; each is written and synced
CALLS = {f"os.{name}" for name in ("link", "mkdir", "remove", "rmdir")}  # besides, files opened and renamed
FAR = 60.0  # seconds that no task takes


class Task:
    """What is killed. The folder `target` is where its files are to appear."""

    def __init__(self, folder: str):
        self.target = os.path.join(folder, "target")

    def reset(self) -> None:
        """Brings about the old state."""
        shutil.rmtree(self.target, ignore_errors=True)

    def run(self) -> None:
        """Brings about the new one."""
        raise NotImplementedError

    def state(self) -> Any:
        """What the readers find, as a value that `==` compares."""
        raise NotImplementedError


class Convert(Task):
    def __init__(self, folder: str):
        import tfloader.models.builder  # noqa: F401  by which a conversion is judged: seconds, and only once

        super().__init__(folder)
        self.source = os.path.join(folder, "source")
        self.size = _write_source(self.source)

    def run(self) -> None:
        import tfloader

        tfloader.convert(self.source, self.target, dtype="float32", max_shard_bytes=self.size, verify=False)

    def state(self) -> Any:
        return _hashes(self.source), _tensors(self.target) if os.path.lexists(self.target) else None


class Save(Task):
    subfolder = False

    def __init__(self, folder: str):
        import numpy as np

        import tfloader

        super().__init__(folder)
        vocabulary = tfloader.load_vocab(os.path.join(BERT, "vocab.txt"))
        self.models = [tfloader.load(BERT, layer_norm_eps=value) for value in (1e-12, 0.5)]
        self.models[1].get_layer("Embedding-Norm").beta.assign_add(np.ones(48))
        self.tokenizers = [tfloader.Tokenizer(vocabulary, do_lower_case=lowers) for lowers in (True, False)]
        os.makedirs(os.path.join(self.target, "logs") if self.subfolder else self.target)
        with open(os.path.join(self.target, "notes.txt"), "w", encoding="utf-8") as file:
            file.write("mine")

    def reset(self) -> None:
        self._save(0)

    def run(self) -> None:
        self._save(1)

    def _save(self, index: int) -> None:
        import tfloader

        tfloader.save(self.models[index], self.target, tokenizer=self.tokenizers[index], max_shard_bytes=20_000)

    def state(self) -> Any:
        import tfloader

        with open(os.path.join(self.target, "notes.txt"), encoding="utf-8") as file:
            notes = file.read()
        tokenizer = tfloader.load_tokenizer(self.target)
        return _tensors(self.target), tfloader.load_config(self.target), tokenizer.encode("A b")[0], notes


class SaveInPlace(Save):
    subfolder = True


class Unpack(Task):
    def __init__(self, folder: str):
        super().__init__(folder)
        self.archive = os.path.join(folder, "archive.zip")
        values = random.Random(0)
        with zipfile.ZipFile(self.archive, "w") as file:
            for number in range(PARTS):
                file.writestr(f"file-{number}.bin", values.randbytes(50_000))

    def run(self) -> None:
        from tfloader.downloads.archives import unpack

        unpack(self.archive, self.target)

    def state(self) -> Any:
        if not os.path.lexists(self.target):
            return None
        return {name: value for name, value in _hashes(self.target).items() if name != ".download.json"}  # with times


class Download(Unpack):
    def __init__(self, folder: str):
        super().__init__(folder)
        with open(self.archive, "rb") as file:
            data = file.read()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(data) - start))
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("ETag", '"one"')
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(data[start:])

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{server.server_port}/archive.zip"

    def run(self) -> None:
        import tfloader

        tfloader.download(self.address, self.target)


class Backup(Task):
    def __init__(self, folder: str):
        super().__init__(folder)
        self.models = [self._model(value) for value in (1, 2)]
        self.reader = self._model(0)

    @staticmethod
    def _model(value: float) -> Any:
        import keras
        import numpy as np

        model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(100, name="only")], name="model")
        model.compile("adam", "mse")
        for weight in model.weights:
            weight.assign(np.full(weight.shape, value, "float32"))
        return model

    def reset(self) -> None:
        self._save(0)

    def run(self) -> None:
        self._save(1)

    def _save(self, epoch: int) -> None:
        import tfloader

        backup = tfloader.TrainingBackup(self.target)
        backup.set_model(self.models[epoch])
        backup.on_epoch_end(epoch, {"loss": float(epoch)})

    def state(self) -> Any:
        import tfloader

        epoch = tfloader.TrainingBackup(self.target).restore(self.reader)
        return epoch, [weight.tobytes() for weight in self.reader.get_weights()]


TASKS: dict[str, Callable[[str], Task]] = {
    "convert": Convert,
    "save": Save,
    "save-in-place": SaveInPlace,
    "unpack": Unpack,
    "download": Download,
    "backup": Backup,
}


# ---- kills


def kill_again_and_again(name: str, folder: str, kills: int, seed: int = 0) -> dict[str, Any]:
    """What was found after each kill, counted. `calls` are those of a whole task, and `seconds` its time; `wrong` is
    what was found that is neither `old` nor `new`, and `left` what the next run left there."""
    task = TASKS[name](folder)
    task.reset()
    old, run, new, whole = task.state(), _run(task, folder), task.state(), _names(folder)
    if old == new:
        raise RuntimeError(f"{name}: nobody could tell the new state from the old one")
    by_distance = sorted(range(1, run.calls + 1), key=lambda call: abs(call - run.last_rename - 0.5))
    near = itertools.cycle(by_distance)  # the calls before and after the rename, then those beside them
    moments, found, wrong, left = random.Random(seed), Counter(old=0, new=0, killed=0), Counter(), set()
    for kill in range(kills):
        task.reset()
        when = {"call": next(near)} if kill % 2 else {"seconds": moments.uniform(0, run.seconds)}
        found["killed"] += _run(task, folder, **when).killed
        what = _state(task)
        found["old" if what == old else "new" if what == new else "neither"] += 1
        if what not in (old, new):
            wrong[f"{when}: {str(what)[:300]}"] += 1
        if what == new:
            task.reset()
        _run(task, folder)
        if (what := _state(task)) != new:
            wrong[f"the run after {when}: {str(what)[:300]}"] += 1
        left |= _names(folder) - whole
    numbers = {"calls": run.calls, "last rename": run.last_rename, "seconds": round(run.seconds, 3)}
    return {"task": name, "kills": kills, **found, "wrong": wrong, "left": sorted(left), **numbers}


@dataclass(frozen=True)
class Run:
    seconds: float
    killed: bool
    calls: int
    last_rename: int


def _run(task: Task, folder: str, *, seconds: float | None = None, call: int = 0) -> Run:
    """Runs a task in a process of its own, which is killed after some seconds, or kills itself before a call."""
    seen = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")  # shared: the number of calls, and of the last rename
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        signal.alarm(int(FAR))
        try:
            sys.addaudithook(functools.partial(_count, seen, call, folder))
            task.run()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the task failed with status {status}")
    return Run(time.perf_counter() - began, status != 0, seen[0], seen[1])


def _count(seen: memoryview, last: int, folder: str, event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: counts what is opened and changed in the folder; kills the process before the call `last`."""
    renames = event == "os.rename" or (event == "ctypes.dlsym" and arguments[1] == "renameat2")
    if renames or event in CALLS or (event == "open" and str(arguments[0]).startswith(folder)):
        seen[0] += 1
        seen[1] = seen[0] if renames else seen[1]
        if seen[0] == last:
            os.kill(os.getpid(), signal.SIGKILL)


def _state(task: Task) -> Any:
    from tfloader.errors import TfloaderError

    try:
        return task.state()
    except (TfloaderError, OSError) as error:
        return f"{type(error).__name__}: {error}"


def _write_source(folder: str) -> int:
    """A GPT-2 of random values in bfloat16; gives the size of a shard."""
    import ml_dtypes
    import numpy as np

    from tfloader.checkpoints import TensorSpec, write_safetensors
    from tfloader.files import write_json

    config, shapes = gpt2(hidden=48, layers=1, heads=4, vocabulary=1000)
    values = np.random.default_rng(0)

    def make(shape: tuple[int, ...]) -> Any:
        return lambda: values.standard_normal(shape, "float32").astype(ml_dtypes.bfloat16)

    tensors = [(name, TensorSpec(shape, "bfloat16"), make(shape)) for name, shape in shapes.items()]
    write_safetensors(folder, tensors)
    write_json(os.path.join(folder, "config.json"), config)
    return sum(spec.nbytes for _, spec, _ in tensors) * 2 // PARTS


def _tensors(folder: str) -> dict[str, tuple[str, bytes]]:
    from tfloader.checkpoints import open_checkpoint

    with open_checkpoint(folder) as checkpoint:
        return {name: (spec.dtype, checkpoint.read(name).tobytes()) for name, spec in checkpoint.items()}


def _names(folder: str) -> set[str]:
    """All that is in a folder, by its path."""
    places = ((place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files))
    return {os.path.relpath(os.path.join(place, name), folder) for place, name in places}


def _hashes(folder: str) -> dict[str, str]:
    found = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


if __name__ == "__main__":
    sys.path.insert(0, ROOT)
    tasks, kills, seed = [*sys.argv[1:], *("convert", "50", "0")[len(sys.argv) - 1 :]]
    for task in tasks.split(","):
        with tempfile.TemporaryDirectory(prefix="tfloader-kill-") as place:
            print(json.dumps(kill_again_and_again(task, os.path.realpath(place), int(kills), int(seed))), flush=True)
