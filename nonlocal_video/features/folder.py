"""A folder of arrays, one for each video: `extract_arrays` writes it, and continues where it was ended.

The folders of the videos are kept. `index.csv` names each video's array, or says why it has none; until it is written
at the end of the run, `index.csv.journal` holds its rows. An array has its name only when it is whole.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.features.extract import FeatureProgress, FeatureRun, feature_settings, run_features
from nonlocal_video.features.layouts import Layout, arrange, check_layout, holds_parts, write_array, write_description
from nonlocal_video.features.table import DTYPES, Dtype
from nonlocal_video.inference.csv_cells import write_rows
from nonlocal_video.inference.file_kinds import PassedOver
from nonlocal_video.inference.files import Selection, find_files
from nonlocal_video.inference.fragment import split_part
from nonlocal_video.inference.object_storage import is_remote, local_copy
from nonlocal_video.inference.prediction import path_of_printable, printable
from nonlocal_video.inference.results import ResultFile
from nonlocal_video.inference.shards import below, shard_bases
from nonlocal_video.inference.window_features import FeatureRequest, WindowFeatures
from nonlocal_video.inference.windows import WindowRequest
from nonlocal_video.io import atomic_write
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.region import Region, RegionLike

if TYPE_CHECKING:
    from nonlocal_video.inference.ray.engine import Cluster
    from nonlocal_video.inference.recognizer import Recognizer

INDEX = "index.csv"
_COLUMNS = ("path", "status", "file", "error_code", "error_message")


class FeatureFolder(ResultFile):
    """The arrays of one run and their index; a context manager.

    Args:
        folder: Is new, empty, or of the run to take up.
        settings: What the arrays depend on; a run is only resumed with the same.
        bases: Folders below which the videos' folders are kept.
        layout: Of the arrays.
        dtype: Of the arrays.
        resume: Take up an earlier run: its files are not done again unless they changed or their array is gone.
        frame_times: Gives the times of a video's frames.

    Raises:
        UsageError: The folder has other files, or as in `ResultFile`.
        OutputError: The journal cannot be written there.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        *,
        bases: Iterable[str],
        layout: Layout,
        dtype: Dtype,
        resume: bool,
        frame_times: Callable[[str], NDArray[np.float64]],
    ) -> None:
        self._folder, self._layout, self._dtype, self._frame_times = folder, layout, dtype, frame_times
        self._bases = sorted(set(bases), key=len, reverse=True)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"output-dir = {str(folder)!r} is a file; give a folder.")
        if not resume and folder.is_dir() and any(folder.iterdir()):
            raise UsageError(f"output-dir = {str(folder)!r} is not empty. Use --resume to continue, or another folder.")
        if not folder.parent.is_dir():
            raise UsageError(f"output-dir = {str(folder)!r} is in a folder that does not exist; create it first.")
        folder.mkdir(exist_ok=True)
        super().__init__(folder / INDEX, settings, top_k=0, resume=resume)
        try:
            self._file_of = {entry["file"]: entry["row"]["file"] for entry in self._entries()}
        except BaseException:
            self._journal.close()
            raise
        self._path_of = {name: path for path, name in self._file_of.items() if name}
        for path, name in self._file_of.items():
            if name and path in self._done and not (folder / path_of_printable(name)).is_file():
                del self._done[path]
                self._done_again.add(path)  # its earlier row does not count

    def add(self, path: str, result: WindowFeatures | VideoError) -> None:
        """Write the array of a video and the JSON beside it; of one that breaks, none.

        Raises:
            OutputError: The disk is full or fails. All arrays before this one are kept.
        """
        error = result if isinstance(result, VideoError) else result.error
        try:
            if isinstance(result, WindowFeatures) and error is None:
                name: str | None = self._file_of.get(path) or self._new_name(path)
                self._write(path, result, str(name))
            else:
                name = None
                self._delete(self._file_of.get(path))
        except OSError as problem:
            raise self._cannot_write(self._folder, problem) from problem
        if name:
            self._path_of[name], self._file_of[path] = path, name
        told = None if error is None else {"code": error.code, "message": error.message}
        self.append(path, {"path": printable(path), "file": name, "error": told})

    def _write(self, path: str, result: WindowFeatures, name: str) -> None:
        times = self._frame_times(split_part(path)[0]) if self._layout == "ms-tcn" else None
        rows = arrange(result, self._layout, dtype=self._dtype, frame_times=times)
        array = self._folder / path_of_printable(name)
        array.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(_description_of(array)) as file:
            write_description(file, result, rows, self._layout)
        with atomic_write(array) as file:
            write_array(file, rows, self._layout)

    def _delete(self, name: str | None) -> None:
        """Delete what there is of a video that has changed and cannot be read any more."""
        if name:
            array = self._folder / path_of_printable(name)
            array.unlink(missing_ok=True)
            _description_of(array).unlink(missing_ok=True)

    def _new_name(self, path: str) -> str:
        """Return the array's path in the folder; the video's suffix is part of it where another has it without."""
        video, part = split_part(path)
        parts = [name for name in _inside(video, self._bases).split("/") if name not in ("", ".", "..")]
        span = "" if part is None else f"_{part[0]:g}-{part[1]:g}"
        ending = ".csv" if self._layout == "bmn" else ".npy"
        folder, name = "/".join(parts[:-1]), parts[-1]
        stem = os.path.splitext(name)[0]
        tries = [stem, name, *(f"{name}_{number}" for number in range(2, len(self._path_of) + 3))]
        names = (printable("/".join(filter(None, (folder, f"{one}{span}{ending}")))) for one in tries)
        return next(one for one in names if one not in self._path_of and one != INDEX)

    def _write_rows(self, draft: IO[bytes]) -> None:
        text = io.TextIOWrapper(draft, "utf-8", newline="")
        write_rows(text, _COLUMNS, (_index_row(entry["row"]) for entry in self._last_entries()))
        text.detach()  # flushes, and leaves the file open


