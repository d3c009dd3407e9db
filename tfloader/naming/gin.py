"""Reads the bindings of a gin file (`operative_config.gin`) without running anything.

Only what such a file of results contains is understood: `scope/Class.parameter = value`, literals, lists, macros
(`%name`) and references (`@module.name`, kept as the last name). Nothing is imported or evaluated.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from tfloader.errors import ConfigError

MAX_BINDING = 20_000  # characters
MAX_DEPTH = 20

TOKEN = re.compile(
    r"""
    (?P<string> '(?:[^'\\\n]|\\.)*' | "(?:[^"\\\n]|\\.)*" )
  | (?P<comment> \# [^\n]* )
  | (?P<reference> @ [\w./]+ (?: \(\) )? )
  | (?P<macro> % [\w./]+ )
  | (?P<open> [\[({] )
  | (?P<close> [\])}] )
  | (?P<other> [^\s'"\#@%\[\](){}]+ | [ \t\r\f\v]+ )
  | (?P<newline> \n )
    """,
    re.VERBOSE,
)


def parse_gin(text: str, source: str) -> dict[str, Any]:
    """Returns the bindings of a gin file with its macros filled in.

    Raises:
        ConfigError: naming the line that is not understood, or a macro that is used but never set.
    """
    bindings: dict[str, Any] = {}
    for number, binding in _bindings(text.replace("\r\n", "\n").replace("\\\n", " "), source):
        name, equals, value = binding.partition("=")
        name = name.strip()
        if re.match(r"(import|from)\s", binding):
            continue
        if re.match(r"include\s", binding):
            raise ConfigError(
                f"{source}: line {number} includes another file, which is not read. "
                "Give operative_config.gin, where everything stands in one file."
            )
        if not equals or not re.fullmatch(r"[\w./]+", name):
            raise ConfigError(f"{source}: line {number} is not a gin binding: {binding[:80]!r}.")
        bindings[name] = _value(value.strip(), number, source)
    return {name: _resolved(value, bindings, source) for name, value in bindings.items()}


def _bindings(text: str, source: str) -> list[tuple[int, str]]:
    """(line, binding without comments): a binding ends with its line, unless a bracket is open."""
    result: list[tuple[int, str]] = []
    parts: list[str] = []
    length, depth, number, position = 0, 0, 1, 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise ConfigError(f"{source}: line {number} is not understood: {text[position : position + 80]!r}.")
        position, kind = match.end(), str(match.lastgroup)
        depth += (kind == "open") - (kind == "close")
        if kind not in ("newline", "comment"):
            parts.append(_literal(match[0], kind))
            length += len(match[0])
        if length > MAX_BINDING or depth > MAX_DEPTH or depth < 0:
            raise ConfigError(f"{source}: line {number}: brackets that do not match, or too much for one binding.")
        if kind == "newline" and depth == 0:
            result.append((number, "".join(parts).strip()))
            parts, length = [], 0
        number += kind == "newline"
    if depth:
        raise ConfigError(f"{source}: a list is not closed: {''.join(parts)[:80]!r}. Is the file cut off?")
    result.append((number, "".join(parts).strip()))
    return [(line, binding) for line, binding in result if binding]


def _literal(token: str, kind: str) -> str:
    """A token as Python's literals spell it: "@transformer.sublayer_dropout" -> "'sublayer_dropout'".

    A macro becomes bytes, of which gin has no other use.
    """
    if kind == "reference":
        return repr(re.split(r"[./]", token.removesuffix("()"))[-1])
    return repr(token[1:].encode()) if kind == "macro" else token


def _value(text: str, number: int, source: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as reason:
        raise ConfigError(f"{source}: line {number}: the value {text[:80]!r} is not understood.") from reason


def _resolved(value: Any, bindings: dict[str, Any], source: str) -> Any:
    if isinstance(value, (list, tuple)):
        items = [_followed(item, bindings, source) for item in value]
        if any(isinstance(new, (list, tuple, dict)) for old, new in zip(value, items, strict=True) if new is not old):
            raise ConfigError(f"{source}: a macro within a list stands for a list, which is not understood.")
        return type(value)(items)
    return _followed(value, bindings, source)


def _followed(value: Any, bindings: dict[str, Any], source: str) -> Any:
    for _ in range(10):
        if not isinstance(value, bytes):
            return value
        name = value.decode(errors="replace")
        if name not in bindings:
            raise ConfigError(f"{source}: %{name[:80]} is used but never set.")
        value = bindings[name]
    raise ConfigError(f"{source}: a macro refers to itself.")
