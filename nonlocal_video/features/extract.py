"""Features of many files: `extract_features` writes the table that `table.read_features` reads."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nonlocal_video.errors import DeviceError, UsageError, VideoError
from nonlocal_video.features.store import FeatureFile
from nonlocal_video.features.table import DTYPES, Dtype
from nonlocal_video.inference.feature_stream import OpenFile, stream_features
from nonlocal_video.inference.file_kinds import PassedOver
from nonlocal_video.inference.files import Selection, find_files
from nonlocal_video.inference.folder import as_video_error
from nonlocal_video.inference.many_devices import features_on_devices
from nonlocal_video.inference.window_features import FeatureRequest, WindowFeatures
from nonlocal_video.inference.windows import WindowRequest
from nonlocal_video.video.region import Region, RegionLike

if TYPE_CHECKING:
    from nonlocal_video.inference.ray.engine import Cluster
    from nonlocal_video.inference.recognizer import Recognizer

Result = WindowFeatures | VideoError


class Output(Protocol):
    """Store that keeps the features of files, and knows those that are done."""

    done_before: Counter[str]

    def is_to_do(self, path: str) -> bool:
        """Return whether a file is not done yet, or changed since; `done_before` counts it if it is."""

    def add(self, path: str, result: Result) -> None:
        """Keep the features of a file, or why it has none."""


@dataclass(frozen=True)
class FeatureProgress:
    """Progress of a run after a file."""

    path: str
    result: Result
    """Features, whose `error` says why they do not reach the end of the video; or the error that prevented them."""
    counts: Counter[str]
    """Files of this run, by `ok` or the error's code."""
    done_before: Counter[str]
    """Files of earlier runs, likewise."""


@dataclass(frozen=True)
class FeatureRun:
    """Result of a run."""

    output: Path
    counts: Counter[str]
    """Files of this run, by `ok` or the error's code."""
    done_before: Counter[str] = field(default_factory=Counter)
    """Files that earlier runs had done, likewise."""
    passed_over: PassedOver = field(default_factory=PassedOver)
    """Counts of the skipped files, by kind."""
    num_windows: int = 0
    """Windows computed in this run."""
    num_dropped: int = 0
    """Files that are no longer in the table."""


def extract_features(
    recognizer: Recognizer,
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    output: str | os.PathLike[str],
    resume: bool = False,
    layer: str | None = None,
    window_seconds: float | None = None,
    stride_seconds: float | None = None,
    fast: bool = False,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    region: RegionLike = None,
    dtype: Dtype = "float32",
    workers: int | None = None,
    batch_size: int | None = None,
    selection: Selection | None = None,
    within: Path | None = None,
    open_file: OpenFile = nullcontext,
    drop_missing: bool = False,
    devices: Sequence[str] = (),
    cluster: Cluster | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[FeatureProgress], None] = lambda progress: None,
) -> FeatureRun:
    """Write the features of the windows of many videos to a Parquet file, as the command `features` does.

    Every file has a row: those that cannot be read one with the status `error`, and those that break a last one.

    Args:
        recognizer: Runs the network.
        paths: Files, folders (searched through), glob patterns, addresses, parts such as `match.mp4#t=3,5.5`.
        output: Table to write, .parquet.
        resume: Take up an earlier run with this output: only files without a row, or changed since, are read.
        layer: As for `Recognizer.features`, as are the following six.
        window_seconds: Length of a window.
        stride_seconds: From one window to the next.
        fast: The model card's cheaper view.
        start_seconds: Only look from here on.
        end_seconds: Only look up to here.
        region: As for `classify`.
        dtype: Of the table's features.
        workers: Decoding processes beside the network; None is as many as suit the device.
        batch_size: Windows in one forward pass; None is as many as suit the device.
        selection: Which of the files count; None is all of them.
        within: Folder that no link may leave: of files that lead out of it, no row is made.
        open_file: Gives what is read of each path, in this process alone: a name may lead elsewhere after the check of
            `within`, and a private copy does not.
        drop_missing: Leave out the rows of files of earlier runs that are no longer among the files.
        devices: Devices of this machine that share the work, a process each; none is the recognizer's own.
        cluster: Ray cluster that does the work; this process writes the table. `devices` is then the one of its
            processes: `auto`, `cpu` or `cuda`.
        should_stop: Asked before each file; after True, only the files in hand are finished.
        on_progress: Called after each file.

    Raises:
        UsageError: An argument is invalid, or the output cannot be resumed.
        OutputError: The table cannot be written; what is done is kept beside it.
        DeviceError: The device has failed; `resume` does the rest.
        KeyboardInterrupt: `should_stop` ended the run; what is done is kept, and `resume` continues.

    Example:
        >>> run = extract_features(recognizer, "clips/", output="clips.parquet")
        >>> run.counts
        Counter({'ok': 118, 'corrupt': 2})
    """
    windows = WindowRequest(window_seconds, stride_seconds, start_seconds, end_seconds, Region.parse(region))
    request = FeatureRequest(windows, layer, fast)
    if dtype not in DTYPES:
        raise UsageError(f"dtype = {dtype!r} should be one of {', '.join(DTYPES)}.")
    settings = feature_settings(recognizer, request) | {"dtype": dtype}
    passed_over = PassedOver()
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    own = FeatureFile.files_of(output)
    selection = selection or Selection()
    files: Iterable[str] = find_files(given, selection=selection, leave_out=own, passed_over=passed_over, within=within)
    if within is not None:
        inside = within.resolve()
        files = (path for path in files if Path(path).resolve().is_relative_to(inside))
    counts: Counter[str] = Counter()
    num_windows = num_dropped = 0
    with FeatureFile(output, settings, dtype=dtype, resume=resume) as table:
        if drop_missing:
            files = list(files)
        for progress in run_features(
            recognizer,
            files,
            request,
            table,
            counts,
            workers=workers,
            batch_size=batch_size,
            open_file=open_file,
            devices=devices,
            cluster=cluster,
            should_stop=should_stop,
        ):
            num_windows += len(progress.result) if isinstance(progress.result, WindowFeatures) else 0
            on_progress(progress)
        if should_stop():
            raise KeyboardInterrupt
        if drop_missing:
            num_dropped = table.drop_all_but(files)
    return FeatureRun(Path(output), counts, table.done_before, passed_over, num_windows, num_dropped)


