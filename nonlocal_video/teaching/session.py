"""Teaching step by step: examples come and go, each change is learnt at once, and clips can be asked about between."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.context import probabilities
from nonlocal_video.inference.prediction import Prediction
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.unknown import unknown_note
from nonlocal_video.teaching.api import TaughtRun
from nonlocal_video.teaching.examples import Example, ExampleSet, is_none_of_these
from nonlocal_video.teaching.fitting import Lesson
from nonlocal_video.teaching.folder import TaughtFolder
from nonlocal_video.teaching.lessons import (
    Seen,
    TeachCallback,
    directions_of_head,
    head_weights,
    learn,
    run_settings,
    see_examples,
    write_run,
)
from nonlocal_video.teaching.report import TeachReport
from nonlocal_video.zoo.catalogue import DEFAULT

_VIEWS = "1x1"


class TeachingSession:
    """Teaches a loaded model new classes, example by example; what it learns is what `teach` learns from the same.

    Attributes:
        examples: Examples by path.
        report: What the last lesson found; None before there are two classes.

    Example:
        >>> with TeachingSession(nlv.load(), "runs/mine") as session:
        ...     session.add("wave.mp4", "wave")
        ...     session.add("bow.mp4", "bow")
        ...     session.learn()
        ...     print(session.classify("clip.mp4").top1)
        ...     session.save()
    """

    def __init__(self, recognizer: Recognizer, folder: str | os.PathLike[str], *, fast: bool = False) -> None:
        """Begin without examples.

        Args:
            recognizer: The model to start from.
            folder: Folder of the run; a new one.
            fast: Teach for the model's cheaper view.

        Raises:
            UsageError: The model has no linear head or no fast view, or the folder is not new.
            OutputError: The folder cannot be written.
        """
        recognizer.card.view(fast=fast)
        self._directions = directions_of_head(recognizer)
        self._recognizer, self._fast = recognizer, fast
        settings = run_settings(recognizer, recognizer.card.name, views=_VIEWS, fast=fast)
        self._folder = TaughtFolder(folder).open(settings, command=["teach"], resume=False)
        self.examples: dict[str, Example] = {}
        self.report: TeachReport | None = None
        self._lesson: Lesson | None = None
        self._taught: tuple[ExampleSet, Seen] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes that were learnt, in the order of the scores."""
        return () if self._taught is None else self._taught[0].labels

    def add(self, path: str | os.PathLike[str], label: str, *, group: str | None = None) -> None:
        """Add an example of a class, or of `none of these`.

        Args:
            path: A clip, or a part of it as `CLIP#t=START,END`.
            label: Its class.
            group: Group of dependent examples, such as those of one person.

        Raises:
            UsageError: The label is empty.
        """
        label = " ".join(label.split())
        if not label:
            raise UsageError("label is empty; give the name of a class.")
        labels = () if is_none_of_these(label) else (label,)
        self.examples[os.fspath(path)] = Example(os.fspath(path), labels, group)

    def remove(self, path: str | os.PathLike[str]) -> None:
        """Take an example back, if it is one."""
        self.examples.pop(os.fspath(path), None)

    def learn(self, callback: TeachCallback | None = None) -> TeachReport | None:
        """Learn from the examples that there are; only new ones are seen by the network.

        Returns:
            What was found; None as long as there are fewer than two classes.

        Raises:
            UsageError: No example of a class can be used.
            DeviceError: The device has failed.
        """
        found = ExampleSet(tuple(self.examples.values()))
        self.report = self._lesson = self._taught = None
        if not self.examples:
            return None
        seen = see_examples(
            self._recognizer,
            found,
            self._folder,
            num_views=1,
            fast=self._fast,
            workers=1,
            batch_size=None,
            callback=callback or TeachCallback(),
            should_stop=lambda: False,
        )
        if len(found.labels) < 2:
            return None
        is_default = self._recognizer.card.name == DEFAULT
        self._lesson, self.report = learn(seen, found, self._directions, is_default=is_default)
        self._taught = found, seen
        return self.report

    def classify(self, source: str | os.PathLike[str]) -> Prediction:
        """Recognise the taught classes in a clip, as the saved run does.

        Raises:
            UsageError: Nothing was learnt yet.
            VideoError: The clip cannot be read.
        """
        found, seen, lesson = self._learnt()
        seen_now = self._recognizer.classify(source, fast=self._fast)
        assert seen_now.features is not None
        weight, bias = head_weights(lesson.linear, seen.features, self._directions, lesson.scales)
        logits: NDArray[np.float32] = (weight @ seen_now.features + bias).astype(np.float32)
        likeness = lesson.classes.likeness(seen_now.features[None])
        notes = seen_now.notes
        if likeness.unknown[0]:
            nearest = found.labels[likeness.nearest[0]]
            notes = (*notes, unknown_note(nearest, float(likeness.value[0]), likeness.least))
        return replace(
            seen_now,
            model=self._folder.path.name,
            labels=found.labels,
            scores=probabilities(logits[None])[0],
            logits=logits,
            unknown=bool(likeness.unknown[0]),
            notes=notes,
        )

    def save(self) -> TaughtRun:
        """Write the run: weights, report, examples and model card; `load` takes its folder.

        Raises:
            UsageError: Nothing was learnt yet.
            OutputError: It cannot be written.
        """
        found, seen, lesson = self._learnt()
        assert self.report is not None
        source = self._recognizer.source or self._recognizer.card.name
        model = Path(source) if os.path.exists(source) else source
        write_run(
            self._folder, self._recognizer, model, lesson, self.report, found, seen, views=_VIEWS, fast=self._fast
        )
        return TaughtRun(self._folder.path, self.report)

    def close(self) -> None:
        """Let others write to the folder; it stays."""
        self._folder.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _learnt(self) -> tuple[ExampleSet, Seen, Lesson]:
        if self._taught is None or self._lesson is None:
            raise UsageError("Nothing was learnt yet; add examples of two classes, and learn.")
        return *self._taught, self._lesson
