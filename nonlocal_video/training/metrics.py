"""Metrics of a training run, in `metrics.csv` and TensorBoard."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.io import refuse_link

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

STEP, EPOCH = "step", "epoch"
"""Names of the first two columns: optimisation steps and epochs done (2.5 is the middle of the third epoch)."""

MetricsRow = dict[str, float | None]
"""Value by column; None where nothing was measured."""


class MetricsWriter:
    """Writes the metrics of one run. A context manager; with several training processes, only the first has one.

    TensorBoard groups the columns by their names, and `draw_curves` uses them: `train/TERM` and `validation/TERM` for
    terms of the loss, `validation/top1` and the like for accuracies (from 0 to 1), `learning_rate`, `gate/BLOCK` for
    non-local blocks.

    The table of a resumed run equals that of an uninterrupted one, byte for byte: rows after the resumed step are
    removed. TensorBoard's files cannot be changed; a purge mark hides their earlier points of these steps. Lightning's
    CSVLogger would delete an earlier table, and its TensorBoardLogger uses one folder per start.
    """

    def __init__(
        self,
        table: str | os.PathLike[str],
        tensorboard: str | os.PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        resume_step: int | None = None,
    ) -> None:
        """Open the log.

        Args:
            table: Path of `metrics.csv`.
            tensorboard: Folder of TensorBoard's files.
            columns: Columns besides step and epoch; None uses those of the first row.
            resume_step: Step of an earlier log to continue after, -1 for its beginning; None starts a new log.

        Raises:
            UsageError: TensorBoard is not installed, a new log's table exists, or a resumed one's is invalid.
            OutputError: The files cannot be written.
        """
        writer = _summary_writer()
        self._path = Path(table)
        self._columns = None if columns is None else [STEP, EPOCH, *columns]
        self._last_step = -1
        if resume_step is None:
            if self._path.exists():
                raise UsageError(f"{str(self._path)!r} exists; resume its run, or choose another folder.")
        else:
            self._truncate_after(resume_step)
        refuse_link(self._path, hard=True)
        try:
            self._tensorboard = writer(
                os.fspath(tensorboard), purge_step=None if resume_step is None else resume_step + 1
            )
            self._file = open(self._path, "ab")  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise self._cannot_write(error) from error

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._tensorboard.close()
        self._file.close()

    def add(
        self, step: int, epoch: float, values: Mapping[str, float], *, timings: Mapping[str, float] | None = None
    ) -> None:
        """Write one row and sync it to disk; call this before the state of the same step is saved.

        Args:
            step: Number of steps done, above that of the previous row.
            epoch: Number of epochs done.
            values: Values by column; a missing column stays empty.
            timings: Seconds and rates. They differ between runs, so they go to TensorBoard only.

        Raises:
            UsageError: The step is not above the previous one, or a value has no column.
            OutputError: The disk is full or fails.
        """
        if step <= self._last_step:
            raise UsageError(f"{step = } should be above that of the previous row, {self._last_step}.")
        if self._columns is None:
            self._columns = [STEP, EPOCH, *values]
        unknown = [name for name in values if name not in self._columns[2:]]
        if unknown:
            raise UsageError(
                f"{', '.join(unknown)} of step {step} have no column in {str(self._path)!r}, which has "
                f"{', '.join(self._columns)}; name all columns when the log is opened."
            )
        row = {STEP: step, EPOCH: float(epoch), **{name: float(value) for name, value in values.items()}}
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        try:
            if self._file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
            self._file.write(text.getvalue().encode())
            self._file.flush()
            os.fsync(self._file.fileno())
            for name, value in (row | dict(timings or {})).items():
                if name != STEP:
                    self._tensorboard.add_scalar(name, value, step)
            self._tensorboard.flush()
        except OSError as error:
            raise self._cannot_write(error) from error
        self._last_step = step

    def _truncate_after(self, step: int) -> None:
        """Remove the rows after `step`, and an incomplete last row, as a killed process leaves."""
        complete = 0
        refuse_link(self._path, hard=True)
        try:
            with open(self._path, "rb+") as file:
                header = file.readline()
                if header.endswith(b"\n"):
                    columns = _columns_of(self._path, header)
                    if self._columns is not None and columns != self._columns:
                        raise UsageError(
                            f"{str(self._path)!r} has the columns {', '.join(columns)}, and the resumed run has "
                            f"{', '.join(self._columns)}; resume it with its own settings."
                        )
                    self._columns = columns
                    complete = file.tell()
                    while (line := file.readline()).endswith(b"\n") and (
                        row_step := _step_of(self._path, line)
                    ) <= step:
                        self._last_step, complete = row_step, file.tell()
                file.truncate(complete)
                os.fsync(file.fileno())
        except FileNotFoundError:  # killed before its first row
            return
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> OutputError:
        return OutputError(
            f"{str(self._path)!r} or TensorBoard's files beside it cannot be written: {error.strerror}. Make room and "
            f"run `train --resume` with this --output."
        )


def read_metrics(path: str | os.PathLike[str]) -> list[MetricsRow]:
    """Read the rows of a `metrics.csv`, without an incomplete last row, as a killed process leaves.

    Raises:
        UsageError: The file cannot be read or is not such a table.
    """
    table = Path(path)
    try:
        lines = table.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UsageError(f"{str(table)!r} cannot be read: {error.strerror}. Give a run's metrics.csv.") from error
    complete = [line for line in lines if line.endswith(b"\n")]
    if not complete:
        return []
    columns = _columns_of(table, complete[0])
    rows = []
    for number, cells in enumerate(csv.reader(line.decode() for line in complete[1:]), start=2):
        try:
            values = [float(cell) if cell else None for cell in cells]
            row: MetricsRow = dict(zip(columns, values, strict=True))
            row[STEP] = int(cells[0])
        except ValueError as error:
            raise UsageError(f"{str(table)!r}, line {number}: {error}. Give a run's metrics.csv.") from error
        rows.append(row)
    return rows


def _columns_of(path: Path, header: bytes) -> list[str]:
    (columns,) = csv.reader([header.decode("utf-8", "replace")])
    if columns[:2] != [STEP, EPOCH]:
        raise UsageError(
            f"{str(path)!r} is not the metrics table of a run: its first columns are not {STEP} and {EPOCH}."
        )
    return columns


def _step_of(path: Path, line: bytes) -> int:
    try:
        return int(line.partition(b",")[0])
    except ValueError as error:
        raise UsageError(f"{str(path)!r} is damaged: {line[:60]!r} does not start with a step.") from error


def _summary_writer() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("Training needs TensorBoard for its log: pip install 'nonlocal-video[train]'") from error
    return SummaryWriter
