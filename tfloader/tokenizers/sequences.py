"""Lists of token ids: shortening them, finding one in another, stacking them into padded arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tfloader.errors import TokenizerError

Row = tuple[list[int], int]


class TokenBatch(NamedTuple):
    """Token ids of a batch: three int32 arrays of shape [batch, length].

    `attention_mask` is 1 at real tokens and 0 at padding. It alone tells them apart where the tokenizer has no padding
    token (GPT-2), because the padding id is then an ordinary token.
    """

    input_ids: np.ndarray
    segment_ids: np.ndarray
    attention_mask: np.ndarray


def stack(rows: Sequence[Row], width: int, filler: int, second_segment: int, left: bool) -> TokenBatch:
    """Pads rows to a width; a row is its ids and the place where its second segment begins."""
    shape = (len(rows), width)
    batch = TokenBatch(np.full(shape, filler, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32))
    for i, (ids, boundary) in enumerate(rows):
        begin = width - len(ids) if left else 0
        end = begin + len(ids)
        batch.input_ids[i, begin:end] = ids
        batch.segment_ids[i, begin + boundary : end] = second_segment
        batch.attention_mask[i, begin:end] = 1
    return batch


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
