"""The one progress bar: bytes, rate and time left, on a terminal and nowhere else."""

from __future__ import annotations

from typing import Any

from tfloader.terminal import printable


def progress_bar(title: str, total: int | None, done: int = 0) -> Any:
    """A bar over bytes as a context manager, on stderr; `.update(n)` after each `n` of them.

    Args:
        title: what is going on; characters that could steer a terminal are escaped.
        total: number of bytes, None if unknown.
        done: how many of them an earlier run did.
    """
    from tqdm import tqdm

    safe = printable(title)
    return tqdm(
        desc=safe, total=total, initial=done, unit="B", unit_scale=True, dynamic_ncols=True, leave=False, disable=None
    )
