"""Bounds on what Gradio takes and remembers, a cleaner that does not stop, and an end that visitors are told of."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any

import gradio as gr
from gradio import processing_utils, queueing, route_utils, routes
from gradio.server_messages import ProcessCompletedMessage
from gradio.utils import LRUCache
from starlette.formparsers import MultiPartException

from .internals import require
from .messages import GONE, refusal
from .remembered import Mailbox, Mailboxes, Recent, RecentOfEach, Remembered, Signals

LOGGER = logging.getLogger(__name__)

MAX_SIGN_INS = 10_000
"""Maximum number of sign-ins that are remembered, at about 0.2 kB each."""
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
NO_FILE = "A part of the upload is no file; send files alone, each with its name."


def under_way(page: gr.Blocks) -> set[str]:
    """Return the sessions that wait in Gradio's queue, or for which it does something."""
    return {event.session_hash for event in list(page._queue.event_ids_to_events.values())}


def bound_sessions(gradio_app: Any, max_sessions: int) -> None:
    """Keep states, messages and events of at most this many visitors, the last ones.

    By default Gradio keeps the messages of 2000 visitors who never listen, any number of them for each, the numbers of
    their events, uploads and sign-ins for ever, names of sessions of any length, and the last 10,000 events of all.
    Who is forgotten has left, also for the page's own callbacks.

    Args:
        gradio_app: Gradio's application, with its page.
        max_sessions: Maximum number of visitors, those who have left included.

    Raises:
        UsageError: This release of Gradio keeps them elsewhere.
    """
    purpose = "to forget visitors that are gone"
    page = gradio_app.get_blocks()
    queue, holder, uploads = page._queue, gradio_app.state_holder, routes.file_upload_statuses
    names = {
        queueing: ("AsyncQueue",),
        queue: (
            *("pending_messages_per_session", "pending_event_ids_session", "event_ids_to_events"),
            *("event_analytics", "ANALYTICS_MAX_EVENTS"),
        ),
        holder: ("session_data", "capacity"),
        uploads: ("_statuses", "_signals"),
        gradio_app: ("tokens", "iterators_to_reset"),
    }
    for owner, needed in names.items():
        for name in needed:
            require(owner, name, library="gradio", purpose=purpose)
    for name in ("event_queue_per_concurrency_id", "active_jobs", "send_message"):
        require(queue, name, library="gradio", purpose="to tell visitors that the server is ending")
    busy = partial(under_way, page)
    queueing.AsyncQueue = Mailbox  # type: ignore[assignment,misc]
    queue.pending_messages_per_session = Mailboxes(max_sessions, under_way=busy)
    queue.pending_event_ids_session = RecentOfEach(max_sessions, under_way=busy)
    queue.ANALYTICS_MAX_EVENTS = 0  # its tables are computed anew after each event, and one bad name breaks them
    holder.capacity = max_sessions
    holder.session_data = Remembered(max_sessions + 1, under_way=busy, on_forget=partial(_leave, page))
    uploads._statuses = Remembered(max_sessions)
    uploads._signals = Signals(max_sessions)  # type: ignore[assignment]
    gradio_app.tokens = LRUCache(MAX_SIGN_INS)
    gradio_app.iterators_to_reset = Recent()


def _leave(page: gr.Blocks, session: str) -> None:
    """Call what the page calls when a visitor closes it."""
    for function in page.fns.values():
        if function.fn is not None and any(event == "unload" for _, event in function.targets):
            try:
                function.fn(gr.Request(session_hash=session))
            except Exception:
                LOGGER.exception("A visitor could not be forgotten")


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


def take_uploads_alone() -> None:
    """Make Gradio refuse in a sentence what is no upload: parts without a file, and names of what was never sent.

    By default it fails at them, with no words for who asked and a trace in the log for each.

    Raises:
        UsageError: This release of Gradio reads uploads elsewhere.
    """
    purpose = "to refuse what is no upload"
    require(route_utils, "GradioMultiPartParser", library="gradio", purpose=purpose)
    parser = route_utils.GradioMultiPartParser
    require(parser, "on_headers_finished", library="gradio", purpose=purpose)
    for name in ("async_move_files_to_cache", "check_all_files_in_cache"):
        require(processing_utils, name, library="gradio", purpose=purpose)
    if not hasattr(parser.on_headers_finished, "__wrapped__"):
        parser.on_headers_finished = _with_a_file(parser.on_headers_finished)  # type: ignore[method-assign]
        processing_utils.async_move_files_to_cache = _moved(processing_utils.async_move_files_to_cache)
        processing_utils.check_all_files_in_cache = _checked(processing_utils.check_all_files_in_cache)


def _with_a_file(finish: Callable[[Any], None]) -> Any:
    @wraps(finish)
    def finished(parser: Any) -> None:
        finish(parser)
        if parser._current_part.file is None:
            raise MultiPartException(NO_FILE)

    return finished


def _moved(move: Callable[..., Awaitable[Any]]) -> Any:
    @wraps(move)
    async def moved(data: Any, block: Any, postprocess: bool = False, **how: Any) -> Any:
        try:
            return await move(data, block, postprocess, **how)
        except gr.Error:
            raise
        except (OSError, ValueError) as error:
            if postprocess or not (isinstance(error, ValueError) or error.errno in _NO_SUCH_FILE):
                raise
            raise refusal(GONE) from None

    return moved


def _checked(check: Callable[[Any], None]) -> Any:
    @wraps(check)
    def checked(data: Any) -> None:
        try:
            check(data)
        except (OSError, ValueError):  # Gradio's own error is one of the latter
            raise refusal(GONE) from None

    return checked
