"""Protection against downloads by the server: files have to be uploaded."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import NoReturn

import gradio as gr
from gradio import processing_utils

from .internals import missing, require
from .messages import refusal

_PURPOSE = "to refuse addresses that a client names in place of a file"


def forbid_remote_fetch() -> None:
    """Make Gradio refuse URLs that a client gives in place of a file.

    Otherwise any component would make the server download the URL, without our size limit. Gradio has no setting for
    this; all its downloads go through one function.

    Raises:
        UsageError: This release of Gradio uses another function, so nothing would be refused.
    """
    require(processing_utils, "async_ssrf_protected_get", library="gradio", purpose=_PURPOSE)
    require(processing_utils, "async_ssrf_protected_download", library="gradio", purpose=_PURPOSE)
    processing_utils.async_ssrf_protected_get = _refuse
    # Check that the download of components calls this function. It refuses before it awaits anything, so one step
    # without an event loop shows it; and no such host can exist (RFC 2606).
    with TemporaryDirectory() as folder:
        download = processing_utils.async_ssrf_protected_download("http://nothing.invalid/clip.mp4", folder)
        try:
            download.send(None)
        except gr.Error:
            return
        except Exception as error:
            raise missing("one function for all downloads", library="gradio", purpose=_PURPOSE) from error
        download.close()
    raise missing("one function for all downloads", library="gradio", purpose=_PURPOSE)


async def _refuse(url: str) -> NoReturn:
    raise refusal("This server fetches nothing from an address; upload the file itself.")
