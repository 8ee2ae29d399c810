"""Many clips at once: the folder run of `classify`, with its table on the page."""

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
"""The page shows the last ones; the downloads have all."""
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
    """The callbacks of the folder tab."""

    recognizers: Mapping[str, Recognizer]
    root: Path | None = None
    stops: dict[str, threading.Event] = field(default_factory=dict)
    """Visitor -> what tells the run of this visitor to end after the clips in hand."""

    def stop(self, request: gr.Request) -> str:
        """Let this visitor's run end after the clips in hand."""
        if (asked := self.stops.get(request.session_hash or "")) is not None:
            asked.set()
        return "Stopping after the clips in hand."

    def leave(self, request: gr.Request) -> None:
        """Nobody waits for the run of a visitor who closed the page."""
        self.stop(request)

    def run(
        self, uploads: Sequence[str] | None, folder: str | None, model: str, views: str, request: gr.Request
    ) -> Iterator[Update]:
        """The table as it grows, then the files to download."""
        visitor = request.session_hash or ""
        top = Path(uploads[0]).parent if uploads else self.root or Path.cwd()
        asked = self.stops[visitor] = threading.Event()
        try:
            with plain_errors(top):
                yield from self._rows(uploads, folder, model, views, asked)
        finally:
            self.stops.pop(visitor, None)

    def _rows(
        self, uploads: Sequence[str] | None, folder: str | None, model: str, views: str, asked: threading.Event
    ) -> Iterator[Update]:
        paths = self._paths(uploads, folder)
        passed_over = PassedOver()
        total = sum(1 for _ in find_files(paths, passed_over=passed_over, within=self.root))
        recognizer, fast = self.recognizers[model], views == FAST
        request = ClipRequest(ViewCount.parse(ONE_VIEW if fast else views))
        settings = {"model": model, "views": views, "top_k": TOP_K}
        shown: deque[list[Any]] = deque(maxlen=SHOWN_ROWS)
        with ExitStack() as stack:
            # Gradio copies the files before it asks for the next update, and so before the folder goes.
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
                    should_stop=asked.is_set,
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
            ended = "Stopped." if asked.is_set() and run.counts.total() < total else "Done."
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

    def _allowed(self, files: Iterator[str], of_folder: bool, model: str) -> Iterator[str | Failure]:
        """The files; links out of the offered folder get a row instead of being read."""
        for path in files:
            if of_folder and self.root is not None and not Path(path).resolve().is_relative_to(self.root.resolve()):
                error = VideoError("not_found", f"{path} is a link out of the folder that the server offers.")
                yield Failure(path, model, error)
            else:
                yield path

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        """The row of `classify --json`, with the path as a visitor knows it."""
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
    """Nothing is shown of a table without rows: it would be a place to scroll that no key reaches."""
    rows = list(rows)
    return gr.update(value=rows, visible=bool(rows))


def _shown(row: dict[str, Any]) -> list[Any]:
    if row["error"]:
        return [row["path"], "", None, row["error"]["message"].removeprefix(f"{Path(row['path']).name}: ")]
    best = row["top"][0]
    return [row["path"], best["label"], round(best["score"], 3), ""]
