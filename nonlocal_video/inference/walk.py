"""A search through a folder: in name order, part of its names in memory at a time, links followed without circles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from nonlocal_video.inference.file_kinds import OUTSIDE_LINKS, REPEATED_LINKS, kind_of_file, kind_of_folder

_SORTED_ENTRIES = 10_000
"""Entries of a folder that are read and sorted at a time; a larger folder comes in runs of so many."""

Found = tuple[str, str | None]
"""A path, and the kind for which it is passed over; None for what may be a clip."""


def walk(
    top: str, *, roots: set[str] | None = None, all_files: bool = False, within: str | None = None
) -> Iterator[Found]:
    """Yield what lies at and below a folder: files, and the folders and links that are not searched.

    Every entry that is not a folder counts as a file: what it is, the decoder finds out. A folder that cannot be read
    is yielded itself, so that a row says so. Links to folders are followed, unless they lead to what is searched
    anyway: to a folder above them, or at or below one of the roots. So each real folder is searched once, and only the
    roots have to be remembered.

    Args:
        top: The folder; it is searched whatever its name.
        roots: Real paths of the folders that are searched by themselves, now or by another call. The targets of links
            are added.
        all_files: Pass nothing over for its name.
        within: Real path of a folder; links that lead out of it are not followed.
    """
    roots = set() if roots is None else roots
    real_top = os.path.realpath(top)
    roots.add(real_top)
    stack = [(_entries(top), real_top)]  # not recursion: folders nest deeper than Python's calls may
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
            elif (below := os.path.join(real, entry.name)) not in roots:
                stack.append((_entries(entry.path), below))
        elif os.path.isdir(entry.path):  # a link to one; not the entry's own is_dir, which raises for a link to itself
            target = os.path.realpath(entry.path)
            repeated = any(_is_below(above, target) for _, above in stack) or any(
                is_searched(target, root, all_files=all_files) for root in roots
            )
            outside = within is not None and not _is_below(target, within)
            kind = (None if all_files else kind_of_folder(entry.name)) or (
                OUTSIDE_LINKS if outside else REPEATED_LINKS if repeated else None
            )
            if kind:
                yield entry.path, kind
            else:
                roots.add(target)
                stack.append((_entries(entry.path), target))
        else:
            yield entry.path, None if all_files else kind_of_file(entry.name)


def is_searched(folder: str, root: str, *, all_files: bool = False) -> bool:
    """Return whether a search of `root` comes to `folder`, both being real paths: not so below a hidden folder."""
    if not _is_below(folder, root):
        return False
    return all_files or not any(kind_of_folder(part) for part in Path(folder).relative_to(root).parts)


def _is_below(path: str, folder: str) -> bool:
    """Whether a real path is the folder's or lies in it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _entries(folder: str) -> Iterator[os.DirEntry[str] | str]:
    """Yield a folder's entries, sorted; the folder itself if it cannot be read."""
    try:
        listing = os.scandir(folder)
    except OSError:
        yield folder
        return
    with listing:
        some = sorted(islice(listing, _SORTED_ENTRIES), key=lambda entry: entry.name)
        while len(some) == _SORTED_ENTRIES:
            yield from some
            some = sorted(islice(listing, _SORTED_ENTRIES), key=lambda entry: entry.name)
    yield from some
