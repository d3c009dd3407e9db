"""Work that threads do ahead of whoever takes its results, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def done_ahead(jobs: Iterable[tuple[int, Callable[[], Any]]], threads: int, most_bytes: int = 0) -> Generator[Any]:
    """Yields the results of jobs, each (bytes, function), in order.

    While one is used, the next is under way, and as many more as make no more than `most_bytes` together.
    """
    upcoming, waiting, in_flight = deque(jobs), deque[tuple[int, Future]](), 0
    ready: Future | None = None
    with ThreadPoolExecutor(threads) as pool:
        try:
            while upcoming or waiting or ready:
                while upcoming and (not waiting or in_flight + upcoming[0][0] <= most_bytes):
                    nbytes, job = upcoming.popleft()
                    in_flight += nbytes
                    waiting.append((nbytes, pool.submit(job)))
                if ready:
                    yield ready.result()
                nbytes, ready = waiting.popleft() if waiting else (0, None)
                in_flight -= nbytes
        finally:
            pool.shutdown(cancel_futures=True)
