"""Which files a run is about: found one by one, so that a million names are never in memory at once."""

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
    KINDS_BY_ENDING,
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
    """Which of the files that are found count."""

    include: Sequence[str] = ()
    """Patterns (`*.mp4`) of which a file has to match one; none lets all pass."""
    exclude: Sequence[str] = ()
    """Patterns of which it may match none. With a / in it a pattern is for the path, without for the name alone."""
    shard: tuple[int, int] = (1, 1)
    """(k, n): only the k-th of n parts, which are disjoint and together everything."""
    all_files: bool = False
    """Whether everything in a folder is tried, hidden files and names of other kinds included."""
    pictures: bool = False
    """Whether still pictures are wanted, whose names are passed over where clips are."""

    @classmethod
    def parse(
        cls, include: Sequence[str], exclude: Sequence[str], shard: str | None, *, all_files: bool = False
    ) -> Selection:
        """Make a selection with the shard as `"2/8"`.

        Raises:
            UsageError: The shard is not of that form.
        """
        if shard is None:
            return cls(include, exclude, all_files=all_files)
        match = re.fullmatch(r"(\d+)/(\d+)", shard)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"shard = {shard!r} should be K/N with K from 1 to N, like 2/8.")
        return cls(include, exclude, (int(match[1]), int(match[2])), all_files)

    def tries(self, path: str, kind: str | None) -> bool:
        """Return whether a file of a folder is tried whose name says this kind.

        An include pattern that ends like the file lets it pass (`*.jpg`, but not `*` or `*.j*`), unless it is hidden.
        """
        if kind is None or (self.pictures and kind == PICTURES):
            return True
        return kind in KINDS_BY_ENDING and any(
            _ends_like(path, pattern) and _matches_pattern(path, pattern) for pattern in self.include
        )

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
        return n == 1 or zlib.crc32(os.fsencode(below(path, base))) % n == k - 1


def find_files(
    paths: Iterable[str | os.PathLike[str]],
    *,
    selection: Selection = Selection(),
    leave_out: Iterable[Path] = (),
    passed_over: PassedOver | None = None,
    within: Path | None = None,
) -> Iterator[str]:
    """Yield every file named by `paths`, one at a time: files, folders, glob patterns, and URLs of object storage.

    Folders are searched through, in name order (up to 10,000 entries of a folder; larger ones in runs of so many).
    Hidden files and folders, what operating systems leave, and names of other kinds (`file_kinds`) are passed over,
    unless the selection says otherwise, or the pattern or one of `include` spells their ending out (`*.jpg`). A file
    that is named comes whatever its name, also if there is none, so that it gets its row. Links to folders are followed
    (`walk`). A path that is given twice, or that lies in a folder that is given, too, comes once.

    Args:
        paths: As a user gives them.
        selection: Which of the files count.
        leave_out: Files that do not, such as the run's own output.
        passed_over: Counts what is passed over for its name.
        within: A folder out of which no link is followed.
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
    """(the path as given, what was found at or below it, the kind for which it is passed over)."""
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
    """Whether a real path is found in the search of one of the roots; not so if its name is passed over there."""
    folder, name = (real, "") if os.path.isdir(real) else os.path.split(real)
    if name and not selection.all_files and not selection.tries(real, kind_of_file(name)):
        return False
    above = [str(parent) for parent in (Path(folder), *Path(folder).parents)]
    return any(parent in roots and is_searched(folder, parent, all_files=selection.all_files) for parent in above)


def _matches(pattern: str, selection: Selection, within: str | None) -> Iterator[Found]:
    """What a pattern matches, folders searched through; once each."""
    if "**" in pattern.split(os.sep):
        yield from _matches_below(pattern, selection, within)
        return
    once: dict[str, str] = {}
    for match in sorted(glob.glob(pattern)):
        once.setdefault(os.path.realpath(match), match)
    wanted: dict[str, str] = {}
    for real, match in once.items():
        kind = None if selection.all_files else _kind_of_match(match, pattern)
        if kind is None:
            wanted[real] = match
        else:
            yield match, kind
    roots = {real for real, match in wanted.items() if os.path.isdir(match)}
    for real, match in wanted.items():
        if _comes_with(real, roots - {real}, selection):
            continue
        if os.path.isdir(match):
            yield from walk(match, roots=roots, all_files=selection.all_files, within=within)
        else:
            yield match, None


def _matches_below(pattern: str, selection: Selection, within: str | None) -> Iterator[Found]:
    """The same for `**`, by a search of what is before it: the one of `glob` goes round in circles of links."""
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
            yield match, None if kind in KINDS_BY_ENDING and _ends_like(match, pattern) else kind


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path, or a folder above it, matches a pattern, both in parts."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_fits(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _kind_of_match(match: str, pattern: str) -> str | None:
    """The kind for which a match is passed over; not for a name, an ending or a dot that the pattern spells out."""
    spelt = set(pattern.split(os.sep))
    *folders, name = match.rstrip(os.sep).split(os.sep)
    kinds = [kind_of_folder(folder) for folder in folders if folder not in spelt]
    if name not in spelt:
        kinds.append(kind_of_folder(name) if os.path.isdir(match) else kind_of_file(name))
    kind = next((kind for kind in kinds if kind), None)
    if kind == HIDDEN and any(part.startswith(".") for part in spelt):
        return None
    return None if kind in KINDS_BY_ENDING and _ends_like(match, pattern) else kind


def _ends_like(path: str, pattern: str) -> bool:
    """Whether a pattern spells a file's ending out, without a wildcard."""
    ending = os.path.splitext(path)[1]
    return bool(ending) and pattern.casefold().endswith(ending.casefold())


def _matches_pattern(path: str, pattern: str) -> bool:
    return fnmatch(path if "/" in pattern else os.path.basename(path), pattern)
