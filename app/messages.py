"""Error messages on the page: plain sentences without details of the server."""

from __future__ import annotations

import html
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr

from nonlocal_video.errors import DeviceError, NonlocalVideoError, UsageError, VideoError

from . import texts

LOGGER = logging.getLogger(__name__)

INTERNAL_ERROR = "Something went wrong inside; the server's log has the details."
DEVICE_FAILED = (
    "The device on which this page computes has failed. It answers again when the server has been restarted; the "
    "server's log has the details."
)
GONE = "This clip is no longer on the server; please upload it again."


def refusal(message: str) -> gr.Error:
    """Return an error that stays on the page until closed; escaped, as Gradio shows messages as HTML."""
    return gr.Error(html.escape(message), duration=None, print_exception=False)


@contextmanager
def plain_errors(folder: Path) -> Iterator[None]:
    """Turn every exception into a plain sentence without a traceback or the path of this folder."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise refusal(words_of(error, folder)) from None


def words_of(error: Exception, folder: Path) -> str:
    """Return an exception as a plain sentence without the path of this folder; what nobody expected is logged."""
    if isinstance(error, DeviceError):
        LOGGER.error("%s", error)
        return DEVICE_FAILED
    if isinstance(error, NonlocalVideoError):
        return without_folder(str(error), folder)
    LOGGER.error("A visitor's request failed, on files in %s", folder, exc_info=error)
    return INTERNAL_ERROR


def title_of(error: Exception) -> str:
    """Return the headline of an error: what is wrong, in a few words."""
    if isinstance(error, VideoError):
        return texts.TROUBLES.get(error.code, texts.TROUBLES["other"])
    return texts.TROUBLES["setting" if isinstance(error, UsageError) else "other"]


def is_of_the_clip(error: Exception) -> bool:
    """Return whether another clip has to be chosen, because this one will never be read."""
    return isinstance(error, VideoError) and error.code != "internal"


def without_folder(message: str, folder: Path) -> str:
    """Return a message with file names only, as paths of the server are private."""
    for name in {folder, folder.resolve()}:
        message = message.replace(f"{name}{os.sep}", "")
    return message
