"""Base folders of files for sharding, so that machines with different mount points agree."""

from __future__ import annotations

import glob
import itertools
import os
import re
import unicodedata
from collections.abc import Iterable

from nonlocal_video.inference.object_storage import is_remote, is_remote_folder


def shard_bases(given: Iterable[str]) -> dict[str, str]:
    """Return for each given path the base folder of its files; shards depend on the path below it.

    The base of a folder is the folder itself, that of a pattern its part before the first wildcard, and that of single
    files their common parent folder. So it does not matter where files are mounted, or whether paths are absolute,
    relative, start with `./` or end in `/`.
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
    # Local files and those in each storage separately, as they have no common folder.
    kinds = {path: path.partition("://")[0] if is_remote(path) else "" for path in single}
    for kind in set(kinds.values()):
        same_storage = [path for path in single if kinds[path] == kind]
        bases |= dict.fromkeys(
            same_storage, os.path.commonpath([os.path.dirname(_location(path)) for path in same_storage])
        )
    return bases


def _location(path: str) -> str:
    """Return the absolute path of a file, or its URL without scheme and query."""
    if not is_remote(path):
        return os.path.abspath(path)
    address = re.split(r"[?#]", path)[0] if path.startswith(("http://", "https://")) else path
    return "/" + address.partition("://")[2].strip("/")  # some storages list memory://a as memory:///a


def below(path: str, base: str) -> str:
    """Return a path relative to its base, in Unicode NFC, as macOS and Linux encode accents differently."""
    location = _location(path)
    rest = location.removeprefix(base).lstrip("/") or os.path.basename(location)
    return unicodedata.normalize("NFC", rest)
