"""The files of a run, found one by one, so that a million names are never in memory at once."""

from __future__ import annotations

import glob
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.file_kinds import (
    HIDDEN,
    KINDS_BY_SUFFIX,
    PICTURES,
    PassedOver,
    kind_of_file,
    kind_of_folder,
)
from nonlocal_video.inference.object_storage import is_remote, list_remote
from nonlocal_video.inference.shards import below, shard_bases
from nonlocal_video.inference.walk import Found, is_searched, walk


@dataclass(frozen=True)
class Selection:
    """Rules for which of the found files are used."""

    include: Sequence[str] = ()
    """Glob patterns (`*.mp4`), one of which a file has to match; without any, all files match."""
    exclude: Sequence[str] = ()
    """Glob patterns that a file must not match. A pattern with a / applies to the path, others to the name alone."""
    shard: tuple[int, int] = (1, 1)
    """Shard (k, n): the k-th of n disjoint parts of the files."""
    all_files: bool = False
    """Whether to use every file in a folder, including hidden files and other kinds."""
    pictures: bool = False
    """Whether to search for images, which are skipped in a search for videos."""

    @classmethod
    def parse(
        cls, include: Sequence[str], exclude: Sequence[str], shard: str | None, *, all_files: bool = False
    ) -> Selection:
        """Make a selection with the shard as text, such as `"2/8"`.

        Raises:
            UsageError: The shard is invalid.
        """
        if shard is None:
            return cls(include, exclude, all_files=all_files)
        match = re.fullmatch(r"(\d+)/(\d+)", shard)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"shard = {shard!r} should be K/N with K from 1 to N, such as 2/8.")
        return cls(include, exclude, (int(match[1]), int(match[2])), all_files)

    def tries(self, path: str, kind: str | None) -> bool:
        """Return whether a file of this kind in a folder is used.

        An include pattern with the suffix of the file (`*.jpg`, not `*` or `*.j*`) includes it, unless it is hidden.
        """
        if kind is None or (self.pictures and kind == PICTURES):
            return True
        return kind in KINDS_BY_SUFFIX and any(
            _has_suffix_of(path, pattern) and _matches_pattern(path, pattern) for pattern in self.include
        )

    def has(self, path: str, base: str) -> bool:
        """Return whether a file matches the patterns and belongs to the shard.

        The shard depends on the path below `base` (see `shard_bases`), so that machines with different mount points
        agree.
        """
        if self.include and not any(_matches_pattern(path, pattern) for pattern in self.include):
            return False
        if any(_matches_pattern(path, pattern) for pattern in self.exclude):
            return False
        k, n = self.shard
        return n == 1 or zlib.crc32(os.fsencode(below(path, base))) % n == k - 1


def find_files(
    paths: Iterable[str | os.PathLike[str]],
    *,
    selection: Selection = Selection(),
    leave_out: Iterable[Path] = (),
    passed_over: PassedOver | None = None,
    within: Path | None = None,
) -> Iterator[str]:
    """Yield every file of `paths`, one at a time: files, folders, glob patterns and URLs of object storage.

    Folders are searched recursively in name order (a folder of more than 10,000 entries in sorted chunks of that size).
    Hidden files and folders, those of operating systems, and other kinds of files (`file_kinds`) are skipped, unless
    `selection` includes them or a pattern contains their suffix (`*.jpg`). A path to a single file is always yielded,
    even if it does not exist, so that it gets a row. Links to folders are followed (`walk`). A file that is given
    twice, or lies in a given folder as well, is yielded once.

    Args:
        paths: Paths as given by the user.
        selection: Which of the files to use.
        leave_out: Files to leave out, such as the run's own output.
        passed_over: Counts the skipped files.
        within: Folder that no followed link may leave.
    """
    given = [os.fspath(path) for path in paths]
    own = {os.path.realpath(path) for path in leave_out}
    real_within = None if within is None else os.path.realpath(within)
    bases = shard_bases(given) if selection.shard[1] > 1 else {}
    for root, path, kind in _found(given, selection, real_within):
        if not selection.has(path, bases.get(root, "")) or (own and os.path.realpath(path) in own):
            continue
        if selection.tries(path, kind):
            yield path
        elif kind is not None and passed_over is not None:
            passed_over.add(kind)


