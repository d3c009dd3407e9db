"""What the `tfloader` command writes to: streams of any encoding, closed or full ones, and TensorFlow beside it."""

from __future__ import annotations

import functools
import io
import json
import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any


def printable(text: str) -> str:
    """The text with escapes for what could steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show(text: str, file: Any = None) -> None:
    """Prints text; what a file's author put into a name cannot steer the terminal."""
    print("\n".join(map(printable, text.split("\n"))), file=file, flush=True)


# Some programs end a line at these, too; JSON itself escapes the others of the kind.
LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}


def json_line(content: Any) -> str:
    """JSON on what is one line to every program, with escapes where the output's encoding lacks characters."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return json.dumps(content, ensure_ascii=not encoding.lower().startswith("utf")).translate(LINE_ENDS)


def escape_what_cannot_be_encoded() -> None:
    """A character that the encoding of an output lacks is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None if it is closed
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Writes what is left; where that cannot be written it is dropped, so as not to fail once more when Python exits.

    Raises:
        OSError: it cannot be written.
    """
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def silence_tensorflow() -> None:
    """Sees to it that TensorFlow prints nothing of its own, unless its log level is set already."""
    if "TF_CPP_MIN_LOG_LEVEL" not in os.environ and sys.stderr is not None:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        sys.meta_path.insert(0, QuietTensorflow)


class QuietTensorflow:
    """A finder of modules: TensorFlow is imported without what it prints before its log level counts."""

    @staticmethod
    def find_spec(name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == "tensorflow" else None
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = functools.partial(quietly, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec


def quietly(run: Callable[..., None], *arguments: Any) -> None:
    """Calls a function while what C++ writes to stderr goes nowhere."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        run(*arguments)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
