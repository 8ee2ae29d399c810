"""The table of features of a folder, made and kept up to date where searches look for it."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import nullcontext
from pathlib import Path

from nonlocal_video.errors import UsageError
from nonlocal_video.features.extract import FeatureProgress, FeatureRun, extract_features, feature_settings
from nonlocal_video.inference.feature_stream import OpenFile
from nonlocal_video.inference.prediction import path_of_printable
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.window_features import FeatureRequest
from nonlocal_video.inference.windows import WindowRequest
from nonlocal_video.paths import make_cache_folder
from nonlocal_video.video.region import Region, RegionLike


class IndexCallback:
    """Progress of `search` on a folder's table; override the methods of interest."""

    def on_progress(self, progress: FeatureProgress) -> None:
        """Take a file that was read."""

    def on_done(self, table: Path, run: FeatureRun) -> None:
        """Take the table, which is up to date now, and what was done."""

    def should_stop(self) -> bool:
        """Return whether to stop after the files in hand: what is done is kept, and KeyboardInterrupt is raised."""
        return False


def update_index(
    recognizer: Recognizer,
    folder: str,
    index: str | os.PathLike[str] | None,
    *,
    fast: bool = False,
    stride_seconds: float | None = None,
    region: RegionLike = None,
    within: Path | None = None,
    open_file: OpenFile = nullcontext,
    callback: IndexCallback | None = None,
) -> Path:
    """Make the table of a folder's videos, or bring it up to date: new and changed files are read, gone ones leave it.

    Paths in it are real ones, however the folder is named.

    Args:
        recognizer: Computes the features.
        folder: The folder.
        index: The table, .parquet; None is one in the cache folder for this folder, model and these settings.
        fast: As for `extract_features`.
        stride_seconds: As for `extract_features`.
        region: As for `extract_features`.
        within: Folder that no link may leave, as for `extract_features`.
        open_file: As for `extract_features`.
        callback: Told about it.

    Returns:
        The table.

    Raises:
        UsageError: `index` is not a table of this folder, or another process is writing it.
        OutputError: It cannot be written.
        KeyboardInterrupt: The callback asked to stop.
    """
    callback = callback or IndexCallback()
    real = os.path.realpath(folder)
    if index is None:
        index = index_of(recognizer, folder, fast=fast, stride_seconds=stride_seconds, region=region)
    index = Path(index)
    if index.suffix.lower() != ".parquet":
        raise UsageError(f"index = {str(index)!r} should end in .parquet.")
    if index.exists():
        _refuse_another_folders(index, real, folder)
    run = extract_features(
        recognizer,
        real,
        output=index,
        resume=True,
        drop_missing=True,
        fast=fast,
        stride_seconds=stride_seconds,
        region=region,
        within=within,
        open_file=open_file,
        should_stop=callback.should_stop,
        on_progress=callback.on_progress,
    )
    if not run.counts and not run.done_before:
        raise UsageError(
            f"There is no video in {folder!r}. {run.passed_over.sentence() if run.passed_over else ''}".strip()
        )
    callback.on_done(index, run)
    return index


def index_of(
    recognizer: Recognizer,
    folder: str,
    *,
    fast: bool = False,
    stride_seconds: float | None = None,
    region: RegionLike = None,
) -> Path:
    """Return the table in the cache folder for a folder, a model and settings; it may not be there yet.

    Args:
        recognizer: Computes the features.
        folder: The folder.
        fast: As for `extract_features`.
        stride_seconds: As for `extract_features`.
        region: As for `extract_features`.
    """
    real = os.path.realpath(folder)
    request = FeatureRequest(WindowRequest(stride_seconds=stride_seconds, region=Region.parse(region)), None, fast)
    told = json.dumps([real, feature_settings(recognizer, request)], sort_keys=True)
    digest = hashlib.sha256(os.fsencode(told)).hexdigest()[:16]
    return make_cache_folder("search") / f"{os.path.basename(real) or 'root'}-{digest}.parquet"


def _refuse_another_folders(index: Path, real: str, folder: str) -> None:
    """Refuse a table with files that are not below a folder: they would be taken for gone, and leave it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        paths = pq.read_table(index, columns=["path"])["path"].unique().to_pylist()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UsageError(f"index = {str(index)!r} is not a table of `features --output`: {error}.") from error
    below = os.path.join(real, "")
    other = next((path for path in map(path_of_printable, paths) if not path.startswith(below)), None)
    if other is not None:
        raise UsageError(
            f"index = {str(index)!r} has {other!r}, which is not of this folder, {folder!r}: its rows would be lost. "
            f"Use another index; a table of your own is searched by its name."
        )
