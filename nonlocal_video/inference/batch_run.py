"""The resumable run over many files, used by the command line, the page, `evaluate` and Python."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.context import FolderContext, check_context, check_has_features
from nonlocal_video.inference.file_kinds import PassedOver
from nonlocal_video.inference.files import Selection, find_files
from nonlocal_video.inference.folder import classify_files
from nonlocal_video.inference.folder_context import context_settings, kept_answer, refined_outcomes
from nonlocal_video.inference.many_devices import classify_on_devices
from nonlocal_video.inference.options import RunOptions
from nonlocal_video.inference.prediction import Failure, Outcome
from nonlocal_video.inference.predictor import Predictor
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.results import ResultFile, rows_of
from nonlocal_video.models.card import ModelCard

Row = dict[str, Any]


class BatchRun:
    """Classifies files one after another and writes a row for each; files that have a row are skipped.

    Iterating yields each outcome with its row, already written to the tables. Ending the iteration early ends the run.

    Attributes:
        counts: Number of rows of this run, by `ok` or the error's code.
    """

    def __init__(
        self,
        predictor: Predictor,
        files: Iterable[str | Failure],
        request: ClipRequest,
        *,
        workers: int | None = None,
        batch_size: int | None = None,
        devices: Sequence[str] = (),
        tables: Sequence[ResultFile] = (),
        to_row: Callable[[Outcome], Row] = lambda outcome: outcome.to_row(),
        keep_answers: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare a run; no file is read yet.

        Args:
            predictor: Answers.
            files: Paths, possibly endless, and failures for files that were rejected before they were read.
            request: How to look, the same for all files.
            workers: Decoding processes beside the network; None is as many as suit the device.
            batch_size: Views in one forward pass; None is as many as suit the device.
            devices: Several take a process each, see `many_devices`; else the recogniser answers.
            tables: Open tables that each get all rows; resumed together, if at all.
            to_row: What is kept of an outcome.
            keep_answers: Whether tables also keep logits and features, for a context.
            should_stop: Asked before each file; after True, only the files in hand are finished.
        """
        self.counts: Counter[str] = Counter()
        self._predictor, self._files, self._request = predictor, files, request
        self._workers, self._batch_size, self._devices = workers, batch_size, devices
        self._tables, self._to_row, self._should_stop = tables, to_row, should_stop
        self._keep_answers = keep_answers

    @property
    def done_before(self) -> Counter[str]:
        """Number of rows of earlier runs, by `ok` or the error's code."""
        return self._tables[0].done_before if self._tables else Counter()

    def __iter__(self) -> Generator[tuple[Outcome, Row], None, None]:
        with closing(self._outcomes()) as outcomes:
            for outcome in outcomes:
                row = self._to_row(outcome)
                answer = kept_answer(outcome) if self._keep_answers else None
                for table in self._tables:
                    table.append(outcome.path, row, answer)
                self.counts[row["error"]["code"] if row["error"] else "ok"] += 1
                yield outcome, row

    def _outcomes(self) -> Generator[Outcome, None, None]:
        how: dict[str, Any] = {"workers": self._workers, "batch_size": self._batch_size}
        if len(self._devices) > 1:
            return classify_on_devices(self._predictor, self._wanted(), self._request, self._devices, **how)
        device = self._predictor.device
        return classify_files(self._predictor, self._wanted(), self._request, device=device, **how)

    def _wanted(self) -> Iterator[str | Failure]:
        for file in self._files:
            if self._should_stop():
                return
            path = file.path if isinstance(file, Failure) else file
            if not self._tables or self._tables[0].is_to_do(path):
                yield file


@dataclass(frozen=True)
class BatchProgress:
    """Progress of a run after a row."""

    outcome: Outcome
    row: Row
    counts: Counter[str]
    """Rows of this run, by `ok` or the error's code."""
    done_before: Counter[str]
    """Rows of earlier runs, likewise."""


@dataclass(frozen=True, repr=False)
class FolderResult:
    """Result of a folder run; iterating yields the rows, as in `classify --json`."""

    counts: Counter[str]
    """Rows of this run, by `ok` or the error's code."""
    done_before: Counter[str] = field(default_factory=Counter)
    """Rows that earlier runs had written, likewise."""
    passed_over: PassedOver = field(default_factory=PassedOver)
    """Counts of the skipped files, by kind."""
    output: Path | None = None
    """Path of the table; None if none was written."""
    outcomes: Sequence[Outcome] = ()
    """Predictions and failures, in order; none where a table was written. In a context, the final ones."""
    top_k: int = 5
    """Classes in a row."""

    def __len__(self) -> int:
        return self.counts.total() + self.done_before.total()

    def __iter__(self) -> Iterator[Row]:
        if self.output is not None:
            return rows_of(self.output)
        return (outcome.to_row(self.top_k) for outcome in self.outcomes)

    def __repr__(self) -> str:
        words = ", ".join(f"{number} {code}" for code, number in (self.counts + self.done_before).most_common())
        return f"FolderResult({len(self)} files: {words}; output={str(self.output) if self.output else None!r})"


