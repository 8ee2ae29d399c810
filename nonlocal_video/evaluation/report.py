"""Report of an evaluation: summary, predictions, and the confusion matrix as table and plot."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import OutputError
from nonlocal_video.evaluation.answers import NO_CLASS, TOP_K, Answer
from nonlocal_video.evaluation.confusion import draw_confusion
from nonlocal_video.evaluation.metrics import NUM_BINS, RESAMPLES, Figure, Metrics
from nonlocal_video.evaluation.unknown import UnknownFigures
from nonlocal_video.inference.csv_cells import write_rows
from nonlocal_video.io import atomic_write
from nonlocal_video.models.card import Accuracy

FEW_GROUPS = 20
REPORT_FILES = ("summary.json", "predictions.csv", "confusion.csv", "confusion.png")


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Result of evaluating a model on labelled clips."""

    settings: Mapping[str, Any]
    """Settings that affect the answers, such as model and views."""
    labels: Sequence[str]
    """Class names of the model."""
    answers: Sequence[Answer]
    """Answer for each clip."""
    metrics: Metrics | None
    """Metrics on the clips of the model's classes; None if none of these is readable."""
    published: Accuracy | None
    """Published accuracy from the model's card, if its protocol was used."""
    seed: int
    """Seed of the bootstrap."""
    unknown: UnknownFigures | None = None
    """Rates at which a taught model does not know clips; None for other models."""

    @property
    def unreadable(self) -> list[Answer]:
        """Answers for unreadable clips."""
        return [answer for answer in self.answers if not answer.readable]

    @property
    def worst_first(self) -> list[Answer]:
        """Mistakes by falling regret, then unreadable clips, then correct answers by rising score."""
        return sorted(self.answers, key=_sort_key)

    @property
    def notes(self) -> list[str]:
        """Caveats on the metrics, one sentence each."""
        notes = []
        if self.metrics and 1 < self.metrics.num_groups < FEW_GROUPS:
            notes.append(
                f"Only {self.metrics.num_groups} independent groups: the intervals are rough, and likely too narrow."
            )
        if self.metrics and self.metrics.num_groups == 1:
            notes.append("All clips are from one group, so there are no intervals for other groups.")
        for name, figure in self.metrics.accuracies.items() if self.metrics else ():
            if figure.interval and figure.interval[0] == figure.interval[1]:
                notes.append(
                    f"{name} is the same in every resample: an interval of zero width does not mean certainty."
                )
        if self.published:
            notes.append(
                "The published accuracy is for the whole validation set of the model's classes; on other clips, or a "
                "part of it, the measured accuracy may differ."
            )
        return notes

    def summary(self) -> dict[str, Any]:
        """Return the contents of `summary.json`; accuracies, intervals and calibration error in percent."""
        metrics = self.metrics
        return {
            **self.settings,
            "clips": len(self.answers),
            "readable": len(self.answers) - len(self.unreadable),
            "unreadable": len(self.unreadable),
            "classes": len({answer.truth.index for answer in self.answers} - {NO_CLASS}),
            "classes_of_model": len(self.labels),
            "groups": metrics.num_groups if metrics else 0,
            "accuracy_percent": {name: _percent_row(figure) for name, figure in metrics.accuracies.items()}
            if metrics
            else None,
            "published_percent": asdict(self.published) if self.published else None,
            "calibration": {
                "expected_error_percent": percent(metrics.calibration_error),
                "bins": NUM_BINS,
                "mean_confidence_percent": percent(metrics.mean_confidence),
            }
            if metrics
            else None,
            "unknown": None if self.unknown is None else self.unknown.in_percent(),
            "bootstrap": {"over": "groups", "resamples": RESAMPLES, "seed": self.seed},
            "unreadable_clips": [
                {"path": answer.path, "code": answer.error[0], "message": answer.error[1]}
                for answer in self.unreadable
                if answer.error
            ],
            "notes": self.notes,
        }

    def unreadable_in_words(self) -> str:
        """Return `2 unreadable (1 corrupt, 1 not_found)`, or an empty string."""
        codes = Counter(answer.error[0] for answer in self.unreadable if answer.error)
        kinds = ", ".join(f"{number} {code}" for code, number in codes.most_common())
        return f"{len(self.unreadable)} unreadable ({kinds})" if codes else ""

    def write(self, folder: Path, *, csv_escape: bool = True) -> list[Path]:
        """Write `summary.json`, `predictions.csv` (worst first) and, if a clip is readable, `confusion.csv` and `.png`.

        Args:
            folder: Existing folder to write into.
            csv_escape: Whether to protect spreadsheets from text that looks like a formula.

        Returns:
            Paths of the written files.

        Raises:
            OutputError: The folder cannot be written.
        """
        try:
            summary, predictions, *confusion = (folder / name for name in REPORT_FILES)
            written = [summary, predictions]
            with atomic_write(written[0]) as file:
                file.write(json.dumps(self.summary(), indent=2, ensure_ascii=False).encode())
            with_unknown = self.unknown is not None
            rows_of_clips = [_flat(answer, with_unknown=with_unknown) for answer in self.worst_first]
            _write_csv(written[1], rows_of_clips, csv_escape)
            if self.metrics:
                written += confusion
                rows, columns = occurring(self.metrics.confusion)
                counts = self.metrics.confusion[np.ix_(rows, columns)]
                names = ["true class", *(self.labels[index] for index in columns)]
                lines = [[self.labels[row], *map(int, of_row)] for row, of_row in zip(rows, counts, strict=True)]
                _write_csv(written[2], [dict(zip(names, line, strict=True)) for line in lines], csv_escape)
                with atomic_write(written[3]) as file:
                    draw_confusion(
                        counts,
                        [self.labels[index] for index in rows],
                        [self.labels[index] for index in columns],
                        self._title(),
                        file,
                    )
        except OSError as error:
            raise OutputError(
                f"The report cannot be written to {os.fspath(folder)!r}: {error.strerror or error}. Make room and run "
                f"the same command with --resume; finished clips are not repeated."
            ) from error
        return written

    def _title(self) -> str:
        left_out = self.unreadable_in_words()
        more = f", without {left_out}" if left_out else ""
        fast = ", fast" if self.settings["fast"] else ""
        return f"{self.settings['model']}, {self.settings['views']} views{fast}, {len(self.answers)} clips{more}"


