"""The table of a folder run: a crash-safe journal, and the file made from it.

Every row is appended to `OUTPUT.journal` at once, and the journal is synced to disk every second: a killed run loses no
row, and a power failure at most those of the last second. The table is written atomically from the journal at the end
of the run. An interrupted run is resumed from the journal.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.inference.csv_cells import write_rows
from nonlocal_video.inference.folder_context import ANSWER, refined_rows
from nonlocal_video.inference.fragment import split_part
from nonlocal_video.inference.journal import Entry, Journal, JournalError
from nonlocal_video.inference.prediction import SECONDS_FIELDS, VIDEO_FIELDS
from nonlocal_video.io import atomic_write, refuse_link

if TYPE_CHECKING:
    import pyarrow

FORMATS = (".csv", ".jsonl", ".parquet")
_ROWS_PER_GROUP = 1000
_TABLE = "table"
"""Key of the entry that marks that a table was made of the previous entries."""


def columns(top_k: int) -> dict[str, type]:
    """Return the columns of the flat table in order, with their types."""
    found: dict[str, type] = {"path": str, "status": str, "model": str}
    for rank in range(1, top_k + 1):
        found |= {f"top{rank}_label": str, f"top{rank}_index": int, f"top{rank}_score": float}
    found |= {"error_code": str, "error_message": str}
    kinds = {"num_frames": int, "width": int, "height": int, "rotation_degrees": int, "codec": str, "decoder": str}
    found |= {f"video_{name}": kinds.get(name, float) for name in VIDEO_FIELDS}
    found |= {f"seconds_{name}": float for name in SECONDS_FIELDS}
    return found | {"notes": str}


def arrow_schema(top_k: int) -> pyarrow.Schema:
    """Return the schema of the flat table in Parquet."""
    import pyarrow as pa

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    return pa.schema([(name, kinds[kind]) for name, kind in columns(top_k).items()])


def flatten(row: dict[str, Any], top_k: int) -> dict[str, Any]:
    """Return a row of `classify --json` as a row of the flat table."""
    flat: dict[str, Any] = dict.fromkeys(columns(top_k))
    flat |= {name: row[name] for name in ("path", "status", "model")}
    for rank, scored in enumerate(row["top"], start=1):
        flat |= {f"top{rank}_{name}": value for name, value in scored.items()}
    for part in ("error", "video", "seconds"):
        flat |= {f"{part}_{name}": value for name, value in (row[part] or {}).items()}
    return flat | {"notes": " ".join(row["notes"])}


def refuse_other_settings(output: str, earlier: dict[str, Any], settings: dict[str, Any]) -> None:
    """Check that an output is continued with the settings of its earlier run.

    Raises:
        UsageError: A setting differs.
    """
    settings = json.loads(json.dumps(settings))
    changed = [name for name in {**settings, **earlier} if settings.get(name) != earlier.get(name)]
    if changed:
        differences = ", ".join(
            f"{name} was {earlier.get(name)!r} and is {settings.get(name)!r}" for name in changed if name != "labels"
        )
        raise UsageError(f"{output!r} was begun with other settings: {differences}. Use another output name.")


class ResultFile:
    """The output of one run; a context manager.

    Args:
        path: The table; its ending says the format.
        settings: What the rows depend on; a run is only resumed with the same.
        top_k: Classes per row.
        resume: Take up an earlier run: its files are not done again unless they changed.
        csv_escape: In a CSV, put an apostrophe before text that a spreadsheet would take for a formula.

    Raises:
        UsageError: Unknown ending, an output that exists or is a link, other settings than those of the run to be taken
            up, a journal that is damaged or not there, or another process that writes the same file.
        OutputError: The journal cannot be written there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: dict[str, Any],
        *,
        top_k: int,
        resume: bool,
        csv_escape: bool = True,
    ) -> None:
        self.path = Path(path)
        self.journal_path = _journal_of(self.path)
        self.top_k, self.csv_escape = top_k, csv_escape
        self._settings = settings
        self.done_before: Counter[str] = Counter()
        if self.path.suffix.lower() not in FORMATS:
            raise UsageError(f"output = {str(path)!r} should end in one of {', '.join(FORMATS)}.")
        if not self.path.parent.is_dir():
            raise UsageError(f"output = {str(path)!r} is in a folder that does not exist; create it first.")
        if self.path.is_dir():
            raise UsageError(f"output = {str(path)!r} is a folder; give a file in it.")
        self._refuse_others_files(resume=resume)
        self._done: dict[str, tuple[tuple[int, int], str]] = {}  # file -> its stamp, and "ok" or an error code
        self._done_again: set[str] = set()  # files with several rows in the journal, of which the last one counts
        self._lost_its_end = False  # the table is there, and the journal knows nothing of it
        self._journal = Journal(self.journal_path, create=not resume)
        try:
            self._take_up(settings)
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write_table()
        except OSError as problem:
            raise self._cannot_write(self.path, problem) from problem
        finally:
            self._journal.close()

    @staticmethod
    def files_of(path: str | os.PathLike[str] | None) -> list[Path]:
        """Return the files that a run with this output writes, to exclude them from its input."""
        return [] if path is None else [Path(path), _journal_of(Path(path)), _draft_of(Path(path))]

    def still_to_do(self, files: Iterable[str]) -> Iterator[str]:
        """Yield those of `files` that have no row yet or changed since; `done_before` counts the others by code."""
        return filter(self.is_to_do, files)

    def is_to_do(self, path: str) -> bool:
        """Return whether a file has no row yet, or changed since; `done_before` counts it if it has."""
        stamp, code = self._done.get(path, (None, ""))
        if stamp is None or stamp != _stamp(path):
            return True
        self.done_before[code] += 1
        return False

    def append(self, path: str, row: dict[str, Any], answer: dict[str, str] | None = None) -> None:
        """Keep the row of one file.

        Args:
            path: The file.
            row: Its row; in a folder's context the one that the other files will refine.
            answer: What they will refine it by; see `folder_context.kept_answer`.

        Raises:
            OutputError: The disk is full or fails. All rows before this one are kept.
        """
        if path in self._done:
            self._done_again.add(path)
        try:
            kept = {ANSWER: answer} if answer else {}
            self._journal.append({"file": path, "stamp": _stamp(path), "row": row, **kept})
        except OSError as error:
            raise self._cannot_write(self.journal_path, error) from error

    def _refuse_others_files(self, *, resume: bool) -> None:
        """Check that no existing file is overwritten and no link is followed."""
        journal, draft = self.journal_path, _draft_of(self.path)
        for path in (self.path, journal, draft):
            refuse_link(path, hard=path == journal)
        if not resume and (os.path.lexists(self.path) or os.path.lexists(journal)):
            raise UsageError(
                f"{str(self.path)!r} or its journal exists. Use --resume to continue it, use another name, "
                f"or delete both."
            )
        if not resume and draft.exists():
            raise UsageError(f"{str(draft)!r} exists, which this run would write to. Use another name, or delete it.")
        if resume and self.path.exists() and not journal.exists():  # it would be replaced by new rows alone
            raise UsageError(
                f"{str(self.path)!r} has no journal {journal.name!r} next to it to resume from. Use another "
                f"name, or delete it."
            )

    def _cannot_write(self, path: Path, error: OSError) -> OutputError:
        return OutputError(
            f"{str(path)!r} cannot be written: {error.strerror}. The rows so far are kept in "
            f"{str(self.journal_path)!r}; make room and run the same command with --resume."
        )

    def _take_up(self, settings: dict[str, Any]) -> None:
        has_table = False
        if not self._journal.is_new:
            refuse_other_settings(str(self.path), self._journal.settings, settings)
            try:
                for entry in self._journal.entries():
                    if _TABLE in entry:
                        has_table = True
                        continue
                    if entry["file"] in self._done:
                        self._done_again.add(entry["file"])
                    error = entry["row"]["error"]
                    self._done[entry["file"]] = tuple(entry["stamp"]), error["code"] if error else "ok"
            except JournalError as problem:
                raise UsageError(self._damaged(problem)) from problem
        self._lost_its_end = self.path.exists() and not has_table
        try:
            if self._journal.is_new:
                self._journal.begin(settings)
            else:
                self._journal.drop_half_line()
        except OSError as error:
            raise self._cannot_write(self.journal_path, error) from error

    def _damaged(self, problem: JournalError) -> str:
        number = problem.number
        return (
            f"Line {number} of {str(self.journal_path)!r} is damaged: {problem.reason}. Use another output name; or "
            f"keep the {number - 1} lines before it (head -n {number - 1}), and --resume does the other files again."
        )

    def _rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the table."""
        return _final_rows(self._last_entries, self._settings)

    def _last_entries(self) -> Iterator[Entry]:
        """The entries of the journal; of a file that was done again, only the last."""
        last: dict[str, int] = {}
        for number, entry in enumerate(self._entries()) if self._done_again else ():
            if entry["file"] in self._done_again:
                last[entry["file"]] = number
        for number, entry in enumerate(self._entries()):
            if last.get(entry["file"], number) == number:
                yield entry

    def _entries(self) -> Iterator[Entry]:
        try:
            for entry in self._journal.entries():
                if _TABLE not in entry:
                    yield entry
        except JournalError as problem:  # since it was read at the start
            raise OutputError(self._damaged(problem)) from problem

    def _write_table(self) -> None:
        with atomic_write(self.path, part=_draft_of(self.path)) as draft:
            self._write_rows(draft)
            if self._lost_its_end:
                self._refuse_fewer_rows()
            # Before the table has its name: beside a table lies a journal that knows of it, or has lost its end.
            self._journal.append({_TABLE: True})
            self._journal.sync()

    def _write_rows(self, draft: IO[bytes]) -> None:
        ending = self.path.suffix.lower()
        if ending == ".jsonl":
            _write_jsonl(draft, self._rows())
        elif ending == ".csv":
            _write_csv(draft, self._rows(), self.top_k, escape=self.csv_escape)
        else:
            _write_parquet(draft, self._rows(), self.top_k)

    def _refuse_fewer_rows(self) -> None:
        new, old = sum(1 for _ in self._rows()), count_rows(self.path)
        if old is None or new < old:
            there = "cannot be read" if old is None else f"has {old}"
            raise OutputError(
                f"{str(self.journal_path)!r} has lost its end: it gives {new} rows, and {str(self.path)!r} {there}. "
                f"Nothing was replaced. Move the table away, and --resume writes the {new} rows."
            )


def rows_of(table: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows that a finished run wrote, as `classify --json` prints them, from the journal beside its table.

    Raises:
        UsageError: There is no journal, or another process writes to it.
        OutputError: It is damaged.
    """
    path = _journal_of(table)
    if not path.is_file():
        raise UsageError(f"{str(table)!r} has no journal {path.name!r} beside it, which holds its rows.")
    with closing(Journal(path, create=False)) as journal:
        try:
            last = {entry["file"]: number for number, entry in enumerate(journal.entries()) if _TABLE not in entry}

            def entries() -> Iterator[Entry]:
                for number, entry in enumerate(journal.entries()):
                    if _TABLE not in entry and last[entry["file"]] == number:
                        yield entry

            yield from _final_rows(entries, journal.settings)
        except JournalError as problem:
            raise OutputError(f"Line {problem.number} of {str(path)!r} is damaged: {problem.reason}.") from problem


