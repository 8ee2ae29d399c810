"""Output of a Ray run: a folder of Parquet files, written by many machines and read as one table."""

from __future__ import annotations

import json
import posixpath
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.object_storage import open_storage
from nonlocal_video.inference.prediction import printable
from nonlocal_video.inference.results import arrow_schema, flatten, refuse_other_settings

if TYPE_CHECKING:
    import pyarrow
    import ray.data

_SETTINGS = "_settings.json"  # readers of Parquet folders ignore names that start with _


class PartFolder:
    """Output folder of one run."""

    def __init__(self, url: str, settings: dict[str, Any], *, top_k: int, resume: bool) -> None:
        """Create or open the folder.

        Args:
            url: Folder on a disk that all machines share under this path, or in object storage.
            settings: Settings that affect the rows; a run can only be resumed with the same.
            top_k: Number of classes per row.
            resume: Whether to resume an earlier run: files with a row are skipped. Unlike the local engine's journal,
                part files do not record whether a file has changed since.

        Raises:
            UsageError: The suffix is wrong, the output exists, or the settings of the earlier run differ.
        """
        self.url, self.top_k = url, top_k
        self._unknown = bool(settings.get("unknown"))
        self.done_before: Counter[str] = Counter()
        if not url.endswith(".parquet"):
            raise UsageError(
                f"output = {url!r}: --engine ray writes a folder of Parquet files, whose name should end in .parquet."
            )
        self._storage, self._path = open_storage(url)
        self._done: dict[str, str] = {}
        settings_path = posixpath.join(self._path, _SETTINGS)
        if not resume and self._storage.exists(self._path):
            raise UsageError(f"{url!r} exists. Use --resume to resume it, use another name, or delete it.")
        if self._storage.exists(settings_path):
            refuse_other_settings(url, self._read_settings(settings_path), settings)
            self._read_done()
        else:
            self._storage.makedirs(self._path, exist_ok=True)
            text = json.dumps(settings)
            self._storage.pipe_file(settings_path, json.dumps({"settings": text, "crc32": _crc32(text)}).encode())

    def still_to_do(self, files: Iterable[str]) -> Iterator[str]:
        """Yield those of `files` without a row; count the others in `done_before` by their code."""
        for path in files:
            code = self._done.get(printable(path))
            if code is None:
                yield path
            else:
                self.done_before[code] += 1

    def write(self, rows: ray.data.Dataset) -> None:
        """Write the rows of `classify_on_ray` as they come."""
        flat = rows.map_batches(_flatten, fn_args=(self.top_k, self._unknown), batch_format="pyarrow")
        flat.write_parquet(self._path, filesystem=self._arrow_filesystem(), write_page_checksum=True)

    def counts(self) -> Counter[str]:
        """Return the number of rows by error code or `ok`, including earlier runs."""
        codes = self._table("error_code").column("error_code").to_pylist() if self._parts() else []
        return Counter(code or "ok" for code in codes)

    def _read_settings(self, path: str) -> dict[str, Any]:
        try:
            stored = json.loads(self._storage.cat_file(path))
            if _crc32(stored["settings"]) != stored["crc32"]:
                raise ValueError("its checksum does not match")
            return dict(json.loads(stored["settings"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"{_SETTINGS} in {self.url!r} is damaged or of another version ({type(error).__name__}: {error}), so "
                f"the settings of its rows are unknown. Use another output name."
            ) from error

    def _read_done(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for part in self._parts():
            try:
                with self._storage.open(part, "rb") as file:
                    part_rows = pq.read_table(file, page_checksum_verification=True)  # all of it
            except pa.ArrowInvalid:  # its writer was killed before the end, so its files are repeated
                self._storage.rm_file(part)
                continue
            except OSError as error:
                raise UsageError(
                    f"{posixpath.basename(part)} in {self.url!r} is damaged ({error}). Delete it; its files will be "
                    f"classified again."
                ) from error
            codes = (code or "ok" for code in part_rows.column("error_code").to_pylist())
            self._done.update(zip(part_rows.column("path").to_pylist(), codes, strict=True))

    def _parts(self) -> list[str]:
        return sorted(self._storage.glob(posixpath.join(self._path, "*.parquet")))

    def _table(self, column: str) -> pyarrow.Table:
        import pyarrow.parquet as pq

        return pq.read_table(self._path, columns=[column], filesystem=self._arrow_filesystem())

    def _arrow_filesystem(self) -> Any:
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        return PyFileSystem(FSSpecHandler(self._storage))


def _crc32(text: str) -> int:
    return zlib.crc32(text.encode())


def _flatten(rows: pyarrow.Table, top_k: int, unknown: bool) -> pyarrow.Table:
    import pyarrow as pa

    flat = [flatten(json.loads(row), top_k) for row in rows.column("row").to_pylist()]
    return pa.Table.from_pylist(flat, arrow_schema(top_k, unknown=unknown))
