"""The inputs of a run for features: a CSV of clips or segments stands for what it lists."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from nonlocal_video.datasets.labelled import read_source
from nonlocal_video.datasets.segment_table import ANNOTATION_ENDINGS, TABLE_ENDINGS, is_table_of_tool

_log = logging.getLogger(__name__)


def listed(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the paths with each list replaced by its clips, or by its segments as parts of their videos.

    Args:
        paths: Files, folders, patterns, addresses; a CSV is `path,label[,...]` or
            `path,start_seconds,end_seconds,label[,...]`, with paths that count from its own folder. A
            file of an annotation tool lists segments, too.

    Raises:
        UsageError: A CSV cannot be read as one of these.

    Example:
        >>> listed(["clips/", "segments.csv"])
        ['clips/', 'match.mp4#t=3,5.5', 'match.mp4#t=8,9']
    """
    found: list[str] = []
    for path in [os.fspath(given) for given in paths]:
        if Path(path).suffix.lower() in (*TABLE_ENDINGS, *ANNOTATION_ENDINGS) and os.path.isfile(path):
            source = read_source(path)
            is_of_tool = Path(path).suffix.lower() in ANNOTATION_ENDINGS or is_table_of_tool(Path(path))
            for note in source.notes if is_of_tool else ():
                _log.warning("%s: %s", path, note)
            found.extend(clip.path for clip in source.clips)
        else:
            found.append(path)
    return found
