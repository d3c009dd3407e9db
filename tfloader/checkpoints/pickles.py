"""A pickle read as data: nothing that it names is imported, and nothing is called.

A pickle is a program for a machine with a stack. Here each instruction only puts data together: dicts and lists are
made, a function that is to be called becomes a `Call` with its arguments. Only the names that PyTorch's own files
hold are accepted, so that a file which would run something else is refused as a whole.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass
from typing import IO, Any

from tfloader.files import show

MAX_PICKLE_BYTES = 4 * 2**20  # 25,000 tensors; data lie elsewhere
_MAX_INSTRUCTIONS = 10**6
_KNOWN = re.compile(
    r"torch(\._utils|\._tensor|\.storage|\.serialization|\.nn\.parameter)?\.\w+|numpy(\.\w+)*|_codecs\.encode|"
    r"collections\.(OrderedDict|Counter|defaultdict)|(builtins|__builtin__)\.(set|frozenset|complex|bytearray|slice)"
)
_PUSHED = re.compile(r"(BIN)?INT[12]?|LONG[14]?|(BIN)?FLOAT|(SHORT_)?(BIN)?(UNICODE|STRING|BYTES)8?|BYTEARRAY8")
_NO_PLACE = "it puts items where none can be"
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class PickleError(ValueError):
    """The pickle is damaged, or holds more than data. Its users say it again with the file's name."""


class Name(str):
    """What a pickle names: module, point, class or function."""


@dataclass(eq=False)
class Call:
    """What a function or class would be called with; `items` are put into its result afterwards."""

    function: Name
    arguments: tuple[Any, ...]
    items: Any


@dataclass(eq=False)
class Stored:
    """What lies outside of the pickle, by its id."""

    id: Any


def read_pickle(file: IO[bytes]) -> tuple[Any, list[Stored]]:
    """What a pickle describes, and all that it says to lie outside; the file is left at its end.

    Raises:
        PickleError: it is damaged, or names what is no part of tensors.
    """
    stored: list[Stored] = []
    try:
        return _run(file, stored), stored
    except PickleError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise PickleError(f"not an intact pickle ({str(error)[:200]})") from error


def _run(file: IO[bytes], stored: list[Stored]) -> Any:
    stack: list[Any] = []  # since the last mark: nothing takes from before it
    before: list[list[Any]] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, before.pop()
        return items

    def push(value: Any) -> None:
        stack.append(value)  # the one that is there when the value is known

    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        name = opcode.name
        if count > _MAX_INSTRUCTIONS:
            raise PickleError("it is far too long for a description of tensors")
        if name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif _PUSHED.fullmatch(name):
            push(argument)
        elif name == "MARK":
            before.append(stack)
            stack = []
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            parts = argument.split(" ", 1) if name == "GLOBAL" else [*_pop(stack, 2)]
            push(_known(".".join(parts)))
        elif name == "BINPERSID":
            stored.append(Stored(stack.pop()))
            push(stored[-1])
        elif name in ("EMPTY_DICT", "DICT"):
            push(_put({}, since_mark() if name == "DICT" else []))
        elif name in ("EMPTY_LIST", "EMPTY_SET", "LIST", "FROZENSET"):
            items = [] if name.startswith("EMPTY") else since_mark()
            push(tuple(items) if name == "FROZENSET" else items)
        elif name.startswith("TUPLE"):
            push(tuple(since_mark() if name == "TUPLE" else _pop(stack, int(name[-1]))))
        elif name in ("SETITEM", "SETITEMS"):
            pairs = since_mark() if name == "SETITEMS" else _pop(stack, 2)
            target: Any = stack[-1]
            _put(target.items if _is_collection(target) else target, pairs)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = _pop(stack, 1) if name == "APPEND" else since_mark()
            if isinstance(stack[-1], list):
                stack[-1] += items
            elif not _is_collection(stack[-1]):
                raise PickleError(_NO_PLACE)
        elif name in ("REDUCE", "NEWOBJ"):
            function, arguments = _pop(stack, 2)
            if not isinstance(function, Name) or not isinstance(arguments, tuple):
                raise PickleError(f"it calls a {type(function).__name__}, which is no function")
            if name == "NEWOBJ" and not function.rpartition(".")[2][:1].isupper():
                raise PickleError(f"it makes an object of {function}, which is no class")
            ordered = function == "collections.OrderedDict"
            push(_ordered(*arguments) if ordered else Call(function, arguments, {}))
        elif name == "BUILD":
            state = stack.pop()  # attributes, such as a state dict's version numbers
            if not isinstance(stack[-1], dict | Call) or not isinstance(state, dict | tuple):
                raise PickleError(f"it gives a {type(state).__name__} as attributes to a {type(stack[-1]).__name__}")
        elif name == "STOP":
            (content,) = stack
            if before:
                raise PickleError("it ends in the middle")
            return content
        elif name not in ("PROTO", "FRAME"):
            raise PickleError(f"it has the instruction {name}, which is not used for tensors")
    raise PickleError("it has no end")


def _pop(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise PickleError("it takes from an empty stack")
    items = stack[-count:]
    del stack[-count:]
    return items


def _is_collection(value: Any) -> bool:
    return isinstance(value, Call) and value.function.startswith("collections.")


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    """An OrderedDict of nothing, or (of Python 2) of a list of pairs."""
    if not isinstance(pairs, list | tuple):
        raise PickleError(f"it makes an OrderedDict of a {type(pairs).__name__}")
    return _put({}, [part for key, value in pairs for part in (key, value)])


def _put(target: Any, pairs: list[Any]) -> Any:
    """Puts keys and values, in turn, into a dict. Of other keys, which could be chosen to collide, none is kept."""
    if not isinstance(target, dict) or len(pairs) % 2:
        raise PickleError(_NO_PLACE)
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        hash(key)  # as Python does, or raises
        plain = type(key) is str or (type(key) is int and abs(key) < 2**63)
        target[key if plain else object()] = value
    return target


def _known(name: str) -> Name:
    if not _KNOWN.fullmatch(name):
        raise PickleError(f"it names {show(name)}, which is no part of tensors, and reading it could run code")
    return Name(name)
