"""Requests: which part of a clip is used, and in how many views."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypedDict, TypeVar, cast, get_args, get_type_hints

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.views import ViewCount
from nonlocal_video.video.region import Region, RegionLike

_F = TypeVar("_F", bound=Callable[..., Any])


class SpanOptions(TypedDict, total=False):
    """Part of a clip that is used."""

    fast: bool
    """Whether to use the cheaper input of the model card."""
    start_seconds: float | None
    """Start of the part to use; None is the clip's."""
    end_seconds: float | None
    """End of the part to use; None is the clip's."""
    region: RegionLike
    """Region of the frame to use, (x0, y0, x1, y1) in fractions, or as text; see `Region`."""


class ClipOptions(SpanOptions, total=False):
    """Part of a clip that is used, where it may be given as frames."""

    frames_per_second: float | None
    """Rate of frames given as an array; None assumes the model's rate, with a note."""


class ViewOptions(ClipOptions, total=False):
    """Part of a clip that is used, and the number of views."""

    views: str
    """Number of views, CLIPSxCROPS; the softmax is averaged over them. One clip is the middle of the video."""


@dataclass(frozen=True)
class ClipRequest:
    """Time span, region and number of views of a clip.

    Raises:
        UsageError: The span or the rate is invalid for any clip.
    """

    views: ViewCount = field(default_factory=ViewCount)
    start_seconds: float | None = None
    end_seconds: float | None = None
    frames_per_second: float | None = None
    """Rate of frames that are given as an array; a file has its own times."""
    region: Region | None = None
    """Region of the frame to use; None is the whole frame."""
    fast: bool = False
    """Whether to use the cheaper input of the model card."""

    def __post_init__(self) -> None:
        start = 0.0 if self.start_seconds is None else self.start_seconds
        if not 0 <= start < math.inf:
            raise UsageError(f"start_seconds = {start:g} should be a finite number, 0 or above.")
        if self.end_seconds is not None and not start < self.end_seconds < math.inf:
            raise UsageError(
                f"end_seconds = {self.end_seconds:g} should be after start_seconds = {start:g}, and finite."
            )
        if self.frames_per_second is not None and not 0 < self.frames_per_second < math.inf:
            raise UsageError(f"frames_per_second = {self.frames_per_second:g} should be a finite number above 0.")

    @classmethod
    def parse(
        cls,
        *,
        views: str = "1x1",
        fast: bool = False,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        frames_per_second: float | None = None,
        region: RegionLike = None,
    ) -> ClipRequest:
        """Return the request of the options that the recognizer's methods and the command line take.

        Raises:
            UsageError: A value is not allowed.
        """
        return cls(ViewCount.parse(views), start_seconds, end_seconds, frames_per_second, Region.parse(region), fast)


def lists_options(function: _F) -> _F:
    """Have `help` list the options behind `**options: Unpack[...]` with their defaults, and refuse all others.

    Type checkers read the options from the annotation, a running Python from the signature that is set here.
    """
    written = inspect.signature(function)
    (options,) = get_args(get_type_hints(function)["options"])
    names = get_type_hints(options)
    listed = [one for name, one in inspect.signature(ClipRequest.parse).parameters.items() if name in names]
    own = [one for one in written.parameters.values() if one.kind is not one.VAR_KEYWORD]
    first = next((index for index, one in enumerate(own) if one.kind is one.KEYWORD_ONLY), len(own))
    signature = written.replace(parameters=[*own[:first], *listed, *own[first:]])
    keywords = [name for name in signature.parameters if name != "self"]

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in keywords:
                raise TypeError(f"{function.__name__}() has no argument {name!r}; it has {', '.join(keywords)}.")
        return function(*args, **kwargs)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    return cast(_F, checked)