@dataclass(frozen=True)
class FolderOptions:
    """Settings of a folder run: the table it writes, and what works on it."""

    output: str | os.PathLike[str] | None = None
    """Table to write, .csv, .jsonl or .parquet; None writes none."""
    resume: bool = False
    """Take up an earlier run with this output."""
    top_k: int = 5
    """Classes in a row."""
    workers: int | None = None
    """Decoding processes beside the network; None is as many as suit the device."""
    batch_size: int | None = None
    """Views in one forward pass; None is as many as suit the device."""
    devices: Sequence[str] = ()
    """Several take a process each, see `many_devices`; else the recogniser answers."""
    selection: Selection = field(default_factory=Selection)
    """Filter of the files that count."""
    context: FolderContext = "none"
    """`folder` refines each clip's answer by the others of the run, resumed runs included."""
    csv_escape: bool = True
    """Whether a CSV gets an apostrophe before text that a spreadsheet would take for a formula."""


def run_settings(
    card: ModelCard,
    weights_sha256: str | None,
    request: ClipRequest,
    options: RunOptions,
    *,
    top_k: int,
    context: FolderContext = "none",
) -> dict[str, Any]:
    """Return the settings that affect the rows of a run; a run can only be resumed with the same.

    Settings that only change rounding (device, runtime, batch size) are not included and may change.

    Args:
        card: The model's.
        weights_sha256: Digest of its weights; None leaves it out.
        request: How to look.
        options: How the model runs.
        top_k: Classes in a row.
        context: Whether the clips refine each other.
    """
    return context_settings(card, context) | {
        "model": card.name,
        "weights_sha256": weights_sha256,
        "views": str(request.views),
        "fast": request.fast,
        "start_seconds": request.start_seconds,
        "end_seconds": request.end_seconds,
        "region": None if request.region is None else str(request.region),
        "top_k": top_k,
        "precision": options.precision,
        "decoder": options.decoder,
        "limits": asdict(options.limits),
    }


def run_folder(
    predictor: Predictor,
    paths: Sequence[str | os.PathLike[str]],
    request: ClipRequest,
    options: FolderOptions,
    *,
    keep_outcomes: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[BatchProgress], None] = lambda progress: None,
) -> FolderResult:
    """Classify all files of folders, patterns and URLs, and write a table.

    Args:
        predictor: Answers.
        paths: Files, folders (searched through), glob patterns, addresses.
        request: How to look, the same for all.
        options: How to run.
        keep_outcomes: Whether the result has all outcomes, in memory; a run in a context without a table always does.
        should_stop: Asked before each file; after True, only the files in hand are finished.
        on_progress: Called after each row; in a context with the clip's own answer, which is not the final one.

    Raises:
        UsageError: An argument is invalid, or the output cannot be resumed.
        OutputError: The table cannot be written; the rows so far are kept beside it.
        DeviceError: The device failed; `resume` continues with the files without a row.
        KeyboardInterrupt: `should_stop` ended the run; the rows are kept, and `resume` continues.
    """
    output = options.output
    if options.resume and output is None:
        raise UsageError("resume = True continues a table; name it with output.")
    check_context(options.context, FolderContext)
    check_has_features(predictor.network, predictor.card.name, options.context)
    refines = options.context == "folder"
    keep_outcomes = keep_outcomes or (refines and output is None)
    outcomes: list[Outcome] = []
    passed_over = PassedOver()
    files = find_files(
        paths, selection=options.selection, leave_out=ResultFile.files_of(output), passed_over=passed_over
    )
    with ExitStack() as stack:
        tables = []
        if output is not None:
            settings = run_settings(
                predictor.card,
                predictor.weights_sha256(),
                request,
                predictor.options,
                top_k=options.top_k,
                context=options.context,
            )
            table = ResultFile(
                output, settings, top_k=options.top_k, resume=options.resume, csv_escape=options.csv_escape
            )
            tables.append(stack.enter_context(table))
        run = BatchRun(
            predictor,
            files,
            request,
            workers=options.workers,
            batch_size=options.batch_size,
            devices=options.devices,
            tables=tables,
            to_row=lambda outcome: outcome.to_row(options.top_k),
            keep_answers=refines,
            should_stop=should_stop,
        )
        with closing(iter(run)) as steps:
            for outcome, row in steps:
                if keep_outcomes:
                    outcomes.append(outcome)
                on_progress(BatchProgress(outcome, row, run.counts, run.done_before))
        if should_stop():
            raise KeyboardInterrupt
    path = None if output is None else Path(output)
    kept = refined_outcomes(outcomes, predictor.card) if refines else tuple(outcomes)
    return FolderResult(run.counts, run.done_before, passed_over, path, kept, options.top_k)
