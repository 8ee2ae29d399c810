"""Prefetching of an iterator's items in another thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def read_ahead(items: Iterator[T], size: int) -> Generator[T, None, None]:
    """Yield the items of an iterator that runs in another thread, up to `size` items ahead of the caller.

    An exception is raised in place of its item. Closing the generator waits for the current item.

    Args:
        items: Iterator, used by that thread alone until this generator is closed.
        size: Number of items to prefetch, at least 1.
    """
    end: Any = object()
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        try:
            while True:
                while len(pending) <= size:
                    pending.append(pool.submit(next, items, end))
                item = pending.popleft().result()
                if item is end:
                    return
                yield item
        finally:
            for future in pending:
                future.cancel()
