"""`convert`: which module writes a format, and whether it has the options that were given."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tfloader.border import public
from tfloader.errors import ArgumentError

# Format -> the module whose `export(source, target, to=..., **options)` writes it.
FORMATS = {
    **dict.fromkeys(("huggingface", "tensorflow"), "tfloader.conversion.streaming"),
    "keras": "tfloader.conversion.archive",
    **dict.fromkeys(("savedmodel", "onnx", "litert"), "tfloader.exporting"),
}


@public
def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    to: str = "huggingface",
    *,
    model: str | None = None,
    dtype: str | None = None,
    max_shard_bytes: int | None = None,
    keep_tokens: str | os.PathLike[str] | Sequence[int] | None = None,
    tokenizer: str | os.PathLike[str] | bool | None = None,
    ignore: str | Collection[str] = (),
    rename: Mapping[str, str] | None = None,
    verify: bool | None = None,
    text: bool | None = None,
    max_length: int | None = None,
    decoding: bool | None = None,
) -> Any:
    """Writes a checkpoint in another format. The target appears as a whole, or not at all; the source is only read.

    Args:
        source: as `load`'s path.
        target: a folder that is not there yet, or is empty.
        to: "huggingface" (config.json and safetensors), "tensorflow" (the original release's names and config),
            "keras" (a `model.keras` for `keras.saving.load_model`), or an export: "savedmodel", "onnx", "litert".
        model: the family, where the tensors' names fit several ("roformer", "nezha").
        dtype: "float32", "float16" or "bfloat16"; None: each tensor keeps its own.
        max_shard_bytes: size from which safetensors are split (5 GB).
        keep_tokens: ids of the tokens to keep, in their new order, or a file of them: a JSON list, or one a line.
        tokenizer: the tokenizer that goes along; None: the one beside the source, False: none.
        ignore: patterns of tensors that may stay unread, such as "classifier.*".
        rename: as `load`'s, for tensor formats and "keras".
        verify: runs both sides on random input and compares all tensors before the target appears; None: for
            checkpoints up to 1 GB.
        text, max_length, decoding: of an export; see `export`.

    Returns:
        For tensor formats, what was done and checked, as a list of `tfloader.checks.Check`.

    Raises:
        ArgumentError: there is no such format, or it does not have these options.
        ConversionError: listing all that the target cannot hold; nothing is written.
        TfloaderError: the source cannot be read, or the target cannot be written.
    """
    options = {
        name: value for name, value in locals().items() if value is not None and name not in ("source", "target", "to")
    }
    if to not in FORMATS:
        raise ArgumentError(f"to={to!r} is no format that tfloader writes; there are {', '.join(FORMATS)}.")
    export = importlib.import_module(FORMATS[to]).export
    parameters = inspect.signature(export).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    if strange := [name for name in options if name not in known]:
        raise ArgumentError(f"{', '.join(strange)}: writing {to!r} has no such option. Leave it out.")
    return export(os.fspath(source), os.fspath(target), to=to, **options)
