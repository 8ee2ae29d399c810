"""Checks of clips: read every clip once, as training would, with thumbnails that identify its content."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import queue
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nonlocal_video.datasets.labelled import LabelledClip
from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.frame_folders import is_jpeg
from nonlocal_video.inference.fragment import split_part
from nonlocal_video.inference.object_storage import is_remote, local_copy
from nonlocal_video.io import sha256_of
from nonlocal_video.video._messages import printable_name
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.transforms import resize

_log = logging.getLogger(__name__)

NUM_THUMBNAILS = 4
"""Number of frames decoded per clip: the first, the last, and evenly spaced ones between them."""
THUMBNAIL_SIDE = 8
_CHUNK_PIXELS = 32_000_000


@dataclass(frozen=True, repr=False)
class CheckedClip:
    """Result of checking one clip; without an error, all fields are set."""

    clip: LabelledClip
    info: VideoInfo | None = None
    sha256: str | None = None
    thumbnails: NDArray[np.uint8] | None = None
    """Thumbnails of whole frames, (4, 8, 8, 3)."""
    num_decoded: int = 0
    """Number of distinct frames decoded."""
    error: VideoError | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.clip.path!r}, {self.error.code if self.error else 'ok'})"


def check_clips(
    clips: Iterable[LabelledClip], readers: Iterable[VideoReader], *, every_frame: bool = False
) -> Generator[CheckedClip, None, None]:
    """Yield the result for every clip, in order, as it is checked.

    Args:
        clips: May be many; only a few are looked at ahead of time.
        readers: As many clips are read at the same time. They are closed at the end.
        every_frame: Decode the whole clip, so that damage anywhere in it is found; a few frames otherwise.
    """
    free: queue.SimpleQueue[VideoReader] = queue.SimpleQueue()
    all_readers = list(readers)
    if not all_readers:
        raise UsageError("readers is empty; give at least one.")
    for reader in all_readers:
        free.put(reader)

    def check(clip: LabelledClip) -> CheckedClip:
        reader = free.get()
        try:
            return _check(clip, reader, every_frame=every_frame)
        except VideoError as error:
            return CheckedClip(clip, error=error)
        except UsageError:
            raise  # wrong for every clip: a storage whose package is missing
        except Exception as error:  # this clip gets an error row, and the others continue
            _log.error("unexpected error for %r", clip.path, exc_info=error)
            return CheckedClip(clip, error=VideoError("internal", str(error) or type(error).__name__))
        finally:
            free.put(reader)

    pool = ThreadPoolExecutor(len(all_readers), thread_name_prefix="check")
    pending: list[Future[CheckedClip]] = []
    try:
        for clip in clips:
            pending.append(pool.submit(check, clip))
            if len(pending) > 2 * len(all_readers):
                yield pending.pop(0).result()
        while pending:
            yield pending.pop(0).result()
    finally:
        for future in pending:
            future.cancel()
        for reader in all_readers:
            reader.close()
        pool.shutdown()


def part_of(info: VideoInfo, path: str, start_seconds: float, end_seconds: float) -> VideoInfo:
    """Return what is known of the part [start, end) of a video, as if it were a clip.

    Raises:
        VideoError: `not_found`, if it goes beyond the video.
    """
    if end_seconds > info.end_seconds + 0.001:
        raise VideoError(
            "not_found",
            f"{printable_name(path)}: it has no such part: {start_seconds:g} to {end_seconds:g} s goes beyond the "
            f"video's end, {info.end_seconds:.2f} s.",
        )
    seconds = min(end_seconds, info.end_seconds) - start_seconds
    num_frames = max(1, round(seconds * info.fps))
    return replace(info, start_seconds=start_seconds, duration_seconds=seconds, num_frames=num_frames)


def chunk_frames(info: VideoInfo) -> int:
    """Return the number of frames of a clip per chunk."""
    return max(1, min(8, _CHUNK_PIXELS // (info.width * info.height)))


@contextmanager
def local_file(path: str, reader: VideoReader) -> Iterator[str]:
    """Yield the path of a local file: the clip itself, or a copy from object storage."""
    if is_remote(path):
        with local_copy(path, max_bytes=reader.limits.max_bytes) as copy:
            yield copy
    else:
        yield path


def _check(clip: LabelledClip, reader: VideoReader, *, every_frame: bool) -> CheckedClip:
    video, part = split_part(clip.path)
    with local_file(video, reader) as path:
        info = reader.probe(path)
        if part is not None:
            info = part_of(info, video, *part)
        spread = np.linspace(0, info.num_frames - 1, NUM_THUMBNAILS).astype(int)
        numbers = np.arange(info.num_frames) if every_frame else spread
        times = info.start_seconds + np.minimum((numbers + 0.5) / info.fps, info.duration_seconds)
        small = []
        with reader.stream(path, times.tolist(), chunk_frames=chunk_frames(info)) as stream:
            for chunk in stream:
                small.append(resize(torch.from_numpy(chunk.frames_thwc), (THUMBNAIL_SIDE, THUMBNAIL_SIDE)).numpy())
        shown = stream.frame_of_time[spread] if every_frame else stream.frame_of_time
        thumbnails = np.concatenate(small)[shown]
        try:
            # After decoding: what is no regular file, and could keep us waiting for ever, has been refused by now.
            sha256 = _sha256_of(path, os.stat(path).st_mtime_ns)
        except OSError as error:
            raise VideoError("not_found", f"{os.path.basename(path)}: it vanished while it was read.") from error
    if part is None:
        return CheckedClip(clip, stream.info, sha256, thumbnails, len(stream))
    of_part = hashlib.sha256(f"{sha256} {part}".encode()).hexdigest()
    return CheckedClip(clip, part_of(stream.info, video, *part), of_part, thumbnails, len(stream))


@functools.lru_cache(maxsize=8)
def _sha256_of(path: str, changed_ns: int) -> str:
    """Cached digest of a file, so that segments of it that follow each other read it once; of the JPEGs of a folder."""
    if not os.path.isdir(path):
        return sha256_of(Path(path))
    files = sorted(name for name in os.listdir(path) if is_jpeg(name))
    return hashlib.sha256("\n".join(f"{name} {sha256_of(Path(path, name))}" for name in files).encode()).hexdigest()
