"""The formats: how each is written into a folder, and how what was written is run."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfloader.exporting.signatures import SERVE, Signature

Arrays = dict[str, np.ndarray]
MAX_GRAPH_BYTES = 1_900_000_000  # a protocol buffer, which holds the weights for a while, takes 2 GiB


@dataclass(frozen=True)
class Format:
    """A way out of TensorFlow."""

    # (module with all variables and tables, signatures, folder) -> None
    write: Callable[[tf.Module, Mapping[str, Signature], str], None]
    # (folder, signature's name) -> a function of named arrays, as other programs would run it
    open: Callable[[str, str], Callable[..., Arrays]]
    needs: tuple[str, ...] = ()  # packages that `write` and `open` import
    extra: str = ""  # what of `pip install tfloader[...]` brings them
    holds_text: bool = False  # whether it can have strings as input
    only_float32: bool = True  # whether other dtypes of a model are refused
    # signature -> our names of the outputs, and what they are called in the file
    output_names: Callable[[Signature], dict[str, str]] = lambda signature: {name: name for name in signature.outputs}

    def missing(self) -> Iterator[str]:
        """Packages that are not there."""
        missing = [package for package in self.needs if importlib.util.find_spec(package) is None]
        if missing:
            yield f"it needs {', '.join(missing)}: run pip install 'tfloader[{self.extra}]'"

    def problems(self, dtype: str, nbytes: int) -> Iterator[str]:
        """What stands against writing a model of this dtype and size."""
        if self.only_float32 and dtype != "float32":
            yield f"the model computes in {dtype}, its converter takes float32: load it with dtype='float32'"
        if self.only_float32 and nbytes > MAX_GRAPH_BYTES:
            yield f"the model has {nbytes} bytes, its converter takes at most {MAX_GRAPH_BYTES}"


# ---- SavedModel


def write_savedmodel(module: tf.Module, signatures: Mapping[str, Signature], folder: str) -> None:
    tf.saved_model.save(module, folder, signatures={name: item.function for name, item in signatures.items()})


def open_savedmodel(folder: str, name: str) -> Callable[..., Arrays]:
    loaded = tf.saved_model.load(folder)

    def run(**inputs: Any) -> Arrays:
        # Looked up here, because a signature alone does not keep its variables alive.
        function = loaded.signatures[name]
        return as_arrays(function(**{key: tf.convert_to_tensor(value) for key, value in inputs.items()}))

    return run


def as_arrays(tensors: Mapping[str, Any]) -> Arrays:
    return {name: value.numpy() for name, value in tensors.items()}


# ---- ONNX

OPSET = 17
ONNX_WEIGHTS = "weights.bin"
SHARED_FROM, ALIGNMENT = 1024, 4096  # bytes


def onnx_file(name: str) -> str:
    return "model.onnx" if name == SERVE else f"{name}.onnx"


def write_onnx(module: tf.Module, signatures: Mapping[str, Signature], folder: str) -> None:
    """A file a signature; the weights stand once in a file beside them."""
    from onnx import external_data_helper

    written: dict[bytes, tuple[int, int]] = {}
    with open(os.path.join(folder, ONNX_WEIGHTS), "wb") as weights:
        for name, signature in signatures.items():
            proto = onnx_graph(name, signature)
            for tensor in proto.graph.initializer:
                if len(tensor.raw_data) < SHARED_FROM:
                    continue
                key = hashlib.sha256(tensor.raw_data).digest()
                if key not in written:
                    weights.write(b"\0" * (-weights.tell() % ALIGNMENT))
                    written[key] = weights.tell(), len(tensor.raw_data)
                    weights.write(tensor.raw_data)
                offset, length = written[key]
                external_data_helper.set_external_data(tensor, ONNX_WEIGHTS, offset, length)
                tensor.ClearField("raw_data")
            with open(os.path.join(folder, onnx_file(name)), "wb") as file:
                file.write(proto.SerializeToString())


def onnx_output_names(signature: Signature) -> dict[str, str]:
    """In an ONNX graph an output cannot be called as an input is: what a step gives for its next is `next_cache`."""
    return {name: f"next_{name}" if name in signature.inputs else name for name in signature.outputs}


def onnx_graph(name: str, signature: Signature) -> Any:
    """What tf2onnx makes of a function."""
    from tf2onnx import optimizer, tf_loader, tfonnx
    from tf2onnx.optimizer import const_fold_optimizer, identity_optimizer, merge_duplicated_nodes_optimizer

    concrete: Any = signature.function
    inputs = [item.name for item in concrete.inputs if item.dtype != tf.resource]
    names = onnx_output_names(signature)
    outputs = {item.name: names[key] for key, item in concrete.structured_outputs.items()}
    with tf.device("/cpu:0"):
        frozen = tf_loader.from_function(concrete, inputs, list(outputs))
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen, name="")
        converted = tfonnx.process_tf_graph(
            graph,
            opset=OPSET,
            custom_op_handlers={"Erfc": (erfc, [])},
            input_names=inputs,
            output_names=list(outputs),
            tensors_to_rename=dict(zip(inputs, signature.inputs, strict=True)) | outputs,
        )
    # Only these: tf2onnx 1.17 merges two reshapes of which the second copies sizes of what the first made.
    chosen = {
        "fold_constants": const_fold_optimizer.ConstFoldOptimizer,
        "merge_duplication": merge_duplicated_nodes_optimizer.MergeDuplicatedNodesOptimizer,
        "remove_identity": identity_optimizer.IdentityOptimizer,
    }
    proto = optimizer.optimize_graph(converted, optimizers=chosen).make_model(f"tfloader {name}")
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if size.dim_param:
                size.dim_param = "batch" if axis == 0 else f"{value.name}_axis_{axis}"
    return proto


def erfc(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """Of the exact gelu: ONNX has only erf."""
    one = graph.make_const(f"{name}_one", np.array(1, "float32"))
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    erf = graph.make_node("Erf", [node.input[0]], shapes=shapes, dtypes=dtypes)
    graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=node.output, name=name, shapes=shapes, dtypes=dtypes)


def open_onnx(folder: str, name: str) -> Callable[..., Arrays]:
    import onnxruntime

    path = os.path.join(folder, onnx_file(name))
    session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = [item.name for item in session.get_outputs()]
    return lambda **inputs: dict(zip(outputs, session.run(outputs, inputs), strict=True))


# ---- LiteRT

LITERT_FILE = "model.tflite"


def write_litert(module: tf.Module, signatures: Mapping[str, Signature], folder: str) -> None:
    """One file with all signatures, of operations that every LiteRT runtime has."""
    between = os.path.join(folder, "savedmodel")
    write_savedmodel(module, signatures, between)
    converter = tf.lite.TFLiteConverter.from_saved_model(between, signature_keys=list(signatures))
    # Else variables stay variables, which nothing fills.
    converter.experimental_enable_resource_variables = False
    content = converter.convert()
    shutil.rmtree(between)
    with open(os.path.join(folder, LITERT_FILE), "wb") as file:
        file.write(content)


def open_litert(folder: str, name: str) -> Callable[..., Arrays]:
    path = os.path.join(folder, LITERT_FILE)
    found = importlib.util.find_spec("ai_edge_litert")
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter if found else tf.lite.Interpreter

    def run(**inputs: Any) -> Arrays:
        # An interpreter keeps the sizes that it met first for some operations: each call gets its own.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TensorFlow's own says that it moved to ai_edge_litert
            return interpreter(model_path=path).get_signature_runner(name)(**inputs)

    return run


FORMATS = {
    "savedmodel": Format(write_savedmodel, open_savedmodel, holds_text=True, only_float32=False),
    "onnx": Format(write_onnx, open_onnx, ("tf2onnx", "onnx", "onnxruntime"), "onnx", output_names=onnx_output_names),
    "litert": Format(write_litert, open_litert),
}
