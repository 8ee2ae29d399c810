"""Keep the server from fetching anything: a file is uploaded, or it is not there."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import NoReturn

import gradio as gr
from gradio import processing_utils

from .internals import missing, require
from .messages import refusal

_PURPOSE = "to refuse addresses that a client names in place of a file"


def forbid_remote_fetch() -> None:
    """Let Gradio refuse an address that a client names in place of a file.

    Any input of any of its components would otherwise have the server ask that address, past our limits of size.
    There is no setting for it; all of Gradio's ways to a foreign host go through this one function.

    Raises:
        UsageError: This release of Gradio has another function for it, so nothing would be refused.
    """
    require(processing_utils, "async_ssrf_protected_get", library="gradio", purpose=_PURPOSE)
    require(processing_utils, "async_ssrf_protected_download", library="gradio", purpose=_PURPOSE)
    processing_utils.async_ssrf_protected_get = _refuse
    # The download that components call has to end in that function, not only to stand beside it. It refuses before it
    # waits for anything, so one step without an event loop tells; and no such host can exist (RFC 2606).
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
