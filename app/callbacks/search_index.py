"""Callbacks that look through clips, so that they can be searched."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.feature_stream import OpenFile
from nonlocal_video.inference.files import find_files
from nonlocal_video.inference.prediction import printable
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.retrieval.archive import open_archive
from nonlocal_video.retrieval.folder_index import IndexCallback, index_of, update_index

from .. import tool_texts as texts
from ..components.headline import DONE, STOPPED, WORKING, failed, said
from ..received import receive_found
from ..told import told_by
from ..visit_folders import Visits, put_in, uploaded
from .search_visit import SearchVisit

MAX_CLIPS = 50
"""Most clips of a visitor that are searched."""
MAX_CHOICES = 1000
"""Most clips of an index that are offered as examples; any clip can be dropped as one."""
ROOT, OWN = "root", "own"
WORDS = texts.SEARCH


class Indexed(NamedTuple):
    """Updates of the components after looking through clips."""

    said: Any
    example: Any
    pick: Any
    """The column with what one may search for."""


@dataclass(frozen=True)
class SearchIndexes:
    """Callbacks that make and update what is searched."""

    recognizer: Recognizer
    root: Path | None = None
    """Folder that visitors may search, with its subfolders; None offers none."""
    visits: Visits[SearchVisit] = field(default_factory=lambda: Visits(SearchVisit))
    looking: threading.Lock = field(default_factory=threading.Lock)
    """Held while the offered folder is looked through; a run whose visitor left ends after the clips in hand."""

    def index(self, where: str, uploads: Sequence[str] | None, request: gr.Request) -> Iterator[Indexed]:
        """Yield how far the clips are looked through, then what can be searched."""
        visit = self.visits.of(request)
        visit.stop.set()  # what was looked through before this
        stop = visit.stop = threading.Event()
        is_shown = visit.begin()
        try:
            folder, table, within = self._place(where, uploads, visit)
            total = sum(1 for _ in find_files([str(folder)], within=within))
            yield Indexed(reading(0, total, 0), gr.skip(), gr.skip())

            def look(tell: Callable[[tuple[int, int]], None]) -> None:
                lock = self.looking if where == ROOT else nullcontext()
                open_file: OpenFile = self._copied_file if where == ROOT else nullcontext
                with lock:
                    update_index(
                        self.recognizer,
                        str(folder),
                        table,
                        fast=self._is_fast,
                        within=within,
                        open_file=open_file,
                        callback=_Index(tell, stop),
                    )

            is_stopped = False
            try:
                for files, windows in told_by(look):
                    if is_shown():
                        yield Indexed(reading(files, total, windows), gr.skip(), gr.skip())
            except KeyboardInterrupt:
                is_stopped = True
            finally:
                stop.set()  # if the visitor has left
            if visit.stop is stop:  # otherwise other clips were chosen meanwhile
                ready = self._ready(visit, table, folder, is_stopped=is_stopped)
                yield ready if is_shown() else ready._replace(said=gr.skip())
        except Exception as error:  # the page says why
            if not is_shown():
                return
            folder = self.root if where == ROOT and self.root else visit.folder
            yield Indexed(failed(error, folder), gr.skip(), gr.skip())

    def stop(self, request: gr.Request) -> None:
        """Stop looking through clips after those in hand."""
        self.visits.of(request).stop.set()

    def forget(self, request: gr.Request) -> None:
        """Stop and delete what is done for a visitor who closed the page."""
        if (visit := self.visits.forget(request)) is not None:
            visit.stop.set()

    @contextmanager
    def _copied_file(self, path: str) -> Iterator[str]:
        """Give a private copy of a file of the offered folder, whose name may lead elsewhere by now."""
        assert self.root is not None
        limit = self.recognizer.options.limits.max_bytes
        with receive_found(path, root=self.root, max_bytes=limit) as clip, clip.plain_errors():
            yield str(clip.path)

    @property
    def _is_fast(self) -> bool:
        return self.recognizer.card.fast_input is not None

    def _place(self, where: str, uploads: Sequence[str] | None, visit: SearchVisit) -> tuple[Path, Path, Path]:
        """Return the folder to look through, its table, and the folder that no link may leave."""
        if where == ROOT and self.root is not None:
            root = self.root.resolve()
            return root, index_of(self.recognizer, str(root), fast=self._is_fast), root
        if not uploads:
            raise UsageError(WORDS["no_clips"])
        if len(uploads) > MAX_CLIPS:
            raise UsageError(WORDS["too_many"].format(most=MAX_CLIPS))
        folder = visit.folder / "clips"
        known = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        for upload in map(uploaded, uploads):
            if upload.name not in known:
                put_in(folder, upload)
        return folder, visit.folder / "index.parquet", folder

    def _ready(self, visit: SearchVisit, table: Path, folder: Path, *, is_stopped: bool) -> Indexed:
        if is_stopped and not table.exists():
            return Indexed(said(STOPPED, WORDS["stopped"].format(files=0), WORDS["rest"]), gr.skip(), gr.skip())
        archive = open_archive(table)
        visit.table = table
        visit.names = {printable(os.path.relpath(path, folder)): Path(path) for path in archive.windows.paths}
        choices = sorted(visit.names)[:MAX_CHOICES]
        return Indexed(
            ready(visit, archive.num_errors, is_stopped=is_stopped),
            gr.update(choices=choices, value=None),
            gr.update(visible=True),
        )


def ready(visit: SearchVisit, num_errors: int, *, is_stopped: bool) -> dict[str, Any]:
    """Return the headline that says how many clips can be searched."""
    errors = WORDS["errors"].format(count=num_errors) if num_errors else ""
    doing = WORDS["next" if visit.example is None else "press"].format(errors=errors)
    head = WORDS["stopped" if is_stopped else "ready"].format(files=len(visit.names))
    return said(STOPPED if is_stopped else DONE, head, f"{doing} {WORDS['rest']}" if is_stopped else doing)


class _Index(IndexCallback):
    """Tells the page how far an index is."""

    def __init__(self, tell: Callable[[tuple[int, int]], None], stop: threading.Event) -> None:
        self._tell, self._stop, self._windows = tell, stop, 0

    def on_progress(self, progress: Any) -> None:
        self._windows += 0 if isinstance(progress.result, VideoError) else len(progress.result)
        self._tell((progress.counts.total() + progress.done_before.total(), self._windows))

    def should_stop(self) -> bool:
        return self._stop.is_set()


def reading(done: int = 0, total: int = 0, windows: int = 0) -> dict[str, Any]:
    """Return the headline that says how many clips are looked through."""
    if not total:
        return said(WORKING, WORDS["reading"])
    doing = WORDS["progress"].format(done=done, total=total, windows=windows)
    return said(WORKING, WORDS["reading"], doing, share=done / total)
