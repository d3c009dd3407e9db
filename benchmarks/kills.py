"""Is a folder ever there and not whole? Kills conversions and saves at random moments and looks.

    python benchmarks/kills.py TASK[,TASK...] [KILLS] [SEED]

Each task runs in a forked process that gets SIGKILL at a moment drawn from the time that the whole task takes. After
each kill the target is judged by what `load` and `compare` find there:

- convert: a checkpoint of random values into many small shards. The target must be absent, or equal to the source in
  every tensor, and the source as it was.
- save: a model with its tokenizer over an older save. The old one must be there or the new one, in weights, config and
  tokenizer alike; folders change places in one step.
- save-in-place: the same where the folder has a subfolder, and so stays the same one.

At the end a task that is not killed must succeed, and leave nothing of the killed ones. Prints a line of JSON a task.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from typing import Any

from load import gpt2

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BERT = os.path.join(ROOT, "tests", "fixtures", "checkpoints", "bert_google")
PARTS = 40  # about; each is written and synced


class Convert:
    """Into a new folder."""

    good = ("absent", "whole")

    def __init__(self, folder: str):
        self.source, self.target = os.path.join(folder, "source"), os.path.join(folder, "target")
        self.size = _write_source(self.source)
        self.before = _hashes(self.source)

    def reset(self) -> None:
        shutil.rmtree(self.target, ignore_errors=True)

    def run(self) -> None:
        import tfloader

        tfloader.convert(self.source, self.target, dtype="float32", max_shard_bytes=self.size, verify=False)

    def found(self) -> str:
        from tfloader.conversion.comparison import compare
        from tfloader.errors import TfloaderError

        if _hashes(self.source) != self.before:
            return "source changed"
        if not os.path.lexists(self.target):
            return "absent"
        try:
            for check in compare(self.source, self.target):
                if check.status == "FAILED":
                    return f"not whole: {check.name}"
                if check.name == "tokenizer":  # the outputs would need a model
                    break
        except TfloaderError as error:
            return f"not whole: {error}"
        return "whole"


class Save:
    """Over an older save."""

    good = ("old", "new")
    subfolder = False

    def __init__(self, folder: str):
        import numpy as np

        import tfloader

        self.target = os.path.join(folder, "target")
        vocabulary = tfloader.load_vocab(os.path.join(BERT, "vocab.txt"))
        self.models = [tfloader.load(BERT), tfloader.load(BERT, layer_norm_eps=0.5)]
        self.models[1].get_layer("Embedding-Norm").beta.assign_add(np.ones(48))
        self.tokenizers = [tfloader.Tokenizer(vocabulary, do_lower_case=lowers) for lowers in (True, False)]

    def reset(self) -> None:
        shutil.rmtree(self.target, ignore_errors=True)
        self._save(0)
        with open(os.path.join(self.target, "notes.txt"), "w", encoding="utf-8") as file:
            file.write("mine")
        if self.subfolder:
            os.mkdir(os.path.join(self.target, "logs"))

    def run(self) -> None:
        self._save(1)

    def _save(self, index: int) -> None:
        import tfloader

        tfloader.save(self.models[index], self.target, tokenizer=self.tokenizers[index], max_shard_bytes=100_000)

    def found(self) -> str:
        import numpy as np

        import tfloader
        from tfloader.errors import TfloaderError

        try:
            model, tokenizer = tfloader.load(self.target), tfloader.load_tokenizer(self.target)
        except TfloaderError as error:
            return f"nothing: {error}"
        with open(os.path.join(self.target, "notes.txt"), encoding="utf-8") as file:
            if file.read() != "mine":
                return "a foreign file lost"
        which = {
            0 if model.transformer.config.layer_norm_eps < 0.5 else 1,
            0 if tokenizer.do_lower_case else 1,
            *(
                index
                for index in (0, 1)
                if all(map(np.array_equal, model.get_weights(), self.models[index].get_weights()))
            ),
        }
        return self.good[which.pop()] if len(which) == 1 else "a mixture"


class SaveInPlace(Save):
    subfolder = True


TASKS: dict[str, Any] = {"convert": Convert, "save": Save, "save-in-place": SaveInPlace}


def kill_again_and_again(name: str, folder: str, kills: int, seed: int = 0) -> dict[str, Any]:
    """What was found after each kill, counted; `seconds` is the time of a whole task."""
    task = TASKS[name](folder)
    seconds = []
    for _ in range(2):
        task.reset()
        seconds.append(_run(task, None)[1])
    moments, found = random.Random(seed), Counter({"bad": 0})
    for _ in range(kills):
        task.reset()
        in_time, _ = _run(task, moments.uniform(0, min(seconds)))
        what = task.found()
        found["kills"] += 1
        found["killed in time"] += in_time
        found[what] += 1
        found["bad"] += what not in task.good
    task.reset()
    _run(task, None)
    left = [item for place in (folder, task.target) for item in os.listdir(place) if item.startswith(".")]
    found["bad"] += bool(left) + (task.found() != task.good[1])
    return {"task": name, **found, "left": left, "seconds": round(min(seconds), 3)}


def _run(task: Any, kill_after: float | None) -> tuple[bool, float]:
    """Runs a task in a process of its own; whether it was killed before its end, and the time that it took."""
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            task.run()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the task failed with status {status}")
    return status != 0, time.perf_counter() - began


def _write_source(folder: str) -> int:
    """A GPT-2 of random values in bfloat16; gives the size of a shard."""
    import ml_dtypes
    import numpy as np

    from tfloader.checkpoints import TensorSpec, write_safetensors
    from tfloader.files import write_json

    config, shapes = gpt2(hidden=96, layers=6, heads=4, vocabulary=4000)
    values = np.random.default_rng(0)

    def make(shape: tuple[int, ...]) -> Any:
        return lambda: values.standard_normal(shape, "float32").astype(ml_dtypes.bfloat16)

    tensors = [(name, TensorSpec(shape, "bfloat16"), make(shape)) for name, shape in shapes.items()]
    write_safetensors(folder, tensors)
    write_json(os.path.join(folder, "config.json"), config)
    return sum(spec.nbytes for _, spec, _ in tensors) * 2 // PARTS


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
            print(json.dumps(kill_again_and_again(task, place, int(kills), int(seed))))
