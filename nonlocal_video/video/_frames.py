"""Decode a stream in the order of showing, and know which of its frames are sound."""

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
"""A frame and whether it is damaged: not decoded from all that it refers to."""

# H.264 and HEVC reorder up to 16 frames; beyond that a packet that gave no frame will give none.
_MAX_HELD_FRAMES = 20
_MAX_REMEMBERED_PACKETS = 1024


def decoded_frames(
    source: Source, container: InputContainer, stream: VideoStream, cut_pts: frozenset[int | None]
) -> Iterator[DecodedFrame]:
    """Decode from where the container stands to its end, going on after damage.

    FFmpeg marks the picture in which it found an error, but not those that are built on it. So everything that was read
    after an error counts as damaged up to the next keyframe, with what is shown before that keyframe:

        read    K0 P4 B2 P8 B6 K12 B10 P16        shown   K0 B2 P4 B6 P8 B10 K12 P16
        error      ^                              damaged    B2 P4 B6 P8 B10

    B2 is shown before P4, which it is built on: a frame is held back until all that were read before it are seen.
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
        except av.FFmpegError:
            damage.failed()
            continue
        for frame in frames:
            damage.came_out(frame)
            held.append(frame)
            while held and (damage.is_settled(held[0]) or len(held) > _MAX_HELD_FRAMES):
                shown = held.popleft()
                damage.stop_waiting_before(shown)
                yield shown, damage.spoils(shown)
    for frame in held:
        yield frame, damage.spoils(frame)


def from_first_sound(frames: Iterator[DecodedFrame]) -> Iterator[DecodedFrame]:
    """Leave out the pictures at the start of a stream that refer to what came before it."""
    return itertools.dropwhile(lambda pair: pair[1], frames)


def is_hidden(packet: av.Packet[VideoStream], codec: str) -> bool:
    """Whether a packet is a VP8 frame that is only a reference: bit 4 of a VP8 frame is show_frame (RFC 6386, 9.1)."""
    return codec == "vp8" and not memoryview(packet)[0] & 0x10


def _packets(source: Source, container: InputContainer, stream: VideoStream) -> Iterator[av.Packet[VideoStream]]:
    try:
        for packet in demux(container, stream):
            yield cast("av.Packet[VideoStream]", packet)
    except av.error.MemoryError as error:
        raise map_error(error, source.name, "reading it") from None
    except av.FFmpegError:
        # A tail that cannot be read: hand out what the decoder still holds.
        flush: Any = av.Packet()
        flush.stream = stream
        yield flush


@dataclass
class _Spoilt:
    """From the packet `start`, in the order of reading, up to a keyframe that is not known before it is read."""

    start: int
    end: int | None = None
    end_pts: int = 0


class _Damage:
    """Keeps track of which frames an error spoils, by the order in which their packets were read."""

    def __init__(self) -> None:
        self._num_read = 0
        self._order_of_pts: dict[int, int] = {}
        self._outstanding: deque[int] = deque()  # ascending orders of packets whose frames are still to come
        self._keyframes: deque[tuple[int, int]] = deque(maxlen=_MAX_REMEMBERED_PACKETS)  # order, PTS
        self._spoilt: list[_Spoilt] = []

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
            for spoilt in self._spoilt:
                if spoilt.end is None and spoilt.start < self._num_read:
                    spoilt.end, spoilt.end_pts = self._num_read, packet.pts

    def failed(self) -> None:
        """The decoder reported an error: in the last packet or, with threads, in one that was read shortly before."""
        self._spoilt.append(_Spoilt(self._num_read - DECODER_THREADS))

    def came_out(self, frame: VideoFrame) -> None:
        order = self._order(frame)
        if order in self._outstanding:
            self._outstanding.remove(order)
        if frame.is_corrupt:
            spoilt = _Spoilt(order)
            following = next((key for key in self._keyframes if key[0] > order), None)
            if following is not None:
                spoilt.end, spoilt.end_pts = following
            self._spoilt.append(spoilt)

    def is_settled(self, frame: VideoFrame) -> bool:
        """Whether all that the frame can be built on has come out of the decoder."""
        return not self._outstanding or self._outstanding[0] > self._order(frame)

    def stop_waiting_before(self, frame: VideoFrame) -> None:
        """What was read before a frame that is handed out and has not come out is lost."""
        while not self.is_settled(frame):
            self._outstanding.popleft()

    def spoils(self, frame: VideoFrame) -> bool:
        order = self._order(frame)
        return frame.is_corrupt or any(
            spoilt.start <= order
            and (spoilt.end is None or order < spoilt.end or (frame.pts is not None and frame.pts < spoilt.end_pts))
            for spoilt in self._spoilt
        )

    def _order(self, frame: VideoFrame) -> int:
        return self._num_read if frame.pts is None else self._order_of_pts.get(frame.pts, self._num_read)
