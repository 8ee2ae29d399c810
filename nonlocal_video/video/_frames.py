"""Decoding of a stream in display order, with the damaged frames marked."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from nonlocal_video.video._source import DECODER_THREADS, Source, map_error
from nonlocal_video.video._streams import demux

DecodedFrame = tuple[VideoFrame, bool]
"""A frame, and whether it is damaged, that is, not decoded from all frames that it refers to."""

# H.264 and HEVC reorder up to 16 frames; a packet that gave no frame after that many will give none.
_MAX_HELD_FRAMES = 20
_MAX_REMEMBERED_PACKETS = 1024


def decoded_frames(
    source: Source, container: InputContainer, stream: VideoStream, cut_pts: frozenset[int | None]
) -> Iterator[DecodedFrame]:
    """Decode from the container's position to its end, continuing after damage.

    FFmpeg marks the picture in which it found an error, but not those that refer to it. So everything read after an
    error counts as damaged up to the next keyframe, together with what is shown before that keyframe:

        read    K0 P4 B2 P8 B6 K12 B10 P16        shown   K0 B2 P4 B6 P8 B10 K12 P16
        error      ^                              damaged    B2 P4 B6 P8 B10

    B2 is shown before P4, to which it refers: a frame is held back until all that were read before it have come out.
    """
    damage = _Damage()
    held: deque[VideoFrame] = deque()
    codec = stream.codec_context.codec.canonical_name
    for packet in _packets(source, container, stream):
        if packet.size and packet.is_corrupt and packet.pts in cut_pts:
            continue
        damage.read(packet, gives_frame=bool(packet.size) and not packet.is_discard and not is_hidden(packet, codec))
        try:
            frames = packet.decode()
        except (av.error.MemoryError, av.error.DecoderNotFoundError, av.error.PatchWelcomeError) as error:
            raise map_error(error, source.name, "decoding") from None
        except av.FFmpegError as error:
            # Ogg repeats a picture by a packet of no bytes, which decoders refuse and players pass over.
            if isinstance(error, av.error.ArgumentError) and packet.size == 0 and packet.pts is not None:
                continue
            damage.failed()
            continue
        for frame in frames:
            damage.came_out(frame)
            held.append(frame)
            while held and (damage.is_final(held[0]) or len(held) > _MAX_HELD_FRAMES):
                shown = held.popleft()
                damage.give_up_before(shown)
                yield shown, damage.is_damaged(shown)
    for frame in held:
        yield frame, damage.is_damaged(frame)


def from_first_sound(frames: Iterator[DecodedFrame]) -> Iterator[DecodedFrame]:
    """Skip the pictures at the start of a stream that refer to missing ones before it."""
    return itertools.dropwhile(lambda pair: pair[1], frames)


def is_hidden(packet: av.Packet[VideoStream], codec: str) -> bool:
    """Return whether a packet is a hidden VP8 reference frame: bit 4 is show_frame (RFC 6386, 9.1)."""
    return codec == "vp8" and not memoryview(packet)[0] & 0x10


def _packets(source: Source, container: InputContainer, stream: VideoStream) -> Iterator[av.Packet[VideoStream]]:
    try:
        for packet in demux(container, stream):
            yield cast("av.Packet[VideoStream]", packet)
    except av.error.MemoryError as error:
        raise map_error(error, source.name, "reading it") from None
    except av.FFmpegError:
        # The tail cannot be read: yield what the decoder still holds.
        flush: Any = av.Packet()
        flush.stream = stream
        yield flush


@dataclass
class _DamagedRange:
    """A range from the packet `start`, in decoding order, to a keyframe that is unknown until it is read."""

    start: int
    end: int | None = None
    end_pts: int = 0


class _Damage:
    """Tracker of the frames that an error damages, by the decoding order of their packets."""

    def __init__(self) -> None:
        self._num_read = 0
        self._order_of_pts: dict[int, int] = {}
        self._outstanding: deque[int] = deque()  # ascending orders of packets whose frames are still to come
        self._keyframes: deque[tuple[int, int]] = deque(maxlen=_MAX_REMEMBERED_PACKETS)  # order, PTS
        self._damaged: list[_DamagedRange] = []

    def read(self, packet: av.Packet[VideoStream], *, gives_frame: bool) -> None:
        if packet.size == 0:
            return
        self._num_read += 1
        if packet.pts is None:
            return
        self._order_of_pts[packet.pts] = self._num_read
        if len(self._order_of_pts) > _MAX_REMEMBERED_PACKETS:
            self._order_of_pts = dict(itertools.islice(self._order_of_pts.items(), _MAX_REMEMBERED_PACKETS // 2, None))
        if gives_frame:
            self._outstanding.append(self._num_read)
            if len(self._outstanding) > _MAX_REMEMBERED_PACKETS:
                self._outstanding.popleft()
        if packet.is_keyframe:
            self._keyframes.append((self._num_read, packet.pts))
            for span in self._damaged:
                if span.end is None and span.start < self._num_read:
                    span.end, span.end_pts = self._num_read, packet.pts

    def failed(self) -> None:
        """Record an error of the decoder, in the last packet or, with threads, in one read shortly before."""
        self._damaged.append(_DamagedRange(self._num_read - DECODER_THREADS))

    def came_out(self, frame: VideoFrame) -> None:
        order = self._order(frame)
        if order in self._outstanding:
            self._outstanding.remove(order)
        if frame.is_corrupt:
            span = _DamagedRange(order)
            following = next((key for key in self._keyframes if key[0] > order), None)
            if following is not None:
                span.end, span.end_pts = following
            self._damaged.append(span)

    def is_final(self, frame: VideoFrame) -> bool:
        """Return whether all frames to which this one may refer have come out of the decoder."""
        return not self._outstanding or self._outstanding[0] > self._order(frame)

    def give_up_before(self, frame: VideoFrame) -> None:
        """Give up frames read before one that is already yielded."""
        while not self.is_final(frame):
            self._outstanding.popleft()

    def is_damaged(self, frame: VideoFrame) -> bool:
        order = self._order(frame)
        return frame.is_corrupt or any(
            span.start <= order
            and (span.end is None or order < span.end or (frame.pts is not None and frame.pts < span.end_pts))
            for span in self._damaged
        )

    def _order(self, frame: VideoFrame) -> int:
        return self._num_read if frame.pts is None else self._order_of_pts.get(frame.pts, self._num_read)
