"""Work in another thread that tells the page how far it is."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def told_by(work: Callable[[Callable[[T], None]], None]) -> Iterator[T]:
    """Yield what work tells, until it ends; raise what it raises.

    If the caller stops listening, the work continues: give it another way to be stopped.

    Args:
        work: Called in a thread, with a function that takes what it tells.
    """
    told: queue.Queue[Any] = queue.Queue()
    end, raised = object(), []

    def run() -> None:
        try:
            work(told.put)
        except BaseException as error:
            raised.append(error)
        finally:
            told.put(end)

    threading.Thread(target=run, name="told", daemon=True).start()
    while (what := told.get()) is not end:
        yield what
    if raised:
        raise raised[0]
