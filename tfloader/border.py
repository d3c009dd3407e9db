"""The border: what a public function is given has the types of its signature, and what it raises is a TfloaderError."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import reprlib
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, TypeVar, cast

from tfloader.errors import ArgumentError, FileError, TfloaderError, listing

F = TypeVar("F", bound=Callable[..., Any])

# Parts of annotations that can be checked. All others leave open what a parameter takes, but for numbers and None.
TYPES: dict[str, type] = {
    "str": str,
    "bytes": bytes,
    "bool": bool,
    "int": Integral,
    "float": Real,
    "None": NoneType,
    "os.PathLike": os.PathLike,
    "os.PathLike[str]": os.PathLike,
}
# Of these a string is one by accident: it would be taken apart into characters.
COLLECTIONS = ("Sequence[", "Iterable[", "Collection[", "Mapping[", "list[")
# What an argument leads to in code that did not expect it.
UNEXPECTED = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)
TENSORFLOWS = ("InvalidArgumentError", "UnimplementedError")  # by name: TensorFlow may not be loaded


def public(function: F) -> F:
    """Decorates a public function or a class's `__init__`: arguments are checked, each error is a TfloaderError.

    Those of callbacks (RuntimeError and the like), MemoryError and KeyboardInterrupt pass.
    """
    signature, makes = inspect.signature(function), function.__name__ == "__init__"
    aliases = {key: value for key, value in function.__globals__.items() if isinstance(value, UnionType)}
    expected = {
        parameter.name: [
            part
            for item in str(parameter.annotation).split(" | ")
            for part in str(aliases.get(item, item)).split(" | ")
        ]
        for parameter in signature.parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        name = type(arguments[0]).__name__ if makes else function.__qualname__
        with translated(name):
            given = signature.bind(*arguments, **options).arguments
            problems = (problem(key, given[key], parts) for key, parts in expected.items() if key in given)
            if found := [*filter(None, problems)]:
                raise ArgumentError(f"{name}() cannot take this:\n{listing(found)}")
            result = function(*arguments, **options)
        return each(result, name) if inspect.isgenerator(result) else result

    cast(Any, call).__signature__ = signature  # for Keras, which does not look behind a wrapper
    return cast(F, call)


def problem(name: str, value: Any, parts: list[str]) -> str:
    """Why an argument cannot have this value, by the parts of its annotation; empty if they do not say so."""
    types = tuple(TYPES[part] for part in parts if part in TYPES)
    unchecked = [part for part in parts if part not in TYPES]
    collects = all(part.startswith(COLLECTIONS) and not part.endswith("[Any]") for part in unchecked)
    closed = (Real, bytes, NoneType, *[str] * collects)
    is_open = bool(unchecked) and ("Any" in parts or not isinstance(value, closed))
    if not isinstance(value, types) and not is_open:
        return f"{name}: expected {' or '.join(parts)}, found {type(value).__name__} {reprlib.repr(value)}"
    if os.PathLike in types and isinstance(value, (str, os.PathLike)):
        with contextlib.suppress(UnicodeError):
            return f"{name}: {value!r} is no path: it holds a NUL" if b"\0" in os.fsencode(value) else ""
        return f"{name}: {value!r} is no path: it holds half of a character"
    return ""


@contextlib.contextmanager
def translated(name: str) -> Iterator[None]:
    """Lets errors of ours pass; what the system says, or an argument has led to, becomes one, with its cause."""
    try:
        yield
    except TfloaderError:
        raise
    except OSError as reason:
        raise FileError(f"{name}(): {reason}. Check the path, the permissions and the free space.") from reason
    except Exception as reason:
        if not isinstance(reason, UNEXPECTED) and type(reason).__name__ not in TENSORFLOWS:
            raise
        said = f"{type(reason).__name__}: {reason}"
        raise ArgumentError(f"{name}() failed with what it was given ({said}). Check types and values.") from reason


def each(items: Iterator[Any], name: str) -> Iterator[Any]:
    with translated(name):
        yield from items
