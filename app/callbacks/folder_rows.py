"""The rows of folder runs: what the table shows, what was put right, and the results that rows open."""

from __future__ import annotations

import base64
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nonlocal_video.attention.map_file import jpeg
from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.prediction import Prediction
from nonlocal_video.video.decode import VideoReader

from .. import texts_more as texts
from ..results.store import Results
from .folder_files import FolderFiles

SHOWN_ROWS = 2000
"""Number of rows on the page, the first ones; the downloads contain all."""
ROWS_AT_ONCE = 200
MAX_RUNS = 16
"""Maximum number of runs of all visitors whose rows are remembered."""
MAX_LABEL = 200
"""Maximum number of characters of a label that a visitor types."""
THUMBNAIL_SIDE = 96
"""Longer side of the picture of a row, in pixels."""
Row = dict[str, Any]


@dataclass
class FolderRun:
    """The rows of one run."""

    visitor: str
    labels: tuple[str, ...]
    """Labels of the model, which are offered when one is put right."""
    files: FolderFiles
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    rows: list[Row] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    """The file of each row."""
    corrections: dict[int, str] = field(default_factory=dict)
    """Right labels, by the number of the row."""


class FolderRows:
    """The rows of the last runs."""

    def __init__(self, results: Results) -> None:
        """Make an empty store.

        Args:
            results: Store of the results that rows open.
        """
        self.results = results
        self._runs: OrderedDict[str, FolderRun] = OrderedDict()
        self._lock = threading.Lock()
        self._explaining = threading.Lock()

    def begin(self, visitor: str, labels: tuple[str, ...], files: FolderFiles) -> FolderRun:
        """Begin a run; the visitor's earlier ones are forgotten, and the oldest of all beyond the limit."""
        self.leave(visitor)
        run = FolderRun(visitor, labels, files)
        with self._lock:
            self._runs[run.id] = run
            while len(self._runs) > MAX_RUNS:
                self._withdraw(self._runs.popitem(last=False)[1])
        return run

    def leave(self, visitor: str) -> None:
        """Forget the runs of a visitor; results that were opened stay."""
        with self._lock:
            for run in [run for run in self._runs.values() if run.visitor == visitor]:
                self._withdraw(self._runs.pop(run.id))

    def functions(self) -> list[Callable[[Any], Any]]:
        """Return the functions that the table calls."""

        def rows(asked: Mapping[str, Any]) -> dict[str, Any]:
            return self.since(str(asked["run"]), int(asked["from"]))

        def correct(asked: Mapping[str, Any]) -> dict[str, Any]:
            return self.correct(str(asked["run"]), int(asked["row"]), str(asked["label"]))

        return [rows, correct]

    def since(self, run: str, number: int) -> dict[str, Any]:
        """Return the rows from a number on, some at a time; with the first ones the labels."""
        if (found := self._runs.get(run)) is None:
            return {"gone": True, "rows": []}
        rows = found.rows[max(number, 0) : max(number, 0) + ROWS_AT_ONCE]
        return {"rows": rows, **({"labels": found.labels} if number == 0 else {})}

    def correct(self, run: str, number: int, label: str) -> dict[str, Any]:
        """Note the right label of a row; an empty one takes a correction back."""
        label = " ".join(label.split())[:MAX_LABEL]
        if (found := self._runs.get(run)) is None or not 0 <= number < len(found.rows):
            return {"gone": True}
        if label:
            found.corrections[number] = label
        else:
            found.corrections.pop(number, None)
        return {"label": label, "count": len(found.corrections)}

    def corrections(self, run: str) -> list[tuple[str, str]]:
        """Return the paths and the right labels of the rows that were put right or accepted."""
        found = self._runs[run]
        return [(found.rows[number]["path"], label) for number, label in sorted(found.corrections.items())]

    def put_right(self, run: str, visitor: str) -> tuple[FolderFiles, list[tuple[str, str]]]:
        """Return the files of a visitor's run, and those that were put right or accepted, with their labels.

        Raises:
            UsageError: The visitor has no such run any more.
        """
        found = self._runs.get(run)
        if found is None or found.visitor != visitor:
            raise UsageError(texts.FOLDER_TABLE["gone"])
        return found.files, [(found.sources[number], label) for number, label in sorted(found.corrections.items())]

    def promise(self, prediction: Prediction, explain: Callable[[], Explanation]) -> str:
        """Return the id of the result of a row; its maps are made when somebody opens it."""
        prediction = replace(prediction, logits=None, features=None)

        def complete(id: str) -> None:
            with self._explaining:  # one at a time, however many rows somebody opens
                try:
                    self.results.add_maps(id, replace(explain(), prediction=prediction))
                except Exception:  # the clip is gone, or it has changed
                    self.results.give_up(id, "The clip is no longer there, so that nothing can be drawn over it.")

        def make(id: str) -> None:
            self.results.keep(prediction, id)
            threading.Thread(target=complete, args=[id], daemon=True).start()

        return self.results.promise(make)

    def _withdraw(self, run: FolderRun) -> None:
        self.results.withdraw(row["result"] for row in run.rows if row["result"])


def thumbnail(reader: VideoReader, prediction: Prediction) -> str:
    """Return a frame from the middle of what was seen, as an address of its own."""
    view = prediction.views[len(prediction.views) // 2]
    middle = view.times_seconds[len(view.times_seconds) // 2]
    try:
        frame = reader.read(prediction.path, [middle]).frames_thwc[0]
    except (UsageError, VideoError):  # the row is right without
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg(frame, quality=70, long_side=THUMBNAIL_SIDE)).decode()}"


def shown_row(row: dict[str, Any], picture: str, result: str) -> Row:
    """Return what the table shows of a row of `classify --json`."""
    error = row["error"]["message"].removeprefix(f"{Path(row['path']).name}: ") if row["error"] else ""
    top = [[one["label"], round(one["score"], 4)] for one in row["top"]]
    return {
        "path": row["path"],
        "top": top,
        "error": error,
        "unknown": bool(row.get("unknown")),
        "picture": picture,
        "result": result,
    }
