"""Which files a run is about: found one by one, so that a million names are never in memory at once."""

from __future__ import annotations

import glob
import itertools
import os
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.remote import is_remote, is_remote_folder, list_remote

_SORTED_ENTRIES = 10_000
"""Entries of a folder that are read and sorted at a time; a larger folder comes in runs of so many."""


@dataclass(frozen=True)
class Selection:
    """Which of the files that are found count."""

    include: Sequence[str] = ()
    """Patterns (`*.mp4`) of which a file has to match one; none lets all pass."""
    exclude: Sequence[str] = ()
    """Patterns of which it may match none. With a / in it a pattern is for the path, without for the name alone."""
    shard: tuple[int, int] = (1, 1)
    """(k, n): only the k-th of n parts, which are disjoint and together everything."""

    @classmethod
    def parse(cls, include: Sequence[str], exclude: Sequence[str], shard: str | None) -> Selection:
        """With the shard as `"2/8"`."""
        if shard is None:
            return cls(include, exclude)
        match = re.fullmatch(r"(\d+)/(\d+)", shard)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"shard = {shard!r} should be K/N with K from 1 to N, like 2/8.")
        return cls(include, exclude, (int(match[1]), int(match[2])))

    def has(self, path: str, base: str) -> bool:
        """Whether a file counts.

        A shard goes by the path below `base` (see `shard_bases`), so machines that see the same files under other names
        agree.
        """
        if self.include and not any(_matches_pattern(path, pattern) for pattern in self.include):
            return False
        if any(_matches_pattern(path, pattern) for pattern in self.exclude):
            return False
        k, n = self.shard
        return n == 1 or zlib.crc32(os.fsencode(_below(path, base))) % n == k - 1


def find_files(
    paths: Iterable[str | os.PathLike[str]],
    *,
    selection: Selection = Selection(),
    leave_out: Iterable[Path] = (),
) -> Iterator[str]:
    """Every file named by `paths`, one at a time: files, folders, glob patterns, and URLs of object storage.

    Folders are searched through, in name order (up to 10,000 entries of a folder; larger ones in runs of so many).
    Every entry that is not a folder counts, whatever its name: what it is, the decoder finds out. A path that does not
    exist is handed on, so that it gets its row. Links to folders are not followed. A path that is given twice, or that
    lies in a folder that is given, too, comes once.

    Args:
        paths: As a user gives them.
        selection: Which of the files count.
        leave_out: Files that do not, such as the run's own output.
    """
    given = [os.fspath(path) for path in paths]
    hidden = {os.path.realpath(path) for path in leave_out}
    bases = shard_bases(given) if selection.shard[1] > 1 else {}
    for root, path in _found(given):
        if selection.has(path, bases.get(root, "")) and not (hidden and os.path.realpath(path) in hidden):
            yield path


def shard_bases(given: Iterable[str]) -> dict[str, str]:
    """Return for each path, as a user gives them, the folder from which the names of its files count in a shard.

    A folder counts from itself, a pattern from its part before the first wildcard, and files that are named one by one
    from the lowest folder that holds all of them. So it makes no difference where the files are mounted, or whether a
    path is given from the root, from here, or with `./` before or `/` behind it.
    """
    bases: dict[str, str] = {}
    single: list[str] = []
    for path in dict.fromkeys(given):
        if is_remote(path):
            if is_remote_folder(path):
                bases[path] = _location(path)
            else:
                single.append(path)
        elif os.path.isdir(path):
            bases[path] = _location(path)
        elif not os.path.lexists(path) and glob.has_magic(path):
            fixed = itertools.takewhile(lambda part: not glob.has_magic(part), _location(path).split("/"))
            bases[path] = "/".join(fixed) or "/"
        else:
            single.append(path)
    # Of files here and files in each storage on their own: those have no folder in common.
    kinds = {path: path.partition("://")[0] if is_remote(path) else "" for path in single}
    for kind in set(kinds.values()):
        of_kind = [path for path in single if kinds[path] == kind]
        bases |= dict.fromkeys(of_kind, os.path.commonpath([os.path.dirname(_location(path)) for path in of_kind]))
    return bases


def _location(path: str) -> str:
    """Where a file lies: its whole path, or its address without what is asked of the server."""
    if not is_remote(path):
        return os.path.abspath(path)
    address = re.split(r"[?#]", path)[0] if path.startswith(("http://", "https://")) else path
    return "/" + address.partition("://")[2].strip("/")  # some storages list memory://a as memory:///a


def _below(path: str, base: str) -> str:
    """The part of a path that is the same wherever the files are; macOS spells accents in another way than Linux."""
    location = _location(path)
    below = location.removeprefix(base).lstrip("/") or os.path.basename(location)
    return unicodedata.normalize("NFC", below)


def _found(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(the path as given, a file at or below it)."""
    folders = {os.path.realpath(path) for path in paths if os.path.isdir(path)}
    seen: set[str] = set()
    for path in paths:
        if is_remote(path):
            yield from ((path, url) for url in list_remote(path))
            continue
        real = os.path.realpath(path)
        comes_with_folder = os.path.lexists(path) and any(str(parent) in folders for parent in Path(real).parents)
        if real in seen or comes_with_folder:
            continue
        seen.add(real)
        if os.path.isdir(path):
            yield from ((path, file) for file in _walk(path))
        elif not os.path.lexists(path) and glob.has_magic(path):
            yield from ((path, file) for file in _matches(path))
        else:
            yield path, path


def _matches(pattern: str) -> Iterator[str]:
    """What a pattern matches, folders searched through; once each, as `**` goes round in circles of links."""
    once: dict[str, str] = {}
    for match in sorted(glob.glob(pattern, recursive=True), key=lambda match: (match.count(os.sep), match)):
        once.setdefault(os.path.realpath(match), match)
    for match in sorted(once.values()):
        yield from _walk(match) if os.path.isdir(match) else [match]


def _walk(top: str) -> Iterator[str]:
    stack = [_entries(top)]  # not recursion: folders nest deeper than Python's calls may
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, str):
            yield entry
        elif entry.is_dir(follow_symlinks=False):
            stack.append(_entries(entry.path))
        elif not os.path.isdir(entry.path):  # not the entry's own is_dir, which raises for a link to itself
            yield entry.path


def _entries(folder: str) -> Iterator[os.DirEntry[str] | str]:
    """A folder's entries, sorted; the folder itself if it cannot be read, so that a row says so."""
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


def _matches_pattern(path: str, pattern: str) -> bool:
    return fnmatch(path if "/" in pattern else os.path.basename(path), pattern)
