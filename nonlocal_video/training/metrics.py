"""What a run measures while it trains: a row in metrics.csv and points in TensorBoard."""

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
"""The first two columns: optimisation steps done, and epochs done (2.5 is the middle of the third)."""

MetricsRow = dict[str, float | None]
"""Column -> value; None where nothing was measured."""


class MetricsWriter:
    """The metrics of one run; a context manager. Of several processes that train together only the first has one.

    The names of columns are as TensorBoard groups them, and `draw_curves` knows them: `train/TERM` and
    `validation/TERM` of the loss, `validation/top1` and the like for accuracies (from 0 to 1), `learning_rate`,
    `gate/BLOCK` of non-local blocks.

    A resumed run's table is byte for byte that of a run that was never cut off: rows after the step from which it goes
    on are cut off. TensorBoard's files cannot be changed; they get a mark after which TensorBoard shows no earlier
    point of those steps. Lightning's CSVLogger deletes an earlier table, and its TensorBoardLogger is this
    SummaryWriter in a folder for each start.
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
            table: `metrics.csv`.
            tensorboard: The folder of TensorBoard's files.
            columns: All names that rows may have besides step and epoch; None takes those of the first row.
            resume_step: Go on after this step of an earlier log, -1 from its beginning; None is a new one.

        Raises:
            UsageError: TensorBoard is not installed; a new log's table exists; or a resumed one's is no such table.
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
            self._cut_off_after(resume_step)
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
        """Write what TensorBoard's writer holds back."""
        self._tensorboard.close()
        self._file.close()

    def add(
        self, step: int, epoch: float, values: Mapping[str, float], *, timings: Mapping[str, float] | None = None
    ) -> None:
        """Write one row. It is on the disk when this returns: call it before the state of the same step is saved.

        Args:
            step: Above that of the row before.
            epoch: Epochs done.
            values: By column; a column that is left out stays empty.
            timings: Seconds and rates. No second run repeats them, so they go to TensorBoard alone.

        Raises:
            UsageError: The step is not above the last one, or a value has no column.
            OutputError: The disk is full or fails.
        """
        if step <= self._last_step:
            raise UsageError(f"{step = } should be above that of the row before, {self._last_step}.")
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

    def _cut_off_after(self, step: int) -> None:
        """Leave the rows up to `step`; one whose end is missing, as a kill leaves it, goes as well."""
        whole = 0
        refuse_link(self._path, hard=True)
        try:
            with open(self._path, "rb+") as file:
                header = file.readline()
                if header.endswith(b"\n"):
                    columns = _columns_of(self._path, header)
                    if self._columns is not None and columns != self._columns:
                        raise UsageError(
                            f"{str(self._path)!r} has the columns {', '.join(columns)}, and the resumed run "
                            f"{', '.join(self._columns)}; resume it with its own settings."
                        )
                    self._columns = columns
                    whole = file.tell()
                    while (line := file.readline()).endswith(b"\n") and (at := _step_of(self._path, line)) <= step:
                        self._last_step, whole = at, file.tell()
                file.truncate(whole)
                os.fsync(file.fileno())
        except FileNotFoundError:  # killed before its first row
            return
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> OutputError:
        return OutputError(
            f"{str(self._path)!r} or TensorBoard's files beside it cannot be written: {error.strerror}. Make room and "
            f"run the same command with --resume."
        )


def read_metrics(path: str | os.PathLike[str]) -> list[MetricsRow]:
    """The rows of a `metrics.csv`, in their order. A last row whose end is missing, as a kill leaves it, is left out.

    Raises:
        UsageError: It is not such a table.
    """
    table = Path(path)
    try:
        lines = table.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UsageError(f"{str(table)!r} cannot be read: {error.strerror}. Give a run's metrics.csv.") from error
    whole = [line for line in lines if line.endswith(b"\n")]
    if not whole:
        return []
    columns = _columns_of(table, whole[0])
    rows = []
    for number, cells in enumerate(csv.reader(line.decode() for line in whole[1:]), start=2):
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
            f"{str(path)!r} is not a run's table of metrics: its first columns are not {STEP} and {EPOCH}."
        )
    return columns


def _step_of(path: Path, line: bytes) -> int:
    try:
        return int(line.partition(b",")[0])
    except ValueError as error:
        raise UsageError(f"{str(path)!r} is damaged: {line[:60]!r} begins with no step.") from error


def _summary_writer() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("Training needs TensorBoard for its log: pip install 'nonlocal-video[train]'") from error
    return SummaryWriter
