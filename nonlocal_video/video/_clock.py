"""Start of a file on a player's clock. Runs in the decoding process only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

_OUTLIER_SECONDS = 1


@dataclass(frozen=True)
class OtherStarts:
    """Start times of the file's other streams, in seconds of the file's own times."""

    sound: tuple[Fraction, ...]
    """Starts of audio streams."""
    pictures: tuple[Fraction, ...]
    """Starts of other video streams."""
    text: tuple[Fraction, ...]
    """Starts of subtitles, and of data such as a camera's position."""

    @classmethod
    def from_container(cls, container: InputContainer, stream: VideoStream) -> OtherStarts:
        """Collect the starts of all streams except `stream`; a cover picture has no time."""
        found: dict[str, list[Fraction]] = {"audio": [], "video": [], "text": []}
        for other in container.streams:
            if other.index == stream.index or other.start_time is None or not other.time_base:
                continue
            if other.type == "video" and other.disposition & av.stream.Disposition.attached_pic:
                continue
            found.get(other.type, found["text"]).append(other.start_time * other.time_base)
        return cls(tuple(found["audio"]), tuple(found["video"]), tuple(found["text"]))

    def with_stated_beginning(self) -> OtherStarts:
        """Return the same for a file that says that it begins at its time 0: an empty edit delays its pictures.

        MP4's edit lists map streams to a timeline from 0 on, and browsers play the time before the first stream, too.
        Without one, a first time above 0 only comes from the reordering of frames, or from a longer recording.
        """
        return replace(self, pictures=(*self.pictures, Fraction(0)))

    def seconds_to(self, picture: Fraction, *, earliest: Fraction) -> float:
        """Return the seconds from the beginning of the file to its first picture.

        The earliest of sound and pictures is the beginning, as in FFmpeg and the players based on it. Text only counts
        if it begins at most a second before these. Sound before 0 is priming for its decoder and is not played, unless
        the pictures begin before 0, too.

        Args:
            picture: Time of the first picture, in the file's own times.
            earliest: Time that the first picture would have if none were damaged.
        """
        sound = self.sound if picture < 0 else [max(start, Fraction(0)) for start in self.sound]
        begin = min([picture, earliest, *sound, *self.pictures])
        text = min(self.text, default=begin)
        return float(picture - (text if 0 < begin - text < _OUTLIER_SECONDS else begin))
