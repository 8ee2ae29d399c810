"""Changes of the pictures' size and pixel shape in a stream, found in the headers before its keyframes.

A new header is rare, so the keyframe behind it is decoded for both. Changes of the size without such a header (VP9 and
AV1 between keyframes) are only noticed in decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from nonlocal_video.video._shape import shown_size

_MAX_KEPT_PACKETS = 8
_LOSES_HELD_PICTURE = {"mpeg1video", "mpeg2video"}
"""Codecs whose decoder in FFmpeg starts anew for another size, and throws away the picture that it holds."""
_START_CODE = b"\0\0\1"
_SEARCHED_BYTES = 1 << 16  # headers come before the picture
_MPEG_SIZE_BYTES = 3
_ROUNDED_PIXELS = 1.0


@dataclass(frozen=True)
class CodedShape:
    """Size and pixel shape of a picture, as its stream states them."""

    width: int
    """Width as stored."""
    height: int
    """Height as stored."""
    pixel_aspect: Fraction
    """Width of a pixel divided by its height; 1 if the stream does not state it."""

    def looks_like(self, other: CodedShape) -> bool:
        """Return whether a player shows both with the same proportions, up to a pixel."""
        width, height, _ = shown_size(self.width, self.height, self.pixel_aspect)
        other_width, other_height, _ = shown_size(other.width, other.height, other.pixel_aspect)
        return abs(other_width * height / other_height - width) <= _ROUNDED_PIXELS


class SizeWatch:
    """Collector of a stream's keyframes behind new headers."""

    def __init__(self, stream: VideoStream, max_pixels: int) -> None:
        codec = stream.codec_context
        self._decoder = codec.name
        self._extradata = codec.extradata
        self._max_pixels = max_pixels
        self._headers = _headers_of(codec.codec.canonical_name, self._extradata or b"")
        self._seen = set(self._headers(self._extradata)) if self._extradata else set()
        self._first: Packet | None = None
        self._kept: list[Packet] = []
        self._loses_held_picture = codec.codec.canonical_name in _LOSES_HELD_PICTURE
        self._latest: bytes | None = None

    def see(self, packet: Packet) -> bool:
        """Register the next packet in file order, and return whether its size makes the decoder lose a picture.

        The lost one is the last that is shown of those before, which the decoder still holds, as others may refer to
        it. Other changes in a header, such as that of the pixels' shape, lose none.
        """
        is_new, previous = packet.has_sidedata("new_extradata"), self._latest
        if packet.is_keyframe:
            self._first = self._first or packet
            for header in self._headers(bytes(memoryview(packet)[:_SEARCHED_BYTES])):
                is_new |= header not in self._seen
                self._seen.add(header)
                self._latest = header[:_MPEG_SIZE_BYTES]
        if is_new and len(self._kept) < _MAX_KEPT_PACKETS:
            self._kept.append(packet)
        return self._loses_held_picture and previous is not None and self._latest != previous

    def shapes(self) -> list[CodedShape]:
        """Return the shapes of the first keyframe and of those behind new headers; nothing if all headers agree."""
        packets = [] if self._first is None or not self._kept else [self._first, *self._kept]
        return [shape for packet in packets if (shape := self._decoded_shape(packet)) is not None]

    def _decoded_shape(self, packet: Packet) -> CodedShape | None:
        decoder: Any = av.CodecContext.create(self._decoder, "r")
        decoder.options = {"max_pixels": str(self._max_pixels)}
        decoder.extradata = self._extradata
        frames: list[VideoFrame] = []
        for step in (packet, None):
            with suppress(av.FFmpegError):  # damage is reported to callers that need the picture
                frames += decoder.decode(step)
        if not frames:
            return None
        return CodedShape(frames[0].width, frames[0].height, decoder.sample_aspect_ratio or Fraction(1))


Headers = Callable[[bytes], Iterator[bytes]]


def _headers_of(codec: str, extradata: bytes) -> Headers:
    """Return a function that finds the headers with a size in a codec's data."""
    if codec in ("h264", "hevc"):
        return _ParameterSets(codec, extradata)
    return {
        "vp8": _vp8_headers,
        "vp9": _vp9_headers,
        "mpeg1video": _mpeg_headers,
        "mpeg2video": _mpeg_headers,
        "mpeg4": _mpeg4_headers,
        "mjpeg": _jpeg_headers,
    }.get(codec, _no_headers)


class _ParameterSets:
    """Finder of the sequence parameter sets of H.264 and HEVC, behind start codes or lengths (ISO/IEC 14496-15)."""

    def __init__(self, codec: str, extradata: bytes) -> None:
        self._is_hevc = codec == "hevc"
        length_at = 21 if self._is_hevc else 4
        has_lengths = len(extradata) > length_at and extradata[0] == 1
        self._length_bytes = (extradata[length_at] & 3) + 1 if has_lengths else 0
        self._extradata = extradata

    def __call__(self, data: bytes) -> Iterator[bytes]:
        if not self._length_bytes:
            units = iter(data.split(_START_CODE)[1:])
        elif data is self._extradata:
            units = self._units_of_extradata()
        else:
            units = self._units_behind_lengths(data)
        for unit in units:
            if unit and (unit[0] >> 1 & 0x3F == 33 if self._is_hevc else unit[0] & 0x1F == 7):
                yield unit.rstrip(b"\0")

    def _units_behind_lengths(self, data: bytes) -> Iterator[bytes]:
        position = 0
        while position + self._length_bytes < len(data):
            start = position + self._length_bytes
            position = start + int.from_bytes(data[position:start], "big")
            yield data[start:position]

    def _units_of_extradata(self) -> Iterator[bytes]:
        data = self._extradata
        num_arrays, position = (data[22], 23) if self._is_hevc and len(data) > 22 else (1, 5)
        for _ in range(num_arrays):
            position += self._is_hevc  # the type of an array's units
            count_bytes = 2 if self._is_hevc else 1
            count = int.from_bytes(data[position : position + count_bytes], "big") & (0xFFFF if self._is_hevc else 31)
            position += count_bytes
            for _ in range(count):
                start = position + 2
                if start >= len(data):
                    return
                position = start + int.from_bytes(data[position:start], "big")
                yield data[start:position]


def _vp8_headers(data: bytes) -> Iterator[bytes]:
    if data[3:6] == b"\x9d\x01\x2a":  # RFC 6386, 9.1
        yield data[6:10]


def _vp9_headers(data: bytes) -> Iterator[bytes]:
    if len(data) > 8 and data[1:4] == b"\x49\x83\x42":  # profile 0; then 4 bits of colour and twice 16 of size
        yield data[4:8] + bytes([data[8] & 0xF0])


def _mpeg_headers(data: bytes) -> Iterator[bytes]:
    start = data.find(b"\0\0\1\xb3")
    if start >= 0 and len(data) > start + 7:  # twice 12 bits of size, and 4 of the shape
        yield data[start + 4 : start + 7] + bytes([data[start + 7] & 0xF0])


def _mpeg4_headers(data: bytes) -> Iterator[bytes]:
    for unit in data.split(_START_CODE)[1:]:
        if unit and 0x20 <= unit[0] <= 0x2F:
            yield unit


def _jpeg_headers(data: bytes) -> Iterator[bytes]:
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xC3:
            yield data[position + 5 : position + 9]
            return
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")


def _no_headers(data: bytes) -> Iterator[bytes]:
    return iter(())
