"""The inputs of a run for features: a CSV of clips or segments stands for what it lists."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nonlocal_video.datasets.labelled import read_labelled


def listed(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the paths with each `.csv` file replaced by its clips, or by its segments as parts of their videos.

    Args:
        paths: Files, folders, patterns, addresses; a CSV is `path,label[,...]` or
            `path,start_seconds,end_seconds,label[,...]`, with paths that count from its own folder.

    Raises:
        UsageError: A CSV cannot be read as one of these.

    Example:
        >>> listed(["clips/", "segments.csv"])
        ['clips/', 'match.mp4#t=3,5.5', 'match.mp4#t=8,9']
    """
    found: list[str] = []
    for path in [os.fspath(given) for given in paths]:
        if Path(path).suffix.lower() == ".csv" and os.path.isfile(path):
            found.extend(clip.path for clip in read_labelled(path))
        else:
            found.append(path)
    return found
