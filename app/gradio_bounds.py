"""Bounds on what Gradio remembers of visitors, a cleaner that does not stop, and an end that visitors are told of."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr
from gradio import queueing, route_utils
from gradio.server_messages import ProcessCompletedMessage
from gradio.utils import LRUCache

from .internals import require

MAX_MESSAGES = 500
"""Maximum number of messages that wait for one visitor to listen; the oldest are dropped."""


class Mailbox(asyncio.Queue[Any]):
    """Messages for one visitor; when nobody listens, the oldest are dropped."""

    def put_nowait(self, item: Any) -> None:
        """Add a message."""
        if self.qsize() >= MAX_MESSAGES:
            self.get_nowait()
        super().put_nowait(item)


def bound_sessions(page: gr.Blocks, max_sessions: int) -> None:
    """Keep states, messages and events of at most this many visitors, the last ones.

    By default Gradio keeps the messages of 2000 visitors who never listen, any number of them for each, and the numbers
    of their events for ever.

    Args:
        page: Page with its queue.
        max_sessions: Maximum number of visitors, those who have left included.

    Raises:
        UsageError: This release of Gradio keeps them elsewhere.
    """
    purpose = "to forget visitors that are gone"
    require(page, "state_session_capacity", library="gradio", purpose=purpose)
    require(page, "_queue", library="gradio", purpose=purpose)
    require(queueing, "AsyncQueue", library="gradio", purpose=purpose)
    for name in ("event_queue_per_concurrency_id", "active_jobs", "send_message"):
        require(page._queue, name, library="gradio", purpose="to tell visitors that the server is ending")
    page.state_session_capacity = max_sessions
    queueing.AsyncQueue = Mailbox  # type: ignore[misc]
    for name in ("pending_messages_per_session", "pending_event_ids_session"):
        require(page._queue, name, library="gradio", purpose=purpose)
        setattr(page._queue, name, LRUCache(max_sessions))


def end_all(page: gr.Blocks, words: str) -> None:
    """End all that visitors wait for with a sentence, which the page shows; call this in the event loop.

    The work itself continues until the process ends: its threads cannot be ended.

    Args:
        page: Page with its queue.
        words: The sentence.
    """
    queued = [event for waiting in page._queue.event_queue_per_concurrency_id.values() for event in waiting.queue]
    running = [event for job in page._queue.active_jobs if job is not None for event in job]
    for event in (*running, *queued):
        page._queue.send_message(event, ProcessCompletedMessage(output={"error": words}, success=False))


def keep_cleaning() -> None:
    """Make Gradio's cleaner pass over folders: one that is named as a clip would end it for ever.

    Raises:
        UsageError: This release of Gradio has another cleaner.
    """
    require(route_utils, "delete_files_created_by_app", library="gradio", purpose="to delete uploads in time")
    if not hasattr(route_utils.delete_files_created_by_app, "__wrapped__"):
        cleaner = _without_folders(route_utils.delete_files_created_by_app)
        route_utils.delete_files_created_by_app = cleaner  # type: ignore[assignment]


def _without_folders(clean: Callable[[gr.Blocks, int | None], None]) -> Callable[[gr.Blocks, int | None], None]:
    @wraps(clean)
    def cleaned(blocks: gr.Blocks, age: int | None) -> None:
        for files in blocks.temp_file_sets:
            files -= {file for file in list(files) if os.path.isdir(file) and not os.path.islink(file)}
        clean(blocks, age)

    return cleaned