def extract_arrays(
    recognizer: Recognizer,
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    output: str | os.PathLike[str],
    layout: str = "npy",
    resume: bool = False,
    layer: str | None = None,
    window_seconds: float | None = None,
    stride_seconds: float | None = None,
    fast: bool = False,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    region: RegionLike = None,
    crops: int | None = None,
    dtype: Dtype = "float32",
    workers: int | None = None,
    batch_size: int | None = None,
    selection: Selection | None = None,
    devices: Sequence[str] = (),
    cluster: Cluster | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[FeatureProgress], None] = lambda progress: None,
) -> FeatureRun:
    """Write the features of each of many videos to an array of its own, as `features --output-dir` does.

    A video that cannot be read to its end has no array, and a row in `index.csv` that says why.

    Args:
        recognizer: Runs the network.
        paths: As for `extract_features`; `actionformer` and `ms-tcn` take no parts of videos.
        output: Folder to write.
        layout: `npy`, `actionformer`, `ms-tcn`, `rtfm` or `bmn`; see `layouts.arrange`.
        resume: Take up an earlier run with this output: only files without an array, or changed since, are read.
        layer: As for `Recognizer.features`, as are the following six.
        window_seconds: Length of a window.
        stride_seconds: From one window to the next; None is half a window, of `rtfm` a window.
        fast: The model card's cheaper view.
        start_seconds: Only look from here on.
        end_seconds: Only look up to here.
        region: As for `classify`.
        crops: 1 (the centre), or 10 in the order of torchvision's `TenCrop`; None is 10 for `rtfm` and 1 for others.
        dtype: Of the arrays.
        workers: As for `extract_features`, as are the following six.
        batch_size: Windows in one forward pass.
        selection: Which of the files count.
        devices: Devices of this machine that share the work.
        cluster: Ray cluster that does the work.
        should_stop: Asked before each file.
        on_progress: Called after each file.

    Raises:
        UsageError: An argument is invalid, or the output cannot be resumed.
        OutputError: A file cannot be written; what is done is kept.
        DeviceError: The device has failed; `resume` does the rest.
        KeyboardInterrupt: `should_stop` ended the run; what is done is kept, and `resume` continues.

    Example:
        >>> run = extract_arrays(recognizer, "matches/", output="features/", layout="actionformer")
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype = {dtype!r} should be one of {', '.join(DTYPES)}.")
    chosen, num_crops, stride_windows = check_layout(
        layout, dtype=dtype, crops=crops, start_seconds=start_seconds, end_seconds=end_seconds
    )
    windows = WindowRequest(
        window_seconds, stride_seconds, start_seconds, end_seconds, Region.parse(region), num_crops, stride_windows
    )
    request = FeatureRequest(windows, layer, fast)
    settings = feature_settings(recognizer, request) | {"dtype": dtype, "layout": chosen}
    given = [os.fspath(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    passed_over, selection, folder = PassedOver(), selection or Selection(), Path(output)
    found = find_files(
        given, selection=selection, leave_out=ResultFile.files_of(folder / INDEX), passed_over=passed_over
    )
    counts: Counter[str] = Counter()
    num_windows = 0
    with (
        recognizer.new_reader() as reader,
        FeatureFolder(
            folder,
            settings,
            bases=shard_bases(given).values(),
            layout=chosen,
            dtype=dtype,
            resume=resume,
            frame_times=lambda path: _frame_times(reader, path),
        ) as arrays,
    ):
        for progress in run_features(
            recognizer,
            _checked(found, chosen),
            request,
            arrays,
            counts,
            workers=workers,
            batch_size=batch_size,
            devices=devices,
            cluster=cluster,
            should_stop=should_stop,
        ):
            num_windows += len(progress.result) if isinstance(progress.result, WindowFeatures) else 0
            on_progress(progress)
        if should_stop():
            raise KeyboardInterrupt
    return FeatureRun(folder, counts, arrays.done_before, passed_over, num_windows)


def _checked(files: Iterator[str], layout: Layout) -> Iterator[str]:
    for path in files:
        if not holds_parts(layout) and split_part(path)[1] is not None:
            raise UsageError(
                f"{printable(path)!r} is a part of a video, and layout {layout} matches rows with the annotation of a "
                f"whole one; give the video, or take layout npy."
            )
        yield path


def _frame_times(reader: VideoReader, path: str) -> NDArray[np.float64]:
    with local_copy(path, max_bytes=reader.limits.max_bytes) if is_remote(path) else nullcontext(path) as local:
        return reader.frame_times(local)


def _inside(video: str, bases: Sequence[str]) -> str:
    """Return a video's path below the first of these folders that it lies in."""
    whole = below(video, "")
    insides = (below(video, base) for base in bases)
    return next((inside for inside in insides if whole.endswith(f"/{inside}")), os.path.basename(whole))


def _description_of(array: Path) -> Path:
    return array.with_name(array.name + ".json") if array.suffix == ".csv" else array.with_suffix(".json")


def _index_row(row: dict[str, Any]) -> dict[str, Any]:
    error = row["error"] or {}
    return {
        "path": row["path"],
        "status": "error" if error else "ok",
        "file": row["file"],
        "error_code": error.get("code"),
        "error_message": error.get("message"),
    }
