"""Decoding of requested frames with PyAV. Runs in the decoding process only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from nonlocal_video.errors import VideoError
from nonlocal_video.video._frames import decoded_frames, from_first_sound
from nonlocal_video.video._pictures import PictureConverter
from nonlocal_video.video._source import Source
from nonlocal_video.video._streams import demux

if TYPE_CHECKING:
    from nonlocal_video.video._index import StreamIndex

# For fewer packets than this, decoding them is cheaper than a seek.
_WORTH_SEEKING_PACKETS = 12


def read_frames(
    source: Source, index: StreamIndex, wanted: NDArray[np.int64], notes: list[str]
) -> Iterator[NDArray[np.uint8]]:
    """Decode the frames with the given indices (ascending), each once.

    Args:
        source: The open file.
        index: Its index.
        wanted: Indices of frames.
        notes: List to which sentences for the user are added.

    Yields:
        Upright RGB pictures (H, W, 3), in order.

    Raises:
        VideoError: If a frame is missing or damaged.
    """
    assert index.presentation is not None
    source.stream_choice = index.stream_choice
    converter = PictureConverter(source, index.presentation, index.time_base, notes)
    if index.counted:
        yield from _read_by_count(source, index, wanted, converter)
        return
    done = 0
    try:
        for picture in _read_by_time(source, index, wanted, converter, may_seek=len(index.key_pts) > 1):
            yield picture
            done += 1
    except _SeekFailedError:
        yield from _read_by_time(source, index, wanted[done:], converter, may_seek=False)


class _SeekFailedError(Exception):
    """A seek did not lead to an intact frame; decoding from the start may."""


def _read_by_count(
    source: Source, index: StreamIndex, wanted: NDArray[np.int64], converter: PictureConverter
) -> Iterator[NDArray[np.uint8]]:
    remaining = iter(wanted.tolist())
    number = next(remaining, None)
    with source.opened() as (container, stream):
        frames = from_first_sound(decoded_frames(source, container, stream, index.cut_pts))
        for position, (frame, is_damaged) in enumerate(frames):
            if number is None:
                return
            if position == number:
                if is_damaged:
                    break
                yield converter.convert(frame)
                number = next(remaining, None)
            else:
                converter.follow(frame)
    if number is not None:
        raise _damaged_at(source, index, number)


def _read_by_time(
    source: Source,
    index: StreamIndex,
    wanted: NDArray[np.int64],
    converter: PictureConverter,
    *,
    may_seek: bool,
) -> Iterator[NDArray[np.uint8]]:
    with source.opened() as (container, stream):
        frames = decoded_frames(source, container, stream, index.cut_pts)
        position = int(index.pts[0])  # PTS from which decoding continues
        sought = False
        for number in wanted.tolist():
            pts = int(index.pts[number])
            if may_seek and _is_worth_seeking(index, position, pts):
                _seek(index, container, stream, pts)
                frames = decoded_frames(source, container, stream, index.cut_pts)
                sought = True
            for frame, is_damaged in frames:
                if frame.pts is None or frame.pts < pts:
                    converter.follow(frame)
                    continue
                if frame.pts == pts and not is_damaged:
                    yield converter.convert(frame)
                    position = pts
                    break
                if sought:
                    raise _SeekFailedError
                raise _damaged_at(source, index, number)
            else:
                if sought:
                    raise _SeekFailedError
                raise _damaged_at(source, index, number)


def _is_worth_seeking(index: StreamIndex, position: int, pts: int) -> bool:
    key = np.searchsorted(index.key_pts, pts, side="right") - 1
    if key < 0 or index.key_pts[key] <= position:
        return False
    skipped = np.searchsorted(index.pts, index.key_pts[key]) - np.searchsorted(index.pts, position)
    return bool(skipped > _WORTH_SEEKING_PACKETS)


def _seek(index: StreamIndex, container: InputContainer, stream: VideoStream, pts: int) -> None:
    """Seek to a keyframe at or before `pts`, and check where the container went.

    MP4 seeks by DTS, Matroska by PTS, MPEG-TS only approximately. So both are tried, and the first packet decides.
    """
    key = int(np.searchsorted(index.key_pts, pts, side="right")) - 1
    for target in (index.key_pts[key], index.key_dts[key], index.key_pts[max(key - 1, 0)]):
        try:
            container.seek(int(target), stream=stream)
            landed = next((p for p in demux(container, stream) if p.size and p.is_keyframe and p.pts is not None), None)
            if landed is not None and landed.pts is not None and landed.pts <= pts:
                container.seek(int(target), stream=stream)
                return
        except av.FFmpegError:
            continue
    raise _SeekFailedError


def _damaged_at(source: Source, index: StreamIndex, number: int) -> VideoError:
    seconds = float(index.shown_seconds[number])
    message = f"{source.name}: the frame at {seconds:.2f} s is damaged; get the file again or leave that part out."
    return VideoError("corrupt", message)
