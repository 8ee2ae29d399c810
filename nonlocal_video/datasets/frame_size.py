"""Whether a model can see frames of a size, or the region of them that it is to look at."""

from __future__ import annotations

from nonlocal_video.errors import PartError
from nonlocal_video.inference.preprocessing import MAX_RESIZED_PIXELS, crops_of
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.region import Region


def size_problem(info: VideoInfo, spec: InputSpec, region: Region | None = None) -> str | None:
    """Return why `ClipLoader` would reject frames of this size, as error code and message; None if it would not.

    Args:
        info: Width and height of the clip's frames.
        spec: Input of the model.
        region: Part of the frames to look at; None is all of them.
    """
    try:
        (place,) = crops_of(info, spec, region=region)
    except PartError as error:
        return f"not_found: it has no such part: {error}"
    if place.resized_height * place.resized_width > MAX_RESIZED_PIXELS:
        part = "its frames are" if region is None else f"the region {region} of its frames is"
        return f"too_large: {part} too elongated for the model; crop the video to what matters."
    return None


def is_enlarged(info: VideoInfo, spec: InputSpec, region: Region | None = None) -> bool:
    """Return whether frames, or the region of them, are smaller than the model's square.

    Raises:
        PartError: The region is too small, see `size_problem`.
    """
    top, left, bottom, right = (
        (0, 0, info.height, info.width) if region is None else region.pixels(info.height, info.width)
    )
    return min(bottom - top, right - left) < spec.crop
