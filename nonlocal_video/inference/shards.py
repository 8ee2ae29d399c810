"""From where the names of files count in a shard, so that machines which see them elsewhere agree."""

from __future__ import annotations

import glob
import itertools
import os
import re
import unicodedata
from collections.abc import Iterable

from nonlocal_video.inference.object_storage import is_remote, is_remote_folder


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


def below(path: str, base: str) -> str:
    """Return the part of a path that is the same wherever the files are; macOS spells accents otherwise than Linux."""
    location = _location(path)
    rest = location.removeprefix(base).lstrip("/") or os.path.basename(location)
    return unicodedata.normalize("NFC", rest)