def occurring(confusion: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Return the classes with clips (rows), and those followed by other predicted classes (columns)."""
    rows = np.flatnonzero(confusion.sum(axis=1)).tolist()
    answered = np.flatnonzero(confusion.sum(axis=0)).tolist()
    known = set(rows)
    return rows, [*rows, *(index for index in answered if index not in known)]


def percent(share: float) -> float:
    """Convert a fraction to percent, rounded: 0.123456 -> 12.346."""
    return round(100 * share, 3)


def _percent_row(figure: Figure) -> dict[str, Any]:
    return {
        "value": percent(figure.value),
        "interval_95": [percent(end) for end in figure.interval] if figure.interval else None,
        "unreadable_as_wrong": percent(figure.unreadable_as_wrong),
    }


def _sort_key(answer: Answer) -> tuple[int, float, str]:
    if not answer.readable:
        return 1, 0.0, answer.path
    return (2, answer.top[0].score, answer.path) if answer.right else (0, -answer.regret, answer.path)


def _flat(answer: Answer, *, with_unknown: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": answer.path,
        "status": "ok" if answer.readable else "error",
        "label": answer.truth.label,
        "group": answer.truth.group,
        "right": answer.right if answer.readable else None,
        "true_rank": answer.true_rank,
        "true_score": answer.true_score,
        **({"unknown": answer.unknown} if with_unknown else {}),
    }
    for rank in range(TOP_K):
        scored = answer.top[rank] if rank < len(answer.top) else None
        row[f"top{rank + 1}_label"] = scored.label if scored else None
        row[f"top{rank + 1}_score"] = scored.score if scored else None
    code, message = answer.error or (None, None)
    return row | {"error_code": code, "error_message": message}


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]], escape: bool) -> None:
    with atomic_write(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        write_rows(text, list(rows[0]), rows, escape=escape)
        text.detach()  # flushes, and leaves the file open
