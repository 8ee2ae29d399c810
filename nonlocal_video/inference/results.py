"""The table of a folder run: a journal that survives a crash, and the file made from it.

Every row is appended to `OUTPUT.journal` at once, and what was appended is forced to the disk every second: a killed
run loses no row, a power cut at most a second's. The table itself is written in one piece from the journal when the run
ends. A run that was cut off is taken up again from the journal.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.inference.prediction import SECONDS_FIELDS, VIDEO_FIELDS

if TYPE_CHECKING:
    import pyarrow

FORMATS = (".csv", ".jsonl", ".parquet")
_ROWS_PER_GROUP = 1000
_SYNC_SECONDS = 1.0


def columns(top_k: int) -> dict[str, type]:
    """Column names of the flat table and what they hold, in order."""
    found: dict[str, type] = {"path": str, "status": str, "model": str}
    for rank in range(1, top_k + 1):
        found |= {f"top{rank}_label": str, f"top{rank}_index": int, f"top{rank}_score": float}
    found |= {"error_code": str, "error_message": str}
    kinds = {"num_frames": int, "width": int, "height": int, "rotation_degrees": int, "codec": str, "decoder": str}
    found |= {f"video_{name}": kinds.get(name, float) for name in VIDEO_FIELDS}
    found |= {f"seconds_{name}": float for name in SECONDS_FIELDS}
    return found | {"notes": str}


def arrow_schema(top_k: int) -> pyarrow.Schema:
    """The flat table's columns as Parquet has them."""
    import pyarrow as pa

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    return pa.schema([(name, kinds[kind]) for name, kind in columns(top_k).items()])


def flatten(row: dict[str, Any], top_k: int) -> dict[str, Any]:
    """One row of `classify --json` as one row of the flat table."""
    flat: dict[str, Any] = dict.fromkeys(columns(top_k))
    flat |= {name: row[name] for name in ("path", "status", "model")}
    for rank, scored in enumerate(row["top"], start=1):
        flat |= {f"top{rank}_{name}": value for name, value in scored.items()}
    for part in ("error", "video", "seconds"):
        flat |= {f"{part}_{name}": value for name, value in (row[part] or {}).items()}
    return flat | {"notes": " ".join(row["notes"])}


def refuse_other_settings(output: str, earlier: dict[str, Any], settings: dict[str, Any]) -> None:
    """Rows of two models or protocols do not belong into one table.

    Raises:
        UsageError: A setting is another than the earlier run's.
    """
    settings = json.loads(json.dumps(settings))
    changed = [name for name in {**settings, **earlier} if settings.get(name) != earlier.get(name)]
    if changed:
        differences = ", ".join(f"{name} was {earlier.get(name)!r} and is {settings.get(name)!r}" for name in changed)
        raise UsageError(f"{output!r} was begun with other settings: {differences}. Use another output name.")


