"""Recursive search of a folder in name order, with bounded memory, following links without cycles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from nonlocal_video.frame_folders import is_jpeg, rate_of_frame_folders
from nonlocal_video.inference.file_kinds import OUTSIDE_LINKS, REPEATED_LINKS, kind_of_file, kind_of_folder

_SORTED_ENTRIES = 10_000
"""Number of entries that are sorted at a time; a larger folder is listed in sorted chunks of this size."""

Found = tuple[str, str | None]
"""A path, and the kind for which it is skipped; None for files that may be videos."""


def walk(
    top: str, *, roots: set[str] | None = None, all_files: bool = False, within: str | None = None
) -> Iterator[Found]:
    """Yield the files below a folder, and the folders and links that are not searched.

    Every entry that is not a folder counts as a file. So does a folder of JPEGs where a frame rate is given. An
    unreadable folder is yielded itself, so that it gets an error row. Links to folders are followed, unless they lead
    to a parent folder or to one of the roots or below. So each folder is searched once, and only the roots have to be
    remembered.

    Args:
        top: Folder to search, whatever its name.
        roots: Real paths of folders that are searched separately. Targets of links are added.
        all_files: Whether to take every file, whatever its name.
        within: Real path of a folder that no followed link may leave.
    """
    roots = set() if roots is None else roots
    frames_are_clips = rate_of_frame_folders() is not None
    if frames_are_clips and is_frame_folder(top):
        yield top, None
        return
    real_top = os.path.realpath(top)
    roots.add(real_top)
    stack = [(_entries(top), real_top)]  # not recursive: folders may nest deeper than Python's stack
    while stack:
        entries, real = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, str):
            yield entry, None
        elif entry.is_dir(follow_symlinks=False):
            kind = None if all_files else kind_of_folder(entry.name)
            if kind:
                yield entry.path, kind
            elif frames_are_clips and is_frame_folder(entry.path):
                yield entry.path, None
            elif (below := os.path.join(real, entry.name)) not in roots:
                stack.append((_entries(entry.path), below))
        elif os.path.isdir(entry.path):  # a link to a folder; entry.is_dir would raise for a link to itself
            target = os.path.realpath(entry.path)
            repeated = any(_is_below(parent, target) for _, parent in stack) or any(
                is_searched(target, root, all_files=all_files) for root in roots
            )
            outside = within is not None and not _is_below(target, within)
            kind = (None if all_files else kind_of_folder(entry.name)) or (
                OUTSIDE_LINKS if outside else REPEATED_LINKS if repeated else None
            )
            if kind:
                yield entry.path, kind
            elif frames_are_clips and is_frame_folder(entry.path):
                yield entry.path, None
            else:
                roots.add(target)
                stack.append((_entries(entry.path), target))
        else:
            yield entry.path, None if all_files else kind_of_file(entry.name)


def is_frame_folder(folder: str) -> bool:
    """Return whether a folder holds the frames of a clip: JPEGs, and neither other folders nor what may be videos."""
    found = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    if kind_of_folder(entry.name) is None:
                        return False
                elif is_jpeg(entry.name):
                    found = True
                elif kind_of_file(entry.name) is None:
                    return False
    except OSError:
        return False
    return found


def is_searched(folder: str, root: str, *, all_files: bool = False) -> bool:
    """Return whether a search of `root` reaches `folder` (real paths), which it does not below a hidden folder."""
    if not _is_below(folder, root):
        return False
    return all_files or not any(kind_of_folder(part) for part in Path(folder).relative_to(root).parts)


def _is_below(path: str, folder: str) -> bool:
    """Return whether a real path is a folder or below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _entries(folder: str) -> Iterator[os.DirEntry[str] | str]:
    """Yield the sorted entries of a folder; the folder itself if it cannot be read."""
    try:
        listing = os.scandir(folder)
    except OSError:
        yield folder
        return
    with listing:
        chunk = sorted(islice(listing, _SORTED_ENTRIES), key=lambda entry: entry.name)
        while len(chunk) == _SORTED_ENTRIES:
            yield from chunk
            chunk = sorted(islice(listing, _SORTED_ENTRIES), key=lambda entry: entry.name)
    yield from chunk
