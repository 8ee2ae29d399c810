"""Decoding of frames with decord, whose results are checked. Runs in the decoding process only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import VideoError
from nonlocal_video.video._source import DECODER_THREADS, Source

if TYPE_CHECKING:
    from nonlocal_video.video._index import StreamIndex

_MAX_BATCH_BYTES = 4 * 1024**2
"""Limit on the bytes of frames in one call: decord decodes as far ahead as a call asks, and holds all of it."""
MAX_FRAMES = 1024
"""Limit on the frames of one request. decord decodes ahead of a slow consumer without a bound: 10 minutes at 340 x 256
took 3.4 GiB."""
_STDERR = 2
_MAX_PRINTED_BYTES = 1 << 20


def load() -> tuple[Any | None, str]:
    """Import decord; return it, or None and why it does not load. The reason is empty where it is not installed.

    It has no wheel for every machine.
    """
    # Entries that are not absolute, such as the empty one that OpenCV appends, do not load in a deleted working folder.
    paths = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(os.path.isabs, paths))
    try:
        import decord
    except ModuleNotFoundError:
        return None, ""
    except (ImportError, OSError, RuntimeError) as error:  # its shared library does not load
        return None, str(error) or type(error).__name__
    return decord, ""


def read_frames(
    decord: Any, source: Source, index: StreamIndex, wanted: NDArray[np.int64]
) -> Iterator[NDArray[np.uint8]]:
    """Decode the frames with the given indices (ascending), each once.

    Yields:
        Upright RGB pictures (H, W, 3), in order.

    Raises:
        VideoError: If decord fails, or its answers disagree with the index.
    """
    info = index.info
    printed = os.fstat(_STDERR).st_size
    decord.logging.set_level(decord.logging.INFO)  # the level of "concealing ... errors"
    try:
        reader = decord.VideoReader(source.path, num_threads=DECODER_THREADS)
        if len(reader) != info.num_frames:
            raise _given_up(source, f"it counts {len(reader)} frames, not {info.num_frames}")
        starts = np.asarray(reader.get_frame_timestamp(wanted))[:, 0]
        expected = index.shown_seconds[wanted] - info.start_seconds  # decord counts from the first frame
        if np.abs(starts - expected).max() > 1e-3:  # and stores times as 32-bit floats
            raise _given_up(source, "its times are not those of the file")
        batch = max(1, _MAX_BATCH_BYTES // (info.width * info.height * 3))
        for start in range(0, len(wanted), batch):
            pictures = reader.get_batch(wanted[start : start + batch]).asnumpy()
            if pictures.shape[1:] != (info.height, info.width, 3):
                raise _given_up(source, "its frames have another size")
            if _decoder_complained(since=printed):
                raise _given_up(source, "it found damaged data")
            yield from pictures
    except decord.DECORDError:
        raise _given_up(source, "it reports an error") from None


def check_fitness(source: Source, index: StreamIndex) -> None:
    """Refuse a file that decord would silently show differently from a player.

    Raises:
        VideoError: If there is a difference.
    """
    if index.decord_fault is not None:
        message = f"{source.name}: decord cannot show it as it is ({index.decord_fault}); let PyAV decode it."
        raise VideoError("unsupported_codec", message)


def _decoder_complained(since: int) -> bool:
    """Return whether FFmpeg's decoder logged anything.

    decord shows damaged pictures without an error. Only the log, which goes to standard error, reveals them. Any line
    of the H.264 decoder there means damage; other parts (swscaler) also log for sound files.
    """
    return b"[h264 @" in os.pread(_STDERR, _MAX_PRINTED_BYTES, since)


def _given_up(source: Source, reason: str) -> VideoError:
    return VideoError("corrupt", f"{source.name}: decord cannot read it exactly ({reason}); let PyAV decode it.")
