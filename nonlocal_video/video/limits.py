"""Limits on what one video may cost before it is refused."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from dataclasses import dataclass, fields
from dataclasses import field as dataclass_field
from typing import Any

from nonlocal_video.errors import UsageError
from nonlocal_video.frame_folders import checked_rate, rate_of_frame_folders

_LARGEST = 2**62  # the kernel counts bytes and seconds in 63 bits
_LONGEST_TIMEOUT_SECONDS = 10**8  # three years; three times that, for two threads, still fits into timers


@dataclass(frozen=True)
class DecodeLimits:
    """Limits on what the decoding process may do with one file; error codes are in brackets.

    Raises:
        UsageError: If a limit is not a number above 0, or `memory_bytes` is too small for the libraries.

    Example:
        >>> DecodeLimits(timeout_seconds=10).max_frames
        10000000
        >>> DecodeLimits.parse(["max_duration_seconds=600"]).max_duration_seconds
        600.0
    """

    timeout_seconds: float = 60.0
    """Longest wait of the caller for one answer: a probe, a read, one chunk of a stream [timeout]."""
    max_bytes: int = 16 * 1024**3
    """Largest file, in bytes [too_large]."""
    max_pixels: int = 36_000_000
    """Largest width times height of a frame; 8K video (7680 x 4320) fits [too_large]."""
    max_duration_seconds: float = 24 * 3600.0
    """Longest video, in seconds [too_long]."""
    max_frames: int = 10_000_000
    """Largest number of frames, two days at 60 per second; an index takes 8 bytes for each [too_long]."""
    memory_bytes: int = 4 * 1024**3
    """Address space of the decoding process in bytes, including its libraries (about 0.5 GiB) [out_of_memory]."""

    frames_per_second: float | None = dataclass_field(default_factory=rate_of_frame_folders)
    """Frame rate of a folder of JPEGs, which is then a clip; None refuses folders [not_a_video]. By default what
    `NONLOCAL_VIDEO_FRAMES_PER_SECOND` says; a folder run finds such folders only by that."""

    def __post_init__(self) -> None:
        if self.frames_per_second is not None:
            object.__setattr__(self, "frames_per_second", checked_rate(float(self.frames_per_second)))
        for field in fields(self):
            if field.name == "frames_per_second":
                continue
            value = getattr(self, field.name)
            is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not is_number:
                raise UsageError(f"{field.name} = {value!r} should be a number.")
            largest = _LONGEST_TIMEOUT_SECONDS if field.name == "timeout_seconds" else _LARGEST
            if not 0 < value <= largest:
                raise UsageError(f"{field.name} = {value} should be a number above 0, at most {largest}.")
            if field.type == "int":
                if value != int(value):
                    raise UsageError(f"{field.name} = {value} should be a whole number.")
                object.__setattr__(self, field.name, int(value))  # 2e9 is whole, and the kernel takes no float
        if self.memory_bytes < 1024**3:
            raise UsageError(
                f"memory_bytes = {self.memory_bytes} should be at least {1024**3} (1 GiB): "
                "the decoding libraries alone take half of that."
            )

    @classmethod
    def parse(cls, texts: Iterable[str]) -> DecodeLimits:
        """Return the defaults with some changes, each written NAME=VALUE: `["max_duration_seconds=600"]`.

        Raises:
            UsageError: If a text is not NAME=VALUE, or names no limit.
        """
        known = {field.name: field.type for field in fields(cls)}
        changed: dict[str, Any] = {}
        for text in texts:
            name, _, value = text.partition("=")
            if name not in known:
                raise UsageError(f"limit = {text!r} should be NAME=VALUE with NAME one of {', '.join(known)}.")
            try:
                changed[name] = int(value) if known[name] == "int" else float(value)
            except ValueError as error:
                raise UsageError(f"limit = {text!r}: {value!r} is not a number ({known[name]}).") from error
        return cls(**changed)
