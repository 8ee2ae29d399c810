"""Find the clips of a list among the files of a folder, without ever making a pattern of their names."""

from __future__ import annotations

import os
from pathlib import Path

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.file_kinds import HIDDEN, SYSTEM
from nonlocal_video.inference.walk import is_frame_folder, walk


class ClipFiles:
    """The clips below a folder by name, whatever their ending: data sets are often encoded again.

    What may be a clip is decided as in every folder run, by `file_kinds`.

    Attributes:
        others: Paths of the files that are not clips by name, sorted; hidden ones and those of systems are left out.
        repeated: Names that were looked for and that several files have; the first of those in name order is taken.
    """

    def __init__(self, root: Path, *, ignore_case: bool = False) -> None:
        """Search a folder.

        Args:
            root: The folder.
            ignore_case: Take names for equal that differ in upper and lower case only.

        Raises:
            UsageError: A folder below it cannot be read.
        """
        self._ignore_case = ignore_case
        self._by_stem: dict[str, list[str]] = {}
        self.repeated: set[str] = set()
        self.others: list[str] = []
        for path, kind in sorted(walk(str(root)), key=lambda found: found[0]):
            if kind is None:
                if os.path.isdir(path) and not is_frame_folder(path):
                    raise UsageError(f"The folder {path!r} cannot be read; get the right to read it, or move it away.")
                stem = os.path.splitext(os.path.basename(path))[0]
                self._by_stem.setdefault(self._key(stem), []).append(path)
            elif kind not in (HIDDEN, SYSTEM) and os.path.isfile(path):
                self.others.append(path)

    def find(self, name: str) -> str | None:
        """The clip that a list calls by its name, or by its folder and name, with or without an ending."""
        folder, _, file = self._key(name).rpartition("/")
        found = self._by_stem.get(file) or self._by_stem.get(os.path.splitext(file)[0]) or []
        if folder:
            parent = folder.rpartition("/")[2]
            found = [path for path in found if self._key(Path(path).parent.name) == parent]
        if len(found) > 1:
            self.repeated.add(name)
        return found[0] if found else None

    def all(self) -> list[str]:
        """Every clip, sorted."""
        return sorted(path for paths in self._by_stem.values() for path in paths)

    def _key(self, name: str) -> str:
        return name.casefold() if self._ignore_case else name


def find_file(root: Path, *names: str) -> Path | None:
    """The first of some files that lies in a folder, or in a folder of it."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    return next((folder / name for name in names for folder in folders if (folder / name).is_file()), None)
