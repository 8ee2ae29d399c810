"""Callbacks of the tab for many clips: the folder run of `classify`, with its table on the page."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gradio as gr

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.batch_run import BatchRun
from nonlocal_video.inference.file_kinds import PassedOver
from nonlocal_video.inference.files import find_files
from nonlocal_video.inference.folder_context import context_settings
from nonlocal_video.inference.prediction import Failure, Outcome, printable
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.results import FORMATS, ResultFile

from ..choices import FAST, ONE_VIEW
from ..messages import GONE, plain_errors, refusal, without_folder
from ..received import MAX_PATH_BYTES, ReceivedClip, receive, short

TOP_K = 5
HEADERS = ["File", "Action", "Score", "Error"]
SHOWN_ROWS = 200
"""Number of rows on the page, the last ones; the downloads contain all."""
UPDATE_SECONDS = 0.5
NOTHING = "Choose some files, or name a folder."
OUTSIDE = "This folder is not below the one that the server offers."


class Update(NamedTuple):
    """Updates of the components, in the order in which the page lists its outputs."""

    status: Any
    table: Any
    downloads: Any
    start: Any
    stop: Any


@dataclass(frozen=True)
class FolderRuns:
    """Callbacks of the folder tab."""

    recognizers: Mapping[str, Recognizer]
    """Recognizers by model name."""
    root: Path | None = None
    """Folder that visitors may classify, with its subfolders; None offers none."""
    stops: dict[str, threading.Event] = field(default_factory=dict)
    """Event that stops the run of each visitor."""

    def stop(self, request: gr.Request) -> str:
        """Stop this visitor's run after the current clips."""
        if (stop_event := self.stops.get(request.session_hash or "")) is not None:
            stop_event.set()
        return "Stopping after the clips in hand."

    def leave(self, request: gr.Request) -> None:
        """Stop the run of a visitor who closed the page."""
        self.stop(request)

    def run(
        self, uploads: Sequence[str] | None, folder: str | None, model: str, views: str, request: gr.Request
    ) -> Iterator[Update]:
        """Yield the growing table, then the files to download."""
        visitor = request.session_hash or ""
        top = Path(uploads[0]).parent if uploads else self.root or Path.cwd()
        stop_event = self.stops[visitor] = threading.Event()
        try:
            with plain_errors(top):
                yield from self._rows(uploads, folder, model, views, stop_event)
        finally:
            self.stops.pop(visitor, None)

    def _rows(
        self, uploads: Sequence[str] | None, folder: str | None, model: str, views: str, stop_event: threading.Event
    ) -> Iterator[Update]:
        paths = self._paths(uploads, folder)
        passed_over = PassedOver()
        total = sum(1 for _ in find_files(paths, passed_over=passed_over, within=self.root))
        recognizer, fast = self.recognizers[model], views == FAST
        request = ClipRequest.parse(views=ONE_VIEW if fast else views, fast=fast)
        settings = {"model": model, "views": views, "top_k": TOP_K, **context_settings(recognizer.card, "none")}
        shown: deque[list[Any]] = deque(maxlen=SHOWN_ROWS)
        copies: dict[str, ReceivedClip] = {}
        found = find_files(paths, within=self.root)
        files_to_read = found if uploads else self._copied(found, model, recognizer.options.limits.max_bytes, copies)
        with ExitStack() as stack:
            stack.callback(_close, copies)
            # Gradio copies the files before it resumes this generator, which deletes the folder.
            results = Path(stack.enter_context(TemporaryDirectory()))
            tables = [results / f"actions{ending}" for ending in FORMATS]
            with ExitStack() as writing:
                files = [
                    writing.enter_context(ResultFile(table, settings, top_k=TOP_K, resume=False)) for table in tables
                ]
                run = BatchRun(
                    recognizer,
                    files_to_read,
                    request,
                    tables=files,
                    to_row=partial(self._row, copies),
                    should_stop=stop_event.is_set,
                )
                yield Update(
                    _status(run.counts, total),
                    _table([]),
                    gr.update(value=None, visible=False),
                    gr.update(interactive=False),
                    gr.update(interactive=True),
                )
                updated = time.monotonic()
                for _, row in writing.enter_context(closing(iter(run))):
                    shown.append(_shown(row))
                    if time.monotonic() - updated >= UPDATE_SECONDS:
                        yield Update(_status(run.counts, total), _table(shown), gr.skip(), gr.skip(), gr.skip())
                        updated = time.monotonic()
            ended = "Stopped." if stop_event.is_set() and run.counts.total() < total else "Done."
            yield Update(
                f"{ended} {_status(run.counts, total)}{_not_tried(passed_over)}",
                _table(shown),
                gr.update(value=[str(table) for table in tables], visible=True),
                gr.update(interactive=True),
                gr.update(interactive=False),
            )

    def _paths(self, uploads: Sequence[str] | None, folder: str | None) -> list[str]:
        if uploads:
            if not all(Path(upload).is_file() for upload in uploads):
                raise refusal(GONE)
            return list(uploads)
        if self.root is None or not folder:
            raise refusal(NOTHING)
        if "\0" in folder or len(os.fsencode(folder)) > MAX_PATH_BYTES:
            raise UsageError(f"A folder's name has at most {MAX_PATH_BYTES} bytes, none of them NUL.")
        root = self.root.resolve()
        try:
            chosen = (root / folder).resolve()
        except (OSError, RuntimeError):  # links lead in a circle
            raise UsageError(f"There is no folder {short(folder)} here.") from None
        if not chosen.is_relative_to(root):
            raise refusal(OUTSIDE)
        if not os.path.isdir(chosen):  # unlike the method, false for a name that is too long
            raise UsageError(f"There is no folder {short(folder)} here.")
        return [str(chosen)]

    def _copied(
        self, files: Iterator[str], model: str, max_bytes: int, copies: dict[str, ReceivedClip]
    ) -> Iterator[str | Failure]:
        """Yield private copies of the offered files; links out of the offered folder become error rows.

        A file that is checked and then opened by its name could be exchanged for a link in between. The copies are
        deleted with their rows.
        """
        assert self.root is not None
        root = self.root.resolve()
        for path in files:
            real = Path(path).resolve()
            try:
                if not real.is_relative_to(root):
                    raise VideoError("not_found", f"{path} is a link out of the folder that the server offers.")
                clip = receive(None, real.relative_to(root).as_posix(), root=root, max_bytes=max_bytes)
            except VideoError as error:
                yield Failure(path, model, error)
            else:
                copies[str(clip.path)] = replace(clip, name=path)
                yield str(clip.path)

    def _row(self, copies: dict[str, ReceivedClip], outcome: Outcome) -> dict[str, Any]:
        """Return the row of `classify --json`, with a path that is meaningful to the visitor."""
        read, row = Path(outcome.path), outcome.to_row(TOP_K)
        clip = copies.pop(outcome.path, None)
        path = read if clip is None else Path(clip.name)
        if clip is not None:
            clip.close()
        root = self.root.resolve() if self.root is not None else None
        known = path.relative_to(root) if root is not None and path.is_relative_to(root) else Path(path.name)
        row["path"] = printable(str(known))
        if row["error"]:
            row["error"]["message"] = without_folder(row["error"]["message"], read.parent)
        return row


def _close(copies: Mapping[str, ReceivedClip]) -> None:
    for clip in copies.values():
        clip.close()


def _status(counts: Counter[str], total: int) -> str:
    words = ", ".join(f"{number} {code}" for code, number in counts.most_common())
    more = f" The last {SHOWN_ROWS} rows are shown." if counts.total() > SHOWN_ROWS else ""
    return f"{counts.total()} of {total} files{': ' if words else ''}{words}.{more}"


def _not_tried(passed_over: PassedOver) -> str:
    return f" Passed over: {passed_over.in_words()}." if passed_over else ""


def _table(rows: Iterable[list[Any]]) -> Any:
    """Update the table; an empty one is hidden, as it would scroll but not be reachable by keyboard."""
    rows = list(rows)
    return gr.update(value=rows, visible=bool(rows))


def _shown(row: dict[str, Any]) -> list[Any]:
    if row["error"]:
        return [row["path"], "", None, row["error"]["message"].removeprefix(f"{Path(row['path']).name}: ")]
    best = row["top"][0]
    label = f"{best['label']} (unknown)" if row.get("unknown") else best["label"]
    return [row["path"], label, round(best["score"], 3), ""]
