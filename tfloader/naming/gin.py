"""Reads the bindings of a gin file (`operative_config.gin`) without running anything.

Only what such a file of results contains is understood: macros, `scope/Class.parameter = value`, literals, lists,
`%macro` and `@reference` (kept as the reference's last name). Nothing is imported or evaluated.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from tfloader.errors import ConfigError


def parse_gin(text: str, source: str) -> dict[str, Any]:
    """Returns the bindings of a gin file with its macros filled in.

    Raises:
        ConfigError: naming the line that is not understood, or a macro that is used but never set.
    """
    text = re.sub(r"\\\n\s*", " ", text)
    bindings: dict[str, Any] = {}
    pending = ""
    for number, line in enumerate(text.splitlines(), 1):
        line = (pending + " " + line.strip()).strip()
        if not pending and (not line or line.startswith(("#", "import ", "include "))):
            continue
        pending = line if line.count("[") + line.count("(") > line.count("]") + line.count(")") else ""
        if pending:
            continue
        match = re.fullmatch(r"([\w./]+)\s*=\s*(.*?)\s*(?:#.*)?", line)
        if not match:
            raise ConfigError(f"{source}: line {number} is not a gin binding: {line[:80]!r}.")
        bindings[match[1]] = _value(match[2], number, source)
    if pending:
        raise ConfigError(f"{source}: a list is not closed: {pending[:80]!r}. Is the file cut off?")
    return {name: _resolved(value, bindings, source) for name, value in bindings.items()}


class _Macro(str):
    """A `%name` that stands for another binding."""


def _value(text: str, number: int, source: str) -> Any:
    if re.fullmatch(r"%[\w.]+", text):
        return _Macro(text[1:])
    # A reference becomes a string: "@transformer.sublayer_dropout" -> "sublayer_dropout".
    literal = re.sub(r"@(?:[\w/]+\.)*(\w+)(?:\(\))?", r"'\1'", text)
    try:
        return ast.literal_eval(literal)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as reason:
        raise ConfigError(f"{source}: line {number}: the value {text[:80]!r} is not understood.") from reason


def _resolved(value: Any, bindings: dict[str, Any], source: str) -> Any:
    for _ in range(10):
        if not isinstance(value, _Macro):
            return value
        if str(value) not in bindings:
            raise ConfigError(f"{source}: %{value} is used but {value} is never set.")
        value = bindings[str(value)]
    raise ConfigError(f"{source}: the macro {value} refers to itself.")
