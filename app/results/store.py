"""Results that are kept on the server for a while: each has an address that nobody can guess."""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from nonlocal_video.attention.map_file import jpeg, write_maps
from nonlocal_video.attention.maps import AttentionMaps
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.prediction import Prediction

from .. import texts
from ..messages import INTERNAL_ERROR
from .files import JSON, SCENE, THUMBNAIL, KeptResult
from .shelf import Shelf

LOGGER = logging.getLogger(__name__)
FRAME_SIDE = 640
"""Longer side of the frames in a result, in pixels."""
_THUMBNAIL_SIDE = 200


class ResultGoneError(Exception):
    """There is no such result any more, or there never was."""


class ResultsFullError(Exception):
    """The saved results leave no room for another one."""


class Results(Shelf):
    """The results of one server, in private folders; nothing outside of them is ever read."""

    def __init__(self, **bounds: Any) -> None:
        """Make an empty store; see `Shelf` for the arguments."""
        super().__init__(**bounds)
        self._coming: set[str] = set()  # ids whose maps are being made
        self._promised: dict[str, Callable[[str], None]] = {}

    def keep(self, prediction: Prediction, id: str | None = None) -> str:
        """Keep the scores of a clip, and return the id of the result; `add_maps` completes it.

        Args:
            prediction: What the page shows.
            id: Id that was promised; None makes one.
        """
        id = id or secrets.token_urlsafe(16)
        folder = self._folder(is_saved=False) / id
        folder.mkdir(parents=True)  # the cleaner removes empty folders
        kept = KeptResult.of(id, prediction, created=self._now(), folder=folder)
        (folder / JSON).write_text(json.dumps(kept.row, ensure_ascii=False, indent=1), "utf-8")
        with self._lock:
            self._kept[id] = kept
            self._measure(id)
        return id

    def add_maps(self, id: str, explanation: Explanation) -> None:
        """Add what the network looked at to a result that was kept; nothing if it was deleted meanwhile."""
        explanation = explanation.lightened(min(FRAME_SIDE, max(explanation.frame(0).shape)))
        maps: dict[str, AttentionMaps] = {}
        if explanation.evidence_layer is not None:
            maps["evidence"] = explanation.class_evidence()
        if explanation.block_inputs:
            maps["attention"] = explanation.attention_received()
        with suppress(ResultGoneError, FileNotFoundError):
            folder = self.get(id).folder
            if not maps:
                with self._lock:
                    self._kept[id] = replace(self.get(id), words=texts.NO_MAPS)
                return
            write_maps(folder / SCENE, maps)
            middle = explanation.frame(len(explanation.frame_of_time) // 2)
            (folder / THUMBNAIL).write_bytes(jpeg(middle, long_side=_THUMBNAIL_SIDE))
            with self._lock:
                self._kept[id] = replace(self.get(id), maps=tuple(maps))
                self._measure(id)

    def add_maps_soon(self, id: str, explanation: Explanation) -> None:
        """Add the maps in the background; nobody waits for them."""

        def add() -> None:
            words = ""
            try:
                self.add_maps(id, explanation)
            except Exception:
                LOGGER.exception("The maps of a result could not be kept")
                words = INTERNAL_ERROR
            self._coming.discard(id)
            self.give_up(id, words)

        self._coming.add(id)
        threading.Thread(target=add, daemon=True).start()

    def give_up(self, id: str, words: str) -> None:
        """Say on a result's page why it has no maps, unless it has some or some are on their way."""
        with self._lock:
            kept = self._kept.get(id)
            if kept is not None and not (kept.maps or kept.words or id in self._coming):
                self._kept[id] = replace(kept, words=words)

    def promise(self, make: Callable[[str], None]) -> str:
        """Return the id of a result that `make` will keep under this id when somebody first asks for it."""
        id = secrets.token_urlsafe(16)
        with self._lock:
            self._promised[id] = make
        return id

    def withdraw(self, ids: Iterable[str]) -> None:
        """Forget promises that nobody has taken up."""
        with self._lock:
            for id in ids:
                self._promised.pop(id, None)

    def get(self, id: str) -> KeptResult:
        """Return a result.

        Raises:
            ResultGoneError: It was deleted, its time is over, or it never was.
        """
        with self._lock:
            if (make := self._promised.pop(id, None)) is not None:
                make(id)
            kept = self._kept.get(id)
            if kept is None:
                raise ResultGoneError
            if not kept.is_saved and (self._now() - kept.created > self.keep_seconds or not kept.folder.is_dir()):
                self._drop(id)
                raise ResultGoneError
            return kept

    def existing(self, ids: Sequence[str]) -> list[KeptResult]:
        """Return those of some results that are still there, in this order."""
        found = []
        for id in ids:
            with suppress(ResultGoneError):
                found.append(self.get(id))
        return found

    def save(self, id: str) -> None:
        """Let a result stay until it is deleted or the server ends.

        Raises:
            ResultGoneError: It is not there any more.
            ResultsFullError: Half of the room is taken by saved results.
        """
        with self._making, self._lock:  # nothing is written into the folder while it moves
            kept = self.get(id)
            if kept.is_saved:
                return
            saved = [other for other in self._kept.values() if other.is_saved]
            if (
                2 * (len(saved) + 1) > self._max_results
                or 2 * sum(self._sizes[other.id] for other in saved) > self._max_bytes
            ):
                raise ResultsFullError
            folder = Path(shutil.move(kept.folder, self._folder(is_saved=True)))
            self._kept[id] = replace(kept, folder=folder, is_saved=True)

    def delete(self, id: str) -> None:
        """Delete a result and everything that was made of it.

        Raises:
            ResultGoneError: It is not there any more.
        """
        with self._lock:
            self.get(id)
            self._drop(id)

    def file(self, id: str, name: str) -> Path:
        """Return a file of a result, which is made now if nobody has asked for it before.

        Args:
            id: Id of the result.
            name: One of `KeptResult.files`.

        Raises:
            ResultGoneError: There is no such result, or it has no such file.
        """
        with self._making:  # one at a time: they take seconds of all cores
            kept = self.get(id)
            if name not in kept.files:
                raise ResultGoneError
            try:
                path = kept.file(name)
            except FileNotFoundError:  # deleted meanwhile
                raise ResultGoneError from None
        with self._lock, suppress(KeyError):  # deleted meanwhile
            self._measure(id)
        return path
