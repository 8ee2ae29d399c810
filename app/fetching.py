"""The server fetches nothing: a file is uploaded, or it is not there."""

from __future__ import annotations

from typing import NoReturn

from gradio import processing_utils

from .messages import refusal


def forbid_fetching() -> None:
    """Let Gradio refuse an address that a client names in place of a file.

    Any input of any of its components would otherwise have the server ask that address, past our limits of size.
    There is no setting for it; all of Gradio's ways to a foreign host go through this one function.
    """
    processing_utils.async_ssrf_protected_get = _refuse


async def _refuse(url: str) -> NoReturn:
    raise refusal("This server fetches nothing from an address; upload the file itself.")
