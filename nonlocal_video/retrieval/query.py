"""The vectors of examples: from the archive where it has them, else from the network, made as the archive's were."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.object_storage import is_remote, local_copy
from nonlocal_video.inference.prediction import printable
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.retrieval.archive import Archive
from nonlocal_video.retrieval.example import SearchExample, file_number, rows_of_example
from nonlocal_video.retrieval.likeness import Floats
from nonlocal_video.retrieval.windows import TOUCHING


@dataclass(frozen=True)
class FoundExample:
    """An example with its vectors."""

    path: str
    start_seconds: float
    end_seconds: float
    vectors: Floats
    """Unit vectors of its windows, (n, C)."""
    rows: NDArray[np.int64]
    """Rows of the archive that overlap it: its own place."""

    def to_json(self) -> dict[str, object]:
        """Return path and span."""
        return {"path": printable(self.path), "start_seconds": self.start_seconds, "end_seconds": self.end_seconds}


def find_example(example: SearchExample, archive: Archive, recognizer: Callable[[], Recognizer]) -> FoundExample:
    """Find the vectors of an example.

    Args:
        example: What to find.
        archive: Where it is looked up first.
        recognizer: Gives the recogniser for examples that are not in the archive.

    Raises:
        UsageError: The moment is not in the clip, or the recogniser is another one than the archive was made with.
        VideoError: The clip cannot be read.
    """
    windows, path = archive.windows, os.fspath(example.path)
    number = file_number(path, windows)
    if number is None:
        return _from_network(example, archive, recognizer())
    rows = rows_of_example(example, number, windows)
    start, end = float(windows.starts[rows].min()), float(windows.ends[rows].max())
    first, stop = windows.rows_of(number)
    overlaps = (windows.starts[first:stop] < end - TOUCHING) & (windows.ends[first:stop] > start + TOUCHING)
    vectors = np.asarray(archive.vectors[rows], dtype=np.float32)
    return FoundExample(path, start, end, vectors, first + np.flatnonzero(overlaps))


def check_same_network(recognizer: Recognizer, archive: Archive) -> None:
    """Refuse a recogniser whose features do not compare with those of an archive.

    Raises:
        UsageError: It is not the model with which the archive was made, or has other weights.
    """
    source = archive.source
    digest = recognizer.weights_sha256()
    if recognizer.card.name != source.model:
        raise UsageError(
            f"{str(archive.table)!r} was made with the model {source.model!r}, but the example would be read with "
            f"{recognizer.card.name!r}. Give the table's model with --model."
        )
    if digest != source.weights_sha256:
        raise UsageError(
            f"{str(archive.table)!r} was made with other weights of {source.model!r} (SHA-256 "
            f"{str(source.weights_sha256)[:12]}...) than these ({str(digest)[:12]}...). Give the table's model with "
            f"--model, or extract the features again."
        )


def _from_network(example: SearchExample, archive: Archive, recognizer: Recognizer) -> FoundExample:
    settings = archive.settings
    if settings is None:
        raise UsageError(
            f"{str(archive.table)!r} does not say how its features were made, so {os.fspath(example.path)!r}, which is "
            f"not in it, cannot be processed alike. Give an example that is in the table."
        )
    if settings.get("crops", 1) != 1:
        raise UsageError(
            f"{str(archive.table)!r} has {settings['crops']} crops of each window, but an example has only one. "
            f"Give an example that is in the table."
        )
    check_same_network(recognizer, archive)
    path = os.fspath(example.path)
    copy = local_copy(path, max_bytes=recognizer.options.limits.max_bytes) if is_remote(path) else nullcontext(path)
    with copy as local:
        start, end = example.start_seconds, example.end_seconds
        if example.at is not None:
            start, end = _around(example.at, local, archive, recognizer)
        found = recognizer.features(
            local,
            start_seconds=start,
            end_seconds=end,
            layer=archive.source.layer,
            **{name: settings.get(name) for name in ("window_seconds", "stride_seconds", "region")},
            fast=bool(settings.get("fast", False)),
        )
    if found.features.shape[1] != archive.vectors.shape[1]:
        raise UsageError(
            f"The layer {found.layer!r} gives {found.features.shape[1]} features, and {str(archive.table)!r} has "
            f"{archive.vectors.shape[1]}. Extract the features again."
        )
    vectors = archive.centring.unit(found.features)
    return FoundExample(path, float(found.starts.min()), float(found.ends.max()), vectors, np.empty(0, dtype=np.int64))


def _around(at: float, path: str, archive: Archive, recognizer: Recognizer) -> tuple[float, float]:
    """Return the span of the window whose middle is nearest to a time."""
    with recognizer.new_reader() as reader:
        info = reader.probe(path)
    if at > info.end_seconds:
        raise UsageError(f"at = {at:g} is beyond the end of {path!r} at {info.end_seconds:.2f} s.")
    spec = recognizer.card.view(fast=bool((archive.settings or {}).get("fast", False)))
    length = (archive.settings or {}).get("window_seconds") or spec.num_frames / float(spec.rate_in(info.fps))
    start = max(info.start_seconds, min(at - length / 2, info.end_seconds - length))
    return start, min(start + length, info.end_seconds)