def run_features(
    recognizer: Recognizer,
    files: Iterable[str],
    request: FeatureRequest,
    output: Output,
    counts: Counter[str],
    *,
    workers: int | None = None,
    batch_size: int | None = None,
    open_file: OpenFile = nullcontext,
    devices: Sequence[str] = (),
    cluster: Cluster | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[FeatureProgress]:
    """Compute what is to do, keep it, and yield how far the run is.

    Args:
        recognizer: Runs the network.
        files: Paths, possibly endless.
        request: What to compute of each.
        output: Keeps the features.
        counts: Counts the files, by `ok` or the error's code.
        workers: As for `extract_features`.
        batch_size: As for `extract_features`, as are the following four.
        open_file: Gives what is read of each path.
        devices: Devices of this machine.
        cluster: Ray cluster.
        should_stop: Asked before each file.
    """

    def wanted() -> Iterator[str]:
        for path in files:
            if should_stop():
                return
            if output.is_to_do(path):
                yield path

    with closing(_results(recognizer, wanted(), request, workers, batch_size, open_file, devices, cluster)) as results:
        for path, found in results:
            if isinstance(found, DeviceError):
                raise found
            result = as_video_error(path, found) if isinstance(found, Exception) else found
            output.add(path, result)
            error = result if isinstance(result, VideoError) else result.error
            counts["ok" if error is None else error.code] += 1
            yield FeatureProgress(path, result, counts, output.done_before)


def _results(
    recognizer: Recognizer,
    files: Iterator[str],
    request: FeatureRequest,
    workers: int | None,
    batch_size: int | None,
    open_file: OpenFile,
    devices: Sequence[str],
    cluster: Cluster | None,
) -> Generator[tuple[str, WindowFeatures | Exception], None, None]:
    """Yield what this process, the processes of several devices, or a cluster computes, in the order of the files."""
    if cluster is not None:
        from nonlocal_video.inference.ray.features import features_on_ray

        (device,) = devices or ("auto",)
        yield from features_on_ray(recognizer, files, request, cluster, device=device, batch_size=batch_size)
    elif len(devices) > 1:
        yield from features_on_devices(recognizer, files, request, devices, workers=workers, batch_size=batch_size)
    else:
        yield from stream_features(
            recognizer, files, request, workers=workers, batch_size=batch_size, open_file=open_file
        )


def feature_settings(recognizer: Recognizer, request: FeatureRequest) -> dict[str, Any]:
    """Return the settings that features depend on; a run can only be resumed with the same.

    Settings that only change rounding (device, runtime, batch size) are not included and may change.
    """
    _, layer = request.checked(recognizer)
    windows = request.windows
    return {
        "model": recognizer.card.name,
        "weights_sha256": recognizer.weights_sha256(),
        "layer": layer,
        "fast": request.fast,
        "window_seconds": windows.window_seconds,
        "stride_seconds": windows.stride_seconds,
        "start_seconds": windows.start_seconds,
        "end_seconds": windows.end_seconds,
        "region": None if windows.region is None else str(windows.region),
        "crops": windows.num_crops,
        "precision": recognizer.precision,
        "decoder": recognizer.options.decoder,
        "limits": asdict(recognizer.options.limits),
    }
