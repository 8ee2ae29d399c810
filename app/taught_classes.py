"""The classes that a visitor teaches: their names, their clips, and what the page shows of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.teaching.report import TeachReport
from nonlocal_video.teaching.session import TeachingSession

from .tool_texts import TEACH as WORDS
from .visit_folders import address_of, uploaded

MAX_CLASSES = 20
MAX_CLIPS = 200
MAX_MEGABYTES = 1000
"""Most megabytes of a visitor's examples together."""
MAX_NAME = 60
MAX_WORST = 3


@dataclass
class TaughtClasses:
    """Classes that a visitor teaches, and their examples."""

    folder: Path
    clips: dict[str, list[Path]] = field(default_factory=dict)
    """Examples of each class, in the order of the page."""
    taken: dict[str, Path] = field(default_factory=dict)
    """Examples that came from a folder run, by the file of their row."""
    says: str = WORDS["invitation"]
    is_busy: bool = False
    answer: dict[str, Any] | None = None
    """Answer for the last clip that was tried."""
    session: TeachingSession | None = None
    served: str | None = None
    """Name of the model that is served to this visitor."""
    learning: threading.Lock = field(default_factory=threading.Lock)

    def edit(self, change: dict[str, Any]) -> None:
        """Do what a visitor did: add, rename or remove a class, add or remove clips.

        Raises:
            UsageError: It is not allowed.
        """
        what, label = change.get("do"), str(change.get("label", ""))
        if what == "name":
            self._name(str(change.get("before", "")), label)
        elif what == "remove_class":
            self.clips.pop(label, None)
        elif what == "add" and isinstance(change.get("paths"), list):
            for path in change["paths"]:
                self._add(label, uploaded(path))
        elif what == "remove" and label in self.clips:
            self.clips[label] = [clip for clip in self.clips[label] if str(clip) != change.get("path")]
        self.answer = None

    def take(self, corrected: Sequence[tuple[str, str]], taken: Callable[[str, Path], Path]) -> None:
        """Add the clips of a folder run whose labels were put right; one that was taken before gets its label of now.

        Args:
            corrected: Files and their labels.
            taken: Returns a file that stays, perhaps a copy in the folder that it is given.

        Raises:
            UsageError: No clip was corrected, or too many; the examples stay as they were.
            VideoError: One is gone; the examples stay as they were.
        """
        if not corrected:
            raise UsageError(WORDS["none_corrected"])
        before = self.clips
        moved = {self.taken[path] for path, _ in corrected if path in self.taken}
        self.clips = {label: [clip for clip in clips if clip not in moved] for label, clips in before.items()}
        try:
            for path, label in corrected:
                if path not in self.taken or not self.taken[path].is_file():
                    self.taken[path] = taken(path, self.folder / "examples")
                self._add(label, self.taken[path])
        except Exception:
            self.clips = before
            raise
        self.clips = {label: clips for label, clips in self.clips.items() if clips or not before.get(label)}
        self.answer = None

    def _name(self, before: str, label: str) -> None:
        label = " ".join(label.split())
        if not 0 < len(label) <= MAX_NAME:
            raise UsageError(WORDS["no_name"].format(most=MAX_NAME))
        if label == before:
            return
        if label in self.clips:
            raise UsageError(WORDS["name_taken"].format(label=label))
        if before in self.clips:
            self.clips = {label if name == before else name: clips for name, clips in self.clips.items()}
            return
        if len(self.clips) >= MAX_CLASSES:
            raise UsageError(WORDS["too_many_classes"].format(most=MAX_CLASSES))
        self.clips[label] = []

    def _add(self, label: str, path: Path) -> None:
        if label not in self.clips:
            self._name("", label)
        known = dict(self.examples())
        if path in known:
            raise UsageError(WORDS["twice"].format(name=path.name, label=known[path]))
        if len(known) >= MAX_CLIPS:
            raise UsageError(WORDS["too_many_clips"].format(most=MAX_CLIPS))
        if sum(os.path.getsize(clip) for clip in (*known, path) if clip.exists()) > MAX_MEGABYTES * 1024**2:
            raise UsageError(WORDS["too_large"].format(most=MAX_MEGABYTES))
        self.clips[label].append(path)

    def examples(self) -> Iterator[tuple[Path, str]]:
        """Yield each clip with its class."""
        for label, clips in self.clips.items():
            for clip in clips:
                yield clip, label

    def session_of(self, recognizer: Recognizer) -> TeachingSession:
        """Return the session that learns, with the examples of today."""
        if self.session is None:
            fast = recognizer.card.fast_input is not None
            self.session = TeachingSession(recognizer, self.folder / "model", fast=fast)
        wanted = {str(path): label for path, label in self.examples()}
        for path in set(self.session.examples) - set(wanted):
            self.session.remove(path)
        for path, label in wanted.items():
            self.session.add(path, label)
        return self.session

    @property
    def report(self) -> TeachReport | None:
        """Return the report of the last lesson."""
        return None if self.session is None else self.session.report

    def to_json(self) -> dict[str, Any]:
        """Return what the page shows."""
        report = self.report
        looks_like = {one.path: one.looks_like for one in report.worst} if report else {}
        unreadable = {path for path, _ in report.unreadable} if report else set()
        classes = [
            {
                "name": label,
                "clips": [
                    {
                        "path": str(clip),
                        "name": clip.name,
                        "url": address_of(clip),
                        "taken_for": looks_like.get(str(clip)),
                        "is_unreadable": str(clip) in unreadable,
                    }
                    for clip in clips
                ],
            }
            for label, clips in self.clips.items()
        ]
        return {
            "classes": classes,
            "says": self.says,
            "notes": [WORDS["same_person"]] if report and report.accuracy is not None else [],
            "accuracy": report.accuracy if report else None,
            "worst": [one.path for one in report.worst[:MAX_WORST]] if report else [],
            "is_busy": self.is_busy,
            "is_ready": report is not None and not self.is_busy,
            "answer": self.answer,
        }


def in_words(report: TeachReport | None) -> str:
    """Describe what was learnt in a sentence."""
    if report is None:
        return WORDS["one_more"]
    counts = set(report.counts.values())
    if counts == {1}:
        clips = WORDS["each_one"]
    elif len(counts) == 1:
        clips = WORDS["each"].format(count=counts.pop())
    else:
        clips = WORDS["clips"].format(count=report.num_examples)
    classes = len(report.counts)
    if report.accuracy is None:
        return WORDS["unmeasured"].format(classes=classes, clips=clips)
    right = round(report.accuracy * report.num_measured)
    return WORDS["learnt"].format(classes=classes, clips=clips, right=right, measured=report.num_measured)
