"""What an evaluation leaves behind: figures, every clip's answer, and the confusion matrix as table and picture."""

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
from nonlocal_video.evaluation.answers import TOP_K, Answer
from nonlocal_video.evaluation.confusion import draw_confusion
from nonlocal_video.evaluation.metrics import NUM_BINS, RESAMPLES, Figure, Metrics
from nonlocal_video.inference.csv_cells import write_rows
from nonlocal_video.io import atomic_write
from nonlocal_video.models.card import Accuracy

FEW_GROUPS = 20
REPORT_FILES = ("summary.json", "predictions.csv", "confusion.csv", "confusion.png")


@dataclass(frozen=True, repr=False)
class Evaluation:
    """One model on one set of labelled clips."""

    settings: Mapping[str, Any]
    """What the answers depend on: model, views and the like."""
    labels: Sequence[str]
    """The model's."""
    answers: Sequence[Answer]
    metrics: Metrics | None
    """None if no clip can be read."""
    published: Accuracy | None
    """The figures of the model's card, where its protocol was run."""
    seed: int

    @property
    def unreadable(self) -> list[Answer]:
        return [answer for answer in self.answers if not answer.readable]

    @property
    def worst_first(self) -> list[Answer]:
        """Mistakes, the largest regret first; then clips that cannot be read; then right answers, unsure ones first."""
        return sorted(self.answers, key=_place)

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures should know."""
        notes = []
        if self.metrics and 1 < self.metrics.num_groups < FEW_GROUPS:
            notes.append(
                f"Only {self.metrics.num_groups} independent groups: the intervals are rough, and likely too narrow."
            )
        if self.metrics and self.metrics.num_groups == 1:
            notes.append("All clips are of one group, which says nothing about others: there are no intervals.")
        for name, figure in self.metrics.accuracies.items() if self.metrics else ():
            if figure.interval and figure.interval[0] == figure.interval[1]:
                notes.append(f"{name} is the same in every draw of groups: an interval without width is no certainty.")
        if self.published:
            notes.append(
                "The published figures hold for the validation set of the model's classes; on other clips, or a part "
                "of it, the measured ones need not be equal."
            )
        return notes

    def summary(self) -> dict[str, Any]:
        """What `summary.json` holds; accuracies, intervals and calibration error in percent."""
        metrics = self.metrics
        return {
            **self.settings,
            "clips": len(self.answers),
            "readable": len(self.answers) - len(self.unreadable),
            "unreadable": len(self.unreadable),
            "classes": len({answer.truth.index for answer in self.answers}),
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
            "bootstrap": {"over": "groups", "resamples": RESAMPLES, "seed": self.seed},
            "unreadable_clips": [
                {"path": answer.path, "code": answer.error[0], "message": answer.error[1]}
                for answer in self.unreadable
                if answer.error
            ],
            "notes": self.notes,
        }

    def unreadable_in_words(self) -> str:
        """`2 unreadable (1 corrupt, 1 not_found)`, or nothing."""
        codes = Counter(answer.error[0] for answer in self.unreadable if answer.error)
        kinds = ", ".join(f"{number} {code}" for code, number in codes.most_common())
        return f"{len(self.unreadable)} unreadable ({kinds})" if codes else ""

    def write(self, folder: Path, *, csv_escape: bool = True) -> list[Path]:
        """`summary.json`, `predictions.csv` (worst first), and if any clip can be read `confusion.csv` and `.png`.

        Raises:
            OutputError: The folder cannot be written.
        """
        try:
            summary, predictions, *confusion = (folder / name for name in REPORT_FILES)
            written = [summary, predictions]
            with atomic_write(written[0]) as file:
                file.write(json.dumps(self.summary(), indent=2, ensure_ascii=False).encode())
            _write_csv(written[1], [_flat(answer) for answer in self.worst_first], csv_escape)
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
                f"the same command with --resume; no clip is done again."
            ) from error
        return written

    def _title(self) -> str:
        left_out = self.unreadable_in_words()
        more = f", without {left_out}" if left_out else ""
        fast = ", fast" if self.settings["fast"] else ""
        return f"{self.settings['model']}, {self.settings['views']} views{fast}, {len(self.answers)} clips{more}"


def occurring(confusion: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """The classes that have clips (rows), and these with those that clips are taken for behind them (columns)."""
    rows = np.flatnonzero(confusion.sum(axis=1)).tolist()
    answered = np.flatnonzero(confusion.sum(axis=0)).tolist()
    known = set(rows)
    return rows, [*rows, *(index for index in answered if index not in known)]


def percent(share: float) -> float:
    """0.123456 -> 12.346."""
    return round(100 * share, 3)


def _percent_row(figure: Figure) -> dict[str, Any]:
    return {
        "value": percent(figure.value),
        "interval_95": [percent(end) for end in figure.interval] if figure.interval else None,
        "unreadable_as_wrong": percent(figure.unreadable_as_wrong),
    }


def _place(answer: Answer) -> tuple[int, float, str]:
    if not answer.readable:
        return 1, 0.0, answer.path
    return (2, answer.top[0].score, answer.path) if answer.right else (0, -answer.regret, answer.path)


def _flat(answer: Answer) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": answer.path,
        "status": "ok" if answer.readable else "error",
        "label": answer.truth.label,
        "group": answer.truth.group,
        "right": answer.right if answer.readable else None,
        "true_rank": answer.true_rank,
        "true_score": answer.true_score,
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
