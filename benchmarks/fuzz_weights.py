"""Files of weights that `fuzz.py` damages: checkpoints and states of trainings, each with who else can read it."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import CHECKPOINTS, Target, damaged_json

Arrays = dict[str, tuple[str, tuple[int, ...], bytes]]


def arrays() -> dict[str, np.ndarray]:
    values = np.random.default_rng(0)
    names = ("float32", "float16", "int64", "uint8", "bool", "float64")
    made = {f"layer/{name}": (values.random((2 + place, 3)) * 5).astype(name) for place, name in enumerate(names)}
    return made | {"scalar": np.array(3.0, "float32"), "none": np.zeros((0, 4), "float32"), "é": np.ones(3, "int32")}


def described(found: Any) -> Arrays:
    """{name: array} as a value that `==` compares."""
    return {str(name): (value.dtype.name, value.shape, value.tobytes()) for name, value in found.items()}


def tensors(name: str) -> Callable[[], Callable[[str], Arrays]]:
    def opened() -> Callable[[str], Arrays]:
        from tfloader.checkpoints import open_checkpoint

        def read(folder: str) -> Arrays:
            with open_checkpoint(os.path.join(folder, name)) as checkpoint:
                return described({item: checkpoint.read(item) for item in checkpoint})

        return read

    return opened


# ---- containers


def safetensors_header(draw: random.Random, content: bytes) -> bytes:
    (size,) = struct.unpack("<Q", content[:8])
    header = damaged_json(draw, content[8 : 8 + size])
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def of_safetensors(name: str, folder: str) -> Arrays:
    from safetensors.numpy import load_file

    return described(load_file(os.path.join(folder, name)))


def safetensors() -> Target:
    from safetensors.numpy import save

    name = "model.safetensors"
    return Target(
        "safetensors",
        {name: save(arrays(), {"format": "pt"})},
        tensors(name),
        lambda folder, value: value == of_safetensors(name, folder),
        {".safetensors": safetensors_header},
    )


def shards() -> Target:
    from safetensors.numpy import save

    index, items = "model.safetensors.index.json", list(arrays().items())
    parts = {"model-00001-of-00002.safetensors": items[:4], "model-00002-of-00002.safetensors": items[4:]}
    where = {name: part for part, inside in parts.items() for name, _ in inside}
    content = {"metadata": {"total_size": sum(value.nbytes for _, value in items)}, "weight_map": where}
    files = {index: json.dumps(content).encode(), **{part: save(dict(inside)) for part, inside in parts.items()}}

    def right(folder: str, value: Arrays) -> bool:
        named = json.loads(Path(folder, index).read_bytes())["weight_map"]
        return value == {name: of_safetensors(part, folder)[name] for name, part in named.items()}

    return Target("shards", files, tensors(index), right, {".json": damaged_json})


def hdf5() -> Target:
    import h5py

    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        for name, value in arrays().items():
            file.create_dataset(name, data=value, compression="gzip" if value.size > 20 else None)
        file.attrs["layer_names"] = [b"layer"]

    def right(folder: str, value: Arrays) -> bool:
        found = {}
        with h5py.File(os.path.join(folder, "tf_model.h5")) as file:
            file.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None)
        return value == described({name: np.asarray(item) for name, item in found.items()})

    return Target("hdf5", {"tf_model.h5": made.getvalue()}, tensors("tf_model.h5"), right)


def tensorflow() -> Target:
    import tensorflow as tf

    source = CHECKPOINTS / "albert_google"
    (index,) = (path.name for path in source.glob("*.index"))
    prefix = index.removesuffix(".index")
    names = ("checkpoint", index, f"{prefix}.data-00000-of-00001")

    def right(folder: str, value: Arrays) -> bool:
        reader = tf.train.load_checkpoint(os.path.join(folder, prefix))
        return value == described({name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()})

    return Target(
        "tensorflow", {name: (source / name).read_bytes() for name in names}, tensors(""), right, damaged=len(names)
    )


# ---- states of trainings


def model() -> Any:
    import keras

    made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="first"), keras.layers.Dense(2)], name="m")
    made.compile("adam", "mse")
    return made


def made_elsewhere(make: Callable[[str], Any]) -> dict[str, bytes]:
    """The files that `make` writes into a folder, in another process: one that used TensorFlow must not fork."""
    import tensorflow  # noqa: F401  once for all the processes that fork from this one

    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if child == 0:
            try:
                make(folder)
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os.waitpid(child, 0)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def metadata(path: str, key: str) -> Any:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()[key])


def backup() -> Target:
    def make(folder: str) -> None:
        from tfloader import TrainingBackup

        model().fit(np.ones((4, 4)), np.ones((4, 2)), epochs=2, verbose=0, callbacks=[TrainingBackup(folder)])

    def opened() -> Callable[[str], Any]:
        from tfloader import TrainingBackup

        trained = model()
        trained.optimizer.build(trained.trainable_variables)

        def read(folder: str) -> Any:
            state = TrainingBackup(folder)
            epoch = state.restore(trained)
            values = [np.asarray(item).tobytes() for item in (*trained.variables, *trained.optimizer.variables)]
            return epoch, repr(state.history), values

        return read

    def right(folder: str, value: Any) -> bool:
        noted = metadata(os.path.join(folder, "state.safetensors"), "training")
        stored = of_safetensors("state.safetensors", folder)
        return value == (noted["epoch"], repr(noted["history"]), [stored[name][2] for name in sorted(stored)])

    return Target("backup", made_elsewhere(make), opened, right, {".safetensors": safetensors_header})


def adapters() -> Target:
    def make(folder: str) -> None:
        import tfloader

        trained = lora_base()
        tfloader.enable_lora(trained, "first", rank=2)
        tfloader.save_adapters(trained, os.path.join(folder, "adapters.safetensors"))

    def lora_base() -> Any:
        made = model()
        for place, weight in enumerate(made.weights):
            weight.assign(np.full(weight.shape, 0.1 * place, "float32"))
        return made

    def opened() -> Callable[[str], Any]:
        import tfloader

        def read(folder: str) -> Any:
            trained = lora_base()
            tfloader.load_adapters(trained, os.path.join(folder, "adapters.safetensors"))
            layer = trained.get_layer("first")
            values = {item.path: np.asarray(item) for item in trained.weights if "lora" in item.path}
            return [layer.lora_rank, layer.lora_alpha], described(values)

        return read

    def right(folder: str, value: Any) -> bool:
        (noted,) = metadata(os.path.join(folder, "adapters.safetensors"), "tfloader_lora").values()
        return value == ([noted["rank"], noted["alpha"]], of_safetensors("adapters.safetensors", folder))

    return Target("adapters", made_elsewhere(make), opened, right, {".safetensors": safetensors_header})


TARGETS: dict[str, Callable[[], Target]] = {
    "safetensors": safetensors,
    "shards": shards,
    "hdf5": hdf5,
    "tensorflow": tensorflow,
    "backup": backup,
    "adapters": adapters,
}