def _found(paths: Sequence[str], selection: Selection, within: str | None) -> Iterator[tuple[str, str, str | None]]:
    """Yield (given path, path found at or below it, kind for which it is skipped or None)."""
    all_files = selection.all_files
    roots = {os.path.realpath(path) for path in paths if os.path.isdir(path)}
    roots -= {folder for folder in roots if _comes_with(folder, roots - {folder}, selection)}
    seen: set[str] = set()
    for path in paths:
        if is_remote(path):
            yield from ((path, url, kind) for url, kind in list_remote(path, all_files=all_files))
            continue
        real = os.path.realpath(path)
        if real in seen or (os.path.lexists(path) and _comes_with(real, roots - {real}, selection)):
            continue
        seen.add(real)
        if os.path.isdir(path):
            yield from ((path, *found) for found in walk(path, roots=roots, all_files=all_files, within=within))
        elif not os.path.lexists(path) and glob.has_magic(path):
            yield from ((path, *found) for found in _matches(path, selection, within))
        else:
            yield path, path, None


def _comes_with(real: str, roots: set[str], selection: Selection) -> bool:
    """Return whether the search of one of the roots finds a real path and does not skip it."""
    folder, name = (real, "") if os.path.isdir(real) else os.path.split(real)
    if name and not selection.all_files and not selection.tries(real, kind_of_file(name)):
        return False
    parents = [str(parent) for parent in (Path(folder), *Path(folder).parents)]
    return any(parent in roots and is_searched(folder, parent, all_files=selection.all_files) for parent in parents)


def _matches(pattern: str, selection: Selection, within: str | None) -> Iterator[Found]:
    """Yield the matches of a pattern once each, searching folders recursively."""
    if "**" in pattern.split(os.sep):
        yield from _matches_below(pattern, selection, within)
        return
    matches: dict[str, str] = {}
    for match in sorted(glob.glob(pattern)):
        matches.setdefault(os.path.realpath(match), match)
    selected: dict[str, str] = {}
    for real, match in matches.items():
        kind = None if selection.all_files else _kind_of_match(match, pattern)
        if kind is None:
            selected[real] = match
        else:
            yield match, kind
    roots = {real for real, match in selected.items() if os.path.isdir(match)}
    for real, match in selected.items():
        if _comes_with(real, roots - {real}, selection):
            continue
        if os.path.isdir(match):
            yield from walk(match, roots=roots, all_files=selection.all_files, within=within)
        else:
            yield match, None


def _matches_below(pattern: str, selection: Selection, within: str | None) -> Iterator[Found]:
    """Yield the matches of a pattern with `**`, by `walk`, as `glob` does not end in cycles of links."""
    parts = pattern.split(os.sep)
    first = parts.index("**")
    top, rest = os.sep.join(parts[:first]) or (os.sep if first else os.curdir), [part for part in parts[first:] if part]
    dots = any(part.startswith(".") for part in rest)
    for folder in sorted(glob.glob(top)):
        if not os.path.isdir(folder):
            continue
        for path, kind in walk(folder, all_files=selection.all_files or dots, within=within):
            inside = path[len(folder) :].lstrip(os.sep)
            if not _fits(inside.split(os.sep), rest):
                continue
            match = inside if first == 0 else path
            if dots and not selection.all_files:
                kind = _kind_of_match(match, pattern)
            yield match, None if kind in KINDS_BY_SUFFIX and _has_suffix_of(match, pattern) else kind


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a path, or a folder above it, matches a pattern; both are given in parts."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_fits(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _kind_of_match(match: str, pattern: str) -> str | None:
    """Return the kind for which a match is skipped; None if the pattern contains its name, suffix or leading dot."""
    spelt = set(pattern.split(os.sep))
    *folders, name = match.rstrip(os.sep).split(os.sep)
    kinds = [kind_of_folder(folder) for folder in folders if folder not in spelt]
    if name not in spelt:
        kinds.append(kind_of_folder(name) if os.path.isdir(match) else kind_of_file(name))
    kind = next((kind for kind in kinds if kind), None)
    if kind == HIDDEN and any(part.startswith(".") for part in spelt):
        return None
    return None if kind in KINDS_BY_SUFFIX and _has_suffix_of(match, pattern) else kind


def _has_suffix_of(path: str, pattern: str) -> bool:
    """Return whether a pattern ends in the suffix of a file, without a wildcard."""
    suffix = os.path.splitext(path)[1]
    return bool(suffix) and pattern.casefold().endswith(suffix.casefold())


def _matches_pattern(path: str, pattern: str) -> bool:
    return fnmatch(path if "/" in pattern else os.path.basename(path), pattern)
