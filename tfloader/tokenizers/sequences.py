"""Lists of tokens: shortening them, finding one in another."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Callable, Iterable
from typing import Any

from tfloader.errors import TokenizerError


def share(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of two sequences stay when each surplus one goes from the longer (ties: the first)."""
    surplus = first + second - room
    if surplus <= 0:
        return first, second
    level = min(surplus, abs(first - second))
    first, second = (first - level, second) if first >= second else (first, second - level)
    surplus -= level
    return first - (surplus + 1) // 2, second - surplus // 2


def cut(items: list, count: int, index: int, maxlen: int, kept: tuple[int, int] = (0, 0)) -> None:
    """Removes `count` items one after another at an index, which may count from the end.

    The first and last `kept` items may not go.
    """
    if count <= 0:
        return
    begin = index if index >= 0 else len(items) + index - count + 1
    if begin < kept[0] or begin + count > len(items) - kept[1]:
        raise TokenizerError(
            f"maxlen={maxlen} cannot be reached: {count} of {len(items)} tokens would have to go, counted from index "
            f"{index}. Raise maxlen or choose another truncate_from."
        )
    del items[begin : begin + count]


def find_sublist(whole: list[str], part: list[str], is_wild: Callable[[str], bool]) -> int | None:
    """Where `part`, whose wild items fit everything, fits `whole`: at its beginning, its end, anywhere, or None."""
    fixed = [(i, item) for i, item in enumerate(part) if not is_wild(item)]
    last = len(whole) - len(part)
    if last < 0:
        return None
    candidates = (0, last, *range(1, last))
    return next((at for at in candidates if all(whole[at + i] == item for i, item in fixed)), None)


def as_ids(ids: Iterable[Any]) -> list[int]:
    """Whole numbers as Python's."""
    try:
        return [*map(operator.index, ids)]
    except TypeError:
        raise TokenizerError(f"ids: expected whole numbers, a list of them; found {reprlib.repr(ids)}.") from None


def foreign(token: str, text: str) -> TokenizerError:
    """The error for a token that is not where it should be in a text."""
    return TokenizerError(
        f"The token {token!r} does not come from the text {text[:60]!r} at this place. "
        "Give rematch the tokens that tokenize made of the same text."
    )
