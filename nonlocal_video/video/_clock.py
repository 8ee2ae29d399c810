"""A file's times on a player's clock. Runs in the decoding process only."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

# Formats whose times count from a 0 of their own, so that a file may begin with nothing. Elsewhere 0 means nothing:
# MPEG-TS begins anywhere.
_FORMATS_WITH_ZERO = {"matroska", "mov"}
_OUTLIER_SECONDS = 1


@dataclass(frozen=True)
class Clock:
    """Zero of a player in a file's own times: start times of all streams but the one that is read, in seconds."""

    sound: tuple[Fraction, ...]
    """Starts of audio streams."""
    pictures: tuple[Fraction, ...]
    """Starts of other video streams."""
    text: tuple[Fraction, ...]
    """Starts of subtitles, and of data such as a camera's position."""
    has_zero: bool
    """Whether the format's times have a 0 of their own."""

    @classmethod
    def from_container(cls, container: InputContainer, stream: VideoStream) -> Clock:
        """Collect the starts of all streams except `stream`; a cover picture has no time."""
        found: dict[str, list[Fraction]] = {"audio": [], "video": [], "text": []}
        for other in container.streams:
            if other.index == stream.index or other.start_time is None or not other.time_base:
                continue
            if other.type == "video" and other.disposition & av.stream.Disposition.attached_pic:
                continue
            found.get(other.type, found["text"]).append(other.start_time * other.time_base)
        has_zero = container.format.name.split(",")[0] in _FORMATS_WITH_ZERO
        return cls(tuple(found["audio"]), tuple(found["video"]), tuple(found["text"]), has_zero)

    def seconds_to(self, picture: Fraction, *, earliest: Fraction) -> float:
        """Return a player's seconds for the file's first picture.

        Where times have a 0 of their own, these are the file's times, as browsers show them (HTML, "offsets into the
        media resource"); only pictures before 0 move it. Elsewhere the earliest of sound and pictures is 0, as in
        FFmpeg and the players based on it. Text only counts if it begins at most a second before these. Sound before 0
        is priming for its decoder and is not played, unless the pictures begin before 0, too.

        Args:
            picture: Time of the first picture, in the file's own times.
            earliest: Time that the first picture would have if none were damaged.
        """
        sound = self.sound if picture < 0 else [max(start, Fraction(0)) for start in self.sound]
        begin = min([picture, earliest, *sound, *self.pictures])
        if self.has_zero:
            return float(picture - min(begin, Fraction(0)))
        text = min(self.text, default=begin)
        return float(picture - (text if 0 < begin - text < _OUTLIER_SECONDS else begin))
