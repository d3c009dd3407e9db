"""Is a folder ever there and not whole? Kills what writes folders at random moments and looks.

    python benchmarks/kills.py TASK[,TASK...] [KILLS] [SEED]

Each task runs in a forked process that gets SIGKILL at a moment drawn from the time that the whole task takes. After
each kill the target is judged by what `load` and `compare` find there:

- convert: a checkpoint of random values into many small shards. The target must be absent, or equal to the source in
  every tensor, and the source as it was.
- save: a model with its tokenizer over an older save. The old one must be there or the new one, in weights, config and
  tokenizer alike; folders change places in one step.
- save-in-place: the same where the folder has a subfolder, and so stays the same one.
- unpack: an archive of many files. The target must be absent or whole.
- download: the same archive, from a server in this process; what was fetched before a kill is not fetched again.
- backup: a training's state over the one of an epoch before. The old one must be there or the new one.

At the end a task that is not killed must succeed, and leave no more files than one that never was killed. Prints a
line of JSON for each task.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
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


class Unpack:
    """An archive into a new folder."""

    good = ("absent", "whole")

    def __init__(self, folder: str):
        self.archive, self.target = os.path.join(folder, "archive.zip"), os.path.join(folder, "target")
        values = random.Random(0)
        self.content = {f"file-{number}.bin": values.randbytes(50_000) for number in range(PARTS)}
        with zipfile.ZipFile(self.archive, "w") as file:
            for name, data in self.content.items():
                file.writestr(name, data)

    def reset(self) -> None:
        shutil.rmtree(self.target, ignore_errors=True)

    def run(self) -> None:
        from tfloader.downloads.archives import unpack

        unpack(self.archive, self.target)

    def found(self) -> str:
        if not os.path.lexists(self.target):
            return "absent"
        expected = {name: hashlib.sha256(data).hexdigest() for name, data in self.content.items()}
        found = {name: value for name, value in _hashes(self.target).items() if name != ".download.json"}
        return "whole" if found == expected else f"not whole: {len(found)} files"


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


class Backup:
    """A state over the one before."""

    good = ("old", "new")

    def __init__(self, folder: str):
        self.target = os.path.join(folder, "target")
        self.models = [self._model(value) for value in (1, 2)]

    @staticmethod
    def _model(value: float) -> Any:
        import keras
        import numpy as np

        model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(300, name="only")], name="model")
        model.compile("adam", "mse")
        for weight in model.weights:
            weight.assign(np.full(weight.shape, value, "float32"))
        return model

    def reset(self) -> None:
        shutil.rmtree(self.target, ignore_errors=True)
        self._save(0)

    def run(self) -> None:
        self._save(1)

    def _save(self, epoch: int) -> None:
        import tfloader

        backup = tfloader.TrainingBackup(self.target)
        backup.set_model(self.models[epoch])
        backup.on_epoch_end(epoch, {"loss": float(epoch)})

    def found(self) -> str:
        import tfloader
        from tfloader.errors import TfloaderError

        model = self._model(0)
        try:
            epoch = tfloader.TrainingBackup(self.target).restore(model)
        except TfloaderError as error:
            return f"nothing: {error}"
        values = {float(value) for weight in model.get_weights() for value in weight.ravel()}
        return self.good[epoch - 1] if values == {float(epoch)} else "a mixture"


TASKS: dict[str, Any] = {
    "convert": Convert,
    "save": Save,
    "save-in-place": SaveInPlace,
    "unpack": Unpack,
    "download": Download,
    "backup": Backup,
}


def kill_again_and_again(name: str, folder: str, kills: int, seed: int = 0) -> dict[str, Any]:
    """What was found after each kill, counted; `seconds` is the time of a whole task."""
    task = TASKS[name](folder)
    seconds = []
    for _ in range(2):
        task.reset()
        seconds.append(_run(task, None)[1])
    whole = _files(folder)
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
    left = sorted(_files(folder) - whole)
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


def _files(folder: str) -> set[str]:
    return {os.path.relpath(os.path.join(place, name), folder) for place, _, names in os.walk(folder) for name in names}


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
