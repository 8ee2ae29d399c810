"""Make items in a thread of their own while the caller works on those before."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def read_ahead(items: Iterator[T], size: int) -> Generator[T, None, None]:
    """Yield the items of an iterator that a thread of its own runs, up to `size` items ahead of the caller.

    An error comes where the item would have come. Closing the generator waits until the item in hand is made.

    Args:
        items: Used by that thread alone until this generator is closed.
        size: At least 1.
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
