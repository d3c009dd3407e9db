"""Files of weights that `fuzz.py` damages: checkpoints and states of trainings, each with who else can read it."""

from __future__ import annotations

import io
import json
import os
import random
import re
import struct
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import NUMBERS, Target, damaged_json

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
        return value == of_hdf5(os.path.join(folder, "tf_model.h5"))

    shapes = {".h5": metadata_of_hdf5}
    return Target("hdf5", {"tf_model.h5": made.getvalue()}, tensors("tf_model.h5"), right, shapes)


def of_hdf5(path: str) -> Arrays:
    import h5py

    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None)
    return described({name: np.asarray(item) for name, item in found.items()})


def metadata_of_hdf5(draw: random.Random, content: bytes) -> bytes:
    """A number replaced behind one of the signatures of HDF5's own structures."""
    data = bytearray(content)
    place = draw.choice(
        [match.start() for match in re.finditer(b"TREE|SNOD|HEAP|\x01\0[\x02-\x09]\0\x01\0\0\0", content)]
    )
    place, size = min(place + draw.randrange(4, 160), len(data) - 8), draw.choice((1, 2, 4, 8))
    number = draw.choice((*NUMBERS, int.from_bytes(data[place : place + size], "little") + draw.choice((-1, 1, 8))))
    data[place : place + size] = (number & (1 << 8 * size) - 1).to_bytes(size, "little")
    return bytes(data)


def keras2() -> Target:
    """A file as bert4keras saved it: a group a layer, sublayers numbered through the program."""
    import h5py

    name, made, values = "best_model.weights", io.BytesIO(), iter(arrays().values())
    attention = [f"dense_{number}/{kind}" for number in (7, 8, 9, 10) for kind in ("kernel", "bias")]
    layers = {"Embedding-Token": ["embeddings"], "Embedding-Norm": ["beta", "gamma"], "Transformer-0-Self": attention}
    with h5py.File(made, "w") as file:
        for layer, weights in layers.items():
            for weight in weights:
                file[f"{layer}/{layer}/{weight}:0"] = next(values, np.ones(5, "float32"))

    def placed(found: dict[str, Any]) -> list[tuple[str, Any]]:
        """By the last part: in between, sublayers have other numbers here."""
        return sorted((path.split("/")[-1].removesuffix(":0"), item) for path, item in found.items())

    def right(folder: str, value: Arrays) -> bool:
        found = of_hdf5(os.path.join(folder, name))
        groups = {part for path in found for part in path.split("/")}
        return placed(value) == placed(found) and all(path.split("/")[0] in groups for path in value)

    return Target("keras2", {name: made.getvalue()}, tensors(name), right, {".weights": metadata_of_hdf5})


def tensorflow() -> Target:
    def make(folder: str) -> None:
        import tensorflow as tf

        items = arrays()
        tf.raw_ops.SaveV2(
            prefix=os.path.join(folder, "model.ckpt"),
            tensor_names=list(items),
            shape_and_slices=[""] * len(items),
            tensors=[tf.convert_to_tensor(array) for array in items.values()],
        )

    def right(folder: str, value: Arrays) -> bool:
        import tensorflow as tf

        reader = tf.train.load_checkpoint(os.path.join(folder, "model.ckpt"))
        return value == described({name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()})

    files = dict(sorted(made_elsewhere(make).items(), reverse=True))  # the index is first
    files["checkpoint"] = b'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n'
    return Target("tensorflow", files, tensors(""), right, damaged=len(files))


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

        bases = [lora_base()]  # one at a time: what is refused leaves it as it is

        def read(folder: str) -> Any:
            trained = bases[0]
            tfloader.load_adapters(trained, os.path.join(folder, "adapters.safetensors"))
            bases[0] = lora_base()
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
    "keras2": keras2,
    "tensorflow": tensorflow,
    "backup": backup,
    "adapters": adapters,
}
