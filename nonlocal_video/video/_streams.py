"""Choice of a file's video stream: the one that a player would show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

_THUMBNAILS = Disposition.attached_pic | Disposition.timed_thumbnails
_BESIDE_ANOTHER = Disposition.dependent | Disposition.visual_impaired | Disposition.non_diegetic | Disposition.metadata
_PICTURE_CODECS = {"bmp", "gif", "jpeg2000", "mjpeg", "png", "tiff", "webp"}
_IMAGE_BRANDS = {"avif", "heic", "heim", "heis", "heix", "mif1", "miaf", "j2ki", "jpeg", "vvic"}  # ISO/IEC 23008-12
_SEVERAL_IN_ONE_JPEG = b"MPF\0"  # CIPA DC-007: previews, depth and gain maps after the photo
_SEARCHED_BYTES = 1 << 17

_STILL_BESIDE_PACKETS = 1000
"""Number of packets of another stream above which a stream with one picture counts as a still."""


@dataclass(frozen=True)
class StreamChoice:
    """The stream that is read."""

    index: int
    """Index in the container."""
    notes: tuple[str, ...]
    """Note on the choice, if there was one."""
    has_read_packets: bool
    """Whether the container is no longer at its beginning."""


def shown_streams(container: InputContainer) -> list[VideoStream]:
    """Return the video streams without cover pictures and thumbnails."""
    return [stream for stream in container.streams.video if not stream.disposition & _THUMBNAILS]


def choose_stream(container: InputContainer) -> StreamChoice | None:
    """Choose the video stream to read; return None in a file without one.

    Preferred are moving pictures over stills, then streams that can be decoded, the default stream, videos over series
    of pictures, and the first stream. Only packets show whether a picture moves; they are read if there is a choice.
    """
    streams = shown_streams(container)
    if not streams:
        return None
    best_first = sorted(streams, key=_rank)
    if len(streams) == 1:
        return StreamChoice(streams[0].index, (), has_read_packets=False)
    chosen = _first_that_moves(container, best_first)
    position = streams.index(chosen) + 1
    if position == 1:
        which = "the first one is read"
    else:
        which = f"number {position} is read, {_reason(chosen, best_first, streams[0])}"
    note = f"The file has {len(streams)} video streams: {which}."
    return StreamChoice(chosen.index, (note,), has_read_packets=True)


def still_format(container: InputContainer, num_packets: int, first_packet: bytes) -> str | None:
    """Return the name of a still picture's format if a file is one, else None.

    A video or an animation with one frame is not a still: its container could hold more.

    Args:
        container: The open file.
        num_packets: Number of packets of its stream.
        first_packet: The first packet.
    """
    names = container.format.name.split(",")
    if names[0].endswith("_pipe") or names[0] == "mjpeg":  # a bare sequence of pictures
        holds_one_photo = num_packets == 1 or _SEVERAL_IN_ONE_JPEG in first_packet[:_SEARCHED_BYTES]
        return names[0].removesuffix("_pipe").replace("mjpeg", "jpeg").upper() if holds_one_photo else None
    if names[0] == "ico":
        return "ICO"
    brand = container.metadata.get("major_brand", "").strip()
    return brand.upper() if names[0] == "mov" and num_packets == 1 and brand in _IMAGE_BRANDS else None


def demux(container: InputContainer, *streams: VideoStream) -> Iterator[Packet]:
    """Yield the packets of streams, and the empty ones at their end.

    In a damaged file FFmpeg may find further streams while it reads. PyAV does not know them, and fails on their empty
    packets, which come after those of the known streams (`InputContainer.demux`, 18.1).
    """
    with suppress(IndexError):
        yield from container.demux(*streams)


def _rank(stream: VideoStream) -> tuple[bool, bool, bool, bool, int]:
    return (
        stream.codec_context is None,
        bool(stream.disposition & _BESIDE_ANOTHER),
        not stream.disposition & Disposition.default,
        stream.codec_context is not None and stream.codec_context.codec.canonical_name in _PICTURE_CODECS,
        stream.index,
    )


def _first_that_moves(container: InputContainer, best_first: list[VideoStream]) -> VideoStream:
    """Return the best stream with at least two packets, or the best one if none has."""
    num_packets: Counter[int] = Counter()
    with suppress(av.FFmpegError):
        for packet in demux(container, *best_first):
            if not packet.size:
                continue
            num_packets[packet.stream_index] += 1
            if num_packets[best_first[0].index] > 1 or num_packets[packet.stream_index] > _STILL_BESIDE_PACKETS:
                break
    return next((stream for stream in best_first if num_packets[stream.index] > 1), best_first[0])


def _reason(chosen: VideoStream, best_first: list[VideoStream], first: VideoStream) -> str:
    if chosen is not best_first[0]:
        return "the first with a moving picture"
    reasons = ("the first that can be decoded", "the main one", "the default one", "the first film")
    differences = zip(reasons, _rank(chosen), _rank(first), strict=False)
    return next((reason for reason, ours, theirs in differences if ours != theirs), "the first one")