def _final_rows(entries: Callable[[], Iterator[Entry]], settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if settings.get("context") == "folder":
        return refined_rows(entries, settings["labels"], settings["top_k"])
    return (entry["row"] for entry in entries())


def count_rows(table: Path) -> int | None:
    """Return the number of rows of a table in one of `FORMATS`; None if it cannot be read as one."""
    try:
        if table.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            return int(pq.read_metadata(table).num_rows)
        with open(table, encoding="utf-8", newline="") as file:
            return sum(1 for _ in file) if table.suffix.lower() == ".jsonl" else sum(1 for _ in csv.reader(file)) - 1
    except (OSError, ValueError, csv.Error):  # pyarrow's errors are among them
        return None


def _journal_of(path: Path) -> Path:
    return path.with_name(path.name + ".journal")


def _draft_of(path: Path) -> Path:
    return path.with_name(path.name + ".draft")


def _stamp(path: str) -> tuple[int, int]:
    """Return size and modification time of a file; (-1, -1) if it does not exist."""
    try:
        status = os.stat(split_part(path)[0])
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _write_jsonl(file: IO[bytes], rows: Iterator[dict[str, Any]]) -> None:
    file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _write_csv(file: IO[bytes], rows: Iterator[dict[str, Any]], top_k: int, *, escape: bool) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="")
    write_rows(text, list(columns(top_k)), (flatten(row, top_k) for row in rows), escape=escape)
    text.detach()  # flushes, and leaves the file open


def _write_parquet(file: IO[bytes], rows: Iterator[dict[str, Any]], top_k: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(top_k)
    with pq.ParquetWriter(file, schema) as writer:
        group: list[dict[str, Any]] = []
        for row in rows:
            group.append(flatten(row, top_k))
            if len(group) == _ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group.clear()
        writer.write_table(pa.Table.from_pylist(group, schema))