class ResultFile:
    """The output of one run; a context manager.

    Args:
        path: The table; its ending says the format.
        settings: What the rows depend on; a run is only taken up with the same.
        top_k: Classes per row.
        resume: Take up an earlier run: its files are not done again unless they changed.

    Raises:
        UsageError: Unknown ending, an output that exists, other settings than those of the run to be taken up, a
            journal that is damaged or not there, or another process that writes the same file.
        OutputError: The journal cannot be written there.
    """

    def __init__(self, path: str | os.PathLike[str], settings: dict[str, Any], *, top_k: int, resume: bool) -> None:
        self.path = Path(path)
        self.journal_path = _journal_of(self.path)
        self.top_k = top_k
        self.done_before: Counter[str] = Counter()
        if self.path.suffix.lower() not in FORMATS:
            raise UsageError(f"output = {str(path)!r} should end in one of {', '.join(FORMATS)}.")
        if not self.path.parent.is_dir():
            raise UsageError(f"output = {str(path)!r} is in a folder that does not exist; make it first.")
        if self.path.is_dir():
            raise UsageError(f"output = {str(path)!r} is a folder; name a file in it.")
        if resume and self.path.exists() and not self.journal_path.exists():  # it would be replaced by new rows alone
            raise UsageError(
                f"{str(self.path)!r} has no journal {self.journal_path.name!r} beside it to go on with. Use another "
                f"name, or delete it."
            )
        if not resume and (self.path.exists() or self.journal_path.exists()):
            raise UsageError(
                f"{str(self.path)!r} or its journal exists. Use --resume to go on with it, or another name, "
                f"or delete both."
            )
        try:
            self._journal: IO[bytes] = open(self.journal_path, "ab+")  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise OutputError(
                f"{str(self.journal_path)!r} cannot be written: {error.strerror}. Choose another place for the output."
            ) from error
        self._done: dict[str, tuple[tuple[int, int], str]] = {}  # file -> its stamp, and "ok" or an error code
        self._done_again: set[str] = set()  # files with several rows in the journal, of which the last one counts
        self._synced = time.monotonic()
        try:
            self._lock()
            self._take_up(settings)
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                os.fsync(self._journal.fileno())
                self._write_table()
        except OSError as problem:
            raise self._cannot_write(self.path, problem) from problem
        finally:
            with suppress(OSError):  # what could not be written was said already
                self._journal.close()

    @staticmethod
    def files_of(path: str | os.PathLike[str] | None) -> list[Path]:
        """The files that a run with this output writes, so that they are not taken for its input."""
        return [] if path is None else [Path(path), _journal_of(Path(path)), _draft_of(Path(path))]

    def still_to_do(self, files: Iterable[str]) -> Iterator[str]:
        """Those of `files` that have no row yet, or changed since; `done_before` counts the others by their code."""
        for path in files:
            stamp, code = self._done.get(path, (None, ""))
            if stamp is not None and stamp == _stamp(path):
                self.done_before[code] += 1
            else:
                yield path

    def append(self, path: str, row: dict[str, Any]) -> None:
        """Keep the row of one file.

        Raises:
            OutputError: The disk is full or fails. All rows before this one are kept.
        """
        if path in self._done:
            self._done_again.add(path)
        try:
            self._journal.write(json.dumps({"file": path, "stamp": _stamp(path), "row": row}).encode() + b"\n")
            self._journal.flush()
            if time.monotonic() - self._synced >= _SYNC_SECONDS:
                os.fsync(self._journal.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise self._cannot_write(self.journal_path, error) from error

    def _cannot_write(self, path: Path, error: OSError) -> OutputError:
        return OutputError(
            f"{str(path)!r} cannot be written: {error.strerror}. The rows so far are kept in "
            f"{str(self.journal_path)!r}; make room and run the same command with --resume."
        )

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: there is no advisory lock, and none is claimed
            return
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"Another process is writing {str(self.path)!r}; wait for it or use another name."
            ) from error

    def _take_up(self, settings: dict[str, Any]) -> None:
        self._journal.seek(0)
        header = self._journal.readline()
        if not header.endswith(b"\n"):  # new, or cut off inside its first line
            self._journal.truncate(0)
            self._journal.write((json.dumps({"settings": settings}) + "\n").encode())
            self._journal.flush()
            return
        number, whole = 1, self._journal.tell()
        try:
            earlier = dict(json.loads(header)["settings"])
            while (line := self._journal.readline()).endswith(b"\n"):
                number += 1
                entry = json.loads(line)
                if entry["file"] in self._done:
                    self._done_again.add(entry["file"])
                error = entry["row"]["error"]
                self._done[entry["file"]] = tuple(entry["stamp"]), error["code"] if error else "ok"
                whole = self._journal.tell()
        except (ValueError, KeyError, TypeError) as problem:
            what_to_do = "Use another output name." if number == 1 else "Delete the line; its file is done again."
            raise UsageError(
                f"Line {number} of {str(self.journal_path)!r} is damaged or not of this program. {what_to_do}"
            ) from problem
        refuse_other_settings(str(self.path), earlier, settings)
        self._journal.truncate(whole)  # a row that was cut off in the middle is done again

    def _rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the journal; of a file that was done again, only the last."""
        last: dict[str, int] = {}
        for number, entry in enumerate(self._entries()) if self._done_again else ():
            if entry["file"] in self._done_again:
                last[entry["file"]] = number
        for number, entry in enumerate(self._entries()):
            if last.get(entry["file"], number) == number:
                yield entry["row"]

    def _entries(self) -> Iterator[dict[str, Any]]:
        with open(self.journal_path, "rb") as journal:
            journal.readline()
            yield from map(json.loads, journal)

    def _write_table(self) -> None:
        write = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[self.path.suffix.lower()]
        draft = _draft_of(self.path)
        try:
            write(draft, self._rows(), self.top_k)
            os.replace(draft, self.path)
        finally:
            draft.unlink(missing_ok=True)


def _journal_of(path: Path) -> Path:
    return path.with_name(path.name + ".journal")


def _draft_of(path: Path) -> Path:
    return path.with_name(path.name + ".draft")


def _stamp(path: str) -> tuple[int, int]:
    """Size and time of change of a file; (-1, -1) when there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _write_jsonl(path: Path, rows: Iterator[dict[str, Any]], top_k: int) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_csv(path: Path, rows: Iterator[dict[str, Any]], top_k: int) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns(top_k)))
        writer.writeheader()
        writer.writerows(flatten(row, top_k) for row in rows)


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]], top_k: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(top_k)
    with pq.ParquetWriter(path, schema) as writer:
        group: list[dict[str, Any]] = []
        for row in rows:
            group.append(flatten(row, top_k))
            if len(group) == _ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group.clear()
        writer.write_table(pa.Table.from_pylist(group, schema))
