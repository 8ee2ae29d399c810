"""Callbacks of the tab for many clips: the folder run of `classify`, with its rows on the page as they finish."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gradio as gr
from gradio.utils import LRUCache

from nonlocal_video.inference.batch_run import BatchRun
from nonlocal_video.inference.file_kinds import PassedOver
from nonlocal_video.inference.folder_context import context_settings
from nonlocal_video.inference.prediction import Outcome, Prediction, printable
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.results import FORMATS, ResultFile
from nonlocal_video.video.decode import VideoReader

from .. import texts_more as texts
from ..choices import FAST, ONE_VIEW
from ..components.headline import DONE, NO_FILES, STOPPED, WORKING, failed, said
from ..messages import without_folder
from ..visit_folders import uploaded
from .folder_files import FolderFiles
from .folder_rows import SHOWN_ROWS, FolderRows, FolderRun, shown_row, thumbnail

TOP_K = 5
UPDATE_SECONDS = 0.5
MIN_TIMED_ROWS = 3
"""Number of rows after which the remaining time is shown."""


class Update(NamedTuple):
    """Updates of the components, in the order in which the page lists its outputs."""

    said: Any
    table: Any
    downloads: Any


@dataclass(frozen=True)
class FolderRuns:
    """Callbacks of the folder tab."""

    recognizers: Mapping[str, Recognizer]
    """Recognizers by model name."""
    rows: FolderRows
    """Rows of the last runs."""
    root: Path | None = None
    """Folder that visitors may classify, with its subfolders; None offers none."""
    chosen: dict[str, Mapping[str, Any]] = field(default_factory=lambda: LRUCache(100))
    """Choice of each of the last visitors: `paths` of uploads, up to 1 MB of them, or a `folder`."""
    waiting: set[str] = field(default_factory=set)
    """Visitors whose choice was not looked at yet."""
    stops: dict[str, threading.Event] = field(default_factory=dict)
    """Event that stops the run of each visitor."""

    def choose(self, event: gr.EventData, request: gr.Request) -> Update:
        """Take other clips in place of the last ones; `run` follows."""
        self.chosen[request.session_hash or ""] = dict(event._data)
        return self.again(request)

    def again(self, request: gr.Request) -> Update:
        """Stop this visitor's run, if there is one, and note that another one comes when it is its turn."""
        self.stop(request)
        self.stops.pop(request.session_hash or "", None)  # the one before says nothing more
        self.waiting.add(request.session_hash or "")
        return Update(said(WORKING, texts.FOLDER["waiting"], can_stop=False), None, NO_FILES)

    def stop(self, request: gr.Request) -> None:
        """Stop this visitor's run after the current clips."""
        if (stop_event := self.stops.get(request.session_hash or "")) is not None:
            stop_event.set()

    def leave(self, request: gr.Request) -> None:
        """Stop the run of a visitor who closed the page, and forget its rows."""
        self.stop(request)
        self.waiting.discard(request.session_hash or "")
        self.chosen.pop(request.session_hash or "", None)
        self.rows.leave(request.session_hash or "")

    def run(self, model: str, views: str, request: gr.Request) -> Iterator[Update]:
        """Yield how far the run is, then the files to download."""
        visitor, top = request.session_hash or "", self.root or Path.cwd()
        if visitor not in self.waiting:  # a run before this one has taken the last choice
            return
        self.waiting.remove(visitor)
        chosen, recognizer = self.chosen.get(visitor, {}), self.recognizers[model]
        stop_event = self.stops[visitor] = threading.Event()
        try:
            uploads = [str(uploaded(path)) for path in chosen.get("paths") or ()]
            top = Path(uploads[0]).parent if uploads else top
            with closing(FolderFiles(uploads, chosen.get("folder"), self.root, recognizer, model)) as files:
                for update in self._updates(files, recognizer, views, visitor, stop_event):
                    if self.stops.get(visitor) is not stop_event:
                        return  # other clips were chosen
                    yield update
        except Exception as error:  # the page says why
            if self.stops.get(visitor) is stop_event:
                yield Update(failed(error, top), None, NO_FILES)
        finally:
            if self.stops.get(visitor) is stop_event:
                del self.stops[visitor]

    def _updates(
        self, files: FolderFiles, recognizer: Recognizer, views: str, visitor: str, stop_event: threading.Event
    ) -> Iterator[Update]:
        passed_over = PassedOver()
        total = files.count(passed_over)
        shown = self.rows.begin(visitor, tuple(recognizer.card.labels), files)
        request = ClipRequest.parse(views=ONE_VIEW if views == FAST else views, fast=views == FAST)
        settings = {"model": files.model, "views": views, "top_k": TOP_K, **context_settings(recognizer.card, "none")}
        with ExitStack() as stack:
            # Gradio copies the files before it resumes this generator, which deletes the folder.
            folder = Path(stack.enter_context(TemporaryDirectory()))
            tables = [folder / f"actions{ending}" for ending in FORMATS]
            with ExitStack() as writing:
                reader = writing.enter_context(recognizer.new_reader())
                to_row = partial(self._row, files, reader, views == FAST, shown)
                run = BatchRun(
                    recognizer,
                    files,
                    request,
                    tables=[
                        writing.enter_context(ResultFile(table, settings, top_k=TOP_K, resume=False))
                        for table in tables
                    ],
                    to_row=to_row,
                    should_stop=stop_event.is_set,
                )
                began = updated = time.monotonic()
                yield _update(shown, 0, total)
                for _ in writing.enter_context(closing(iter(run))):
                    now, done = time.monotonic(), run.counts.total()
                    if now - updated >= UPDATE_SECONDS:
                        left = (now - began) / done * (total - done) if done >= MIN_TIMED_ROWS else None
                        yield _update(shown, done, total, left)
                        updated = time.monotonic()
            done = run.counts.total()
            is_stopped = stop_event.is_set() and done < total
            head = texts.folder_headline(run.counts["ok"], is_stopped=is_stopped)
            words = " ".join([texts.folder_counts(run.counts, total), *_not_tried(passed_over, done)])
            yield Update(
                said(STOPPED if is_stopped else DONE, head, words, can_repeat=True),
                _value(shown, done, total, is_running=False),
                gr.update(value=[str(table) for table in tables], visible=True),
            )

    def _row(
        self, files: FolderFiles, reader: VideoReader, fast: bool, shown: FolderRun, outcome: Outcome
    ) -> dict[str, Any]:
        """Return the row of `classify --json`, with a path that is meaningful to the visitor, and show it."""
        read, row = Path(outcome.path), outcome.to_row(TOP_K)
        clip = files.copies.pop(outcome.path, None)
        path = outcome.path if clip is None else clip.name
        row["path"] = printable(files.shown(path))
        if row["error"]:
            row["error"]["message"] = without_folder(row["error"]["message"], read.parent)
        if len(shown.rows) < SHOWN_ROWS:
            picture, result = "", ""
            if isinstance(outcome, Prediction):
                picture = thumbnail(reader, outcome)
                explain = partial(files.explain, path, fast=fast)
                result = self.rows.promise(outcome, explain)
            shown.sources.append(path)
            shown.rows.append(shown_row(row, picture, result))
        if clip is not None:
            clip.close()
        return row


def _update(shown: FolderRun, done: int, total: int, seconds_left: float | None = None) -> Update:
    progress = texts.folder_progress(done, total, seconds_left)
    return Update(
        said(WORKING, texts.FOLDER["looking"], progress, share=done / total if total else None),
        _value(shown, done, total, is_running=True),
        NO_FILES if done == 0 else gr.skip(),
    )


def _value(shown: FolderRun, done: int, total: int, *, is_running: bool) -> dict[str, Any]:
    """Return the value of the table, which fetches the rows itself."""
    return {"run": shown.id, "count": len(shown.rows), "done": done, "total": total, "running": is_running}


def _not_tried(passed_over: PassedOver, done: int) -> list[str]:
    more = [texts.FOLDER["more"].format(count=SHOWN_ROWS)] if done > SHOWN_ROWS else []
    return [*([texts.FOLDER["passed"].format(kinds=passed_over.in_words())] if passed_over else []), *more]
