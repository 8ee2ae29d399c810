"""Callbacks of the tab for many clips: the folder run of `classify`, with its table on the page."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
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
from nonlocal_video.inference.preprocessing import ClipRequest
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.results import FORMATS, ResultFile
from nonlocal_video.inference.views import ViewCount

from .choices import FAST, ONE_VIEW
from .messages import GONE, plain_errors, refusal, without_folder

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
        request = ClipRequest(ViewCount.parse(ONE_VIEW if fast else views))
        settings = {"model": model, "views": views, "top_k": TOP_K, **context_settings(recognizer.card, "none")}
        shown: deque[list[Any]] = deque(maxlen=SHOWN_ROWS)
        with ExitStack() as stack:
            # Gradio copies the files before it resumes this generator, which deletes the folder.
            results = Path(stack.enter_context(TemporaryDirectory()))
            tables = [results / f"actions{ending}" for ending in FORMATS]
            with ExitStack() as writing:
                files = [
                    writing.enter_context(ResultFile(table, settings, top_k=TOP_K, resume=False)) for table in tables
                ]
                run = BatchRun(
                    recognizer,
                    self._allowed(find_files(paths, within=self.root), uploads is None, model),
                    request,
                    fast=fast,
                    tables=files,
                    to_row=self._row,
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
        root = self.root.resolve()
        chosen = (root / folder).resolve()
        if not chosen.is_relative_to(root):
            raise refusal(OUTSIDE)
        if not chosen.is_dir():
            raise UsageError(f"There is no folder {folder!r} here.")
        return [str(chosen)]

    def _allowed(self, files: Iterator[str], from_folder: bool, model: str) -> Iterator[str | Failure]:
        """Yield the files; links out of the offered folder become error rows."""
        for path in files:
            if from_folder and self.root is not None and not Path(path).resolve().is_relative_to(self.root.resolve()):
                error = VideoError("not_found", f"{path} is a link out of the folder that the server offers.")
                yield Failure(path, model, error)
            else:
                yield path

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        """Return the row of `classify --json`, with a path that is meaningful to the visitor."""
        path, row = Path(outcome.path), outcome.to_row(TOP_K)
        root = self.root.resolve() if self.root is not None else None
        known = path.relative_to(root) if root is not None and path.is_relative_to(root) else Path(path.name)
        row["path"] = printable(str(known))
        if row["error"]:
            row["error"]["message"] = without_folder(row["error"]["message"], path.parent)
        return row


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
