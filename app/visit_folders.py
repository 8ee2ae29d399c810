"""A private folder for each visitor, for what is made of uploads; the clean-up deletes what is in it in time."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import quote

import gradio as gr
from gradio.utils import get_upload_folder

from nonlocal_video.errors import UsageError

Visit = TypeVar("Visit")

MAX_VISITS = 50
"""Most visitors whose work is remembered; those who were not here for the longest time are forgotten."""


class Visits(Generic[Visit]):
    """State of each visitor, made when it is first asked for, and forgotten with its folder."""

    def __init__(self, make: Callable[[Path], Visit], *, max_visits: int = MAX_VISITS) -> None:
        """Begin without visitors.

        Args:
            make: Makes what is known of a new visitor, whose folder is given.
            max_visits: Most visitors.
        """
        self._make, self._max_visits = make, max_visits
        self._visits: OrderedDict[str, tuple[Path, Visit]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._visits)

    def of(self, request: gr.Request) -> Visit:
        """Return what is known of a visitor."""
        visitor = request.session_hash or ""
        with self._lock:
            if visitor not in self._visits:
                folder = private_folder()
                self._visits[visitor] = folder, self._make(folder)
            self._visits.move_to_end(visitor)
            gone = [self._visits.popitem(last=False)[1] for _ in range(len(self._visits) - self._max_visits)]
            folder, visit = self._visits[visitor]
        for old, _ in gone:
            shutil.rmtree(old, ignore_errors=True)
        folder.mkdir(mode=0o700, exist_ok=True)  # the clean-up deletes an empty one
        return visit

    def forget(self, request: gr.Request) -> Visit | None:
        """Delete the folder of a visitor who closed the page, and return what was known; None of one not known."""
        with self._lock:
            known = self._visits.pop(request.session_hash or "", None)
        if known is None:
            return None
        shutil.rmtree(known[0], ignore_errors=True)
        return known[1]


def private_folder() -> Path:
    """Make a folder with an unguessable name among the uploads, whose files Gradio sends to those who know it."""
    folder = Path(get_upload_folder()).resolve() / secrets.token_urlsafe(16)
    folder.mkdir(mode=0o700, parents=True)
    return folder


def address_of(path: Path) -> str:
    """Return the address at which Gradio sends a file below the folder of uploads, relative to the page."""
    return f"gradio_api/file={quote(str(path))}"


def uploaded(path: object) -> Path:
    """Return the path of a file that was uploaded, which a browser names.

    Raises:
        UsageError: It was not uploaded, or is gone.
    """
    with suppress(OSError, ValueError):  # too long a name; NUL, or no text
        file, folder = Path(str(path)).resolve(), Path(get_upload_folder()).resolve()
        if file.is_relative_to(folder) and file.is_file():
            return file
    raise UsageError("This clip is not on the server any more; drop it again.")


def put_in(folder: Path, upload: str | os.PathLike[str]) -> Path:
    """Put an upload into a folder under its own name, or one like it, and return the file."""
    source = Path(upload)
    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / source.name, 1
    while target.exists():
        number += 1
        target = folder / f"{source.stem} {number}{source.suffix}"
    shutil.copyfile(source, target)
    return target
