"""Where a file begins on a player's clock. Runs in the decoding process only."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

_OUTLIER_SECONDS = 1


@dataclass(frozen=True)
class OtherStarts:
    """When the streams beside the one that is read start, in seconds of the file's own times."""

    sound: tuple[Fraction, ...]
    pictures: tuple[Fraction, ...]
    text: tuple[Fraction, ...]
    """Subtitles, and data like a camera's position."""

    @classmethod
    def from_container(cls, container: InputContainer, stream: VideoStream) -> OtherStarts:
        """Look at all streams but `stream`; a cover picture is shown at no time."""
        found: dict[str, list[Fraction]] = {"audio": [], "video": [], "text": []}
        for other in container.streams:
            if other.index == stream.index or other.start_time is None or not other.time_base:
                continue
            if other.type == "video" and other.disposition & av.stream.Disposition.attached_pic:
                continue
            found.get(other.type, found["text"]).append(other.start_time * other.time_base)
        return cls(tuple(found["audio"]), tuple(found["video"]), tuple(found["text"]))

    def seconds_to(self, picture: Fraction, *, earliest: Fraction) -> float:
        """Return the seconds from the beginning of the file to its first picture.

        The earliest of sound and pictures begins the file, as FFmpeg and the players built on it have it. Text counts
        only where it begins up to a second before these. Sound before 0, where the pictures are not, is what its
        decoder needs to begin with ("priming"): it is not played.

        Args:
            picture: When the first picture is shown, in the file's own times.
            earliest: When the first one would be if none were damaged.
        """
        sound = self.sound if picture < 0 else [max(start, Fraction(0)) for start in self.sound]
        begin = min([picture, earliest, *sound, *self.pictures])
        text = min(self.text, default=begin)
        return float(picture - (text if 0 < begin - text < _OUTLIER_SECONDS else begin))
