"""The exceptions of this project. Every message says what was given, what is allowed and what to do next."""

from __future__ import annotations

from typing import Literal, get_args

ErrorCode = Literal[
    "not_found",
    "not_a_video",
    "no_video_stream",
    "corrupt",
    "unsupported_codec",
    "too_large",
    "too_long",
    "timeout",
    "decoder_crashed",
    "out_of_memory",
    "internal",
]
ERROR_CODES: tuple[str, ...] = get_args(ErrorCode)


class NonlocalVideoError(Exception):
    """Base class of every error raised on purpose by this package."""


class VideoError(NonlocalVideoError):
    """One input could not be read or processed; `code` is what ends up in the result row."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        if code not in ERROR_CODES:
            raise ValueError(f"{code = } should be one of {ERROR_CODES}.")
        super().__init__(message)
        self.code: ErrorCode = code
        self.message = message

    def __reduce__(self) -> tuple[type[VideoError], tuple[ErrorCode, str]]:
        return type(self), (self.code, self.message)


class DeviceError(NonlocalVideoError):
    """The device that computes has failed, so nothing more can be computed in this process; no clip is at fault."""


class ModelError(NonlocalVideoError):
    """A model is unknown, its file cannot be used, or it produced something that is not an answer."""


class OutputError(NonlocalVideoError):
    """A result could not be kept: the disk is full, a folder vanished. What was kept before stays usable."""


class ExportError(NonlocalVideoError):
    """A format cannot hold a network, or the written file does not give its logits. No file was kept."""


class TrainingError(NonlocalVideoError):
    """Training cannot continue: the loss is not finite. What was kept before stays usable."""


class UsageError(NonlocalVideoError, ValueError):
    """An argument has a value that is not allowed."""


class PartError(UsageError):
    """The span or region that was asked for is not in this clip, or too small there; other clips may have it."""
