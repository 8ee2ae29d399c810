"""Times before 0 in Matroska, which FFmpeg drops. Runs in the decoding process only."""

from __future__ import annotations

from av.container import InputContainer
from av.packet import Packet

from nonlocal_video.video._source import Source

_LONGEST_TRACK_NUMBER_BYTES = 8
_TIME_BYTES = 2


class EarlyBlocks:
    """Packets of a stream without a time, and the times that their blocks have in the file.

    A block's time is a signed 16-bit number relative to its cluster's, which is never negative (RFC 9559, 10.2). So a
    recording may begin before 0, in a cluster at 0; FFmpeg gives such packets no time at all.
    """

    def __init__(self, source: Source, container: InputContainer) -> None:
        """Start without packets."""
        self.has_keyframe = False
        self._source = source
        self._is_matroska = container.format.name.startswith("matroska")
        self._times: list[int | None] = []

    def add(self, packet: Packet) -> None:
        """Add a packet without a time."""
        self.has_keyframe |= packet.is_keyframe
        self._times.append(self._time_of(packet) if self._is_matroska else None)

    def times(self, *, num_frames: int) -> list[int]:
        """Return the times of the first `num_frames` frames, in ticks, ascending; empty if the blocks lack some."""
        times = sorted(ticks for ticks in self._times if ticks is not None and ticks < 0)
        return times if len(times) == len(self._times) == num_frames else []

    def _time_of(self, packet: Packet) -> int | None:
        if packet.pos is None or packet.pos < 0:
            return None
        head = self._source.read_at(packet.pos, _LONGEST_TRACK_NUMBER_BYTES + _TIME_BYTES)
        if len(head) < _LONGEST_TRACK_NUMBER_BYTES + _TIME_BYTES or head[0] == 0:
            return None
        # The track number comes first, with one leading zero bit for each further byte.
        length = 9 - head[0].bit_length()
        return int.from_bytes(head[length : length + _TIME_BYTES], "big", signed=True)
