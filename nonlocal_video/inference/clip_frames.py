"""A few frames of a clip's file, read again to be shown beside its answer."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.video.decode import VideoReader


def read_frames(path: str, seconds: Sequence[float]) -> list[NDArray[np.uint8]]:
    """Read the frames shown at some times of a local file.

    Args:
        path: The clip as its prediction names it.
        seconds: Times in ascending order, from the beginning of the file.

    Returns:
        A frame (height, width, 3) for each time; none if there is no such file any more, or it cannot be read.
    """
    if not (os.path.isfile(path) or os.path.isdir(path)):
        return []
    try:
        with VideoReader() as reader:
            chunk = reader.read(path, list(seconds))
    except (UsageError, VideoError):  # the file is another one by now
        return []
    return [chunk.frames_thwc[index] for index in chunk.frame_of_time]
