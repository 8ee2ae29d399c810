"""Choice of the files that a folder run reads: uploads as they are, files of the offered folder as private copies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.file_kinds import PassedOver
from nonlocal_video.inference.files import find_files
from nonlocal_video.inference.prediction import Failure
from nonlocal_video.inference.recognizer import Recognizer

from ..messages import GONE
from ..received import MAX_PATH_BYTES, ReceivedClip, can_be, receive_found, short
from ..visit_folders import put_in

NOTHING = "Choose some files, or name a folder."
OUTSIDE = "This folder is not below the one that the server offers."


@dataclass
class FolderFiles:
    """The files of one run, found by the walker of the command line."""

    uploads: Sequence[str] | None
    folder: str | None
    root: Path | None
    """Folder that visitors may classify, with its subfolders; None offers none."""
    recognizer: Recognizer
    """It looks at the files, and its limits are theirs."""
    model: str
    """Name of the model, for the rows of files that are not read."""
    copies: dict[str, ReceivedClip] = field(default_factory=dict)
    """Private copies that are in use, by their path."""

    def count(self, passed_over: PassedOver) -> int:
        """Count the files, and those that are no clips.

        Raises:
            UsageError: Nothing was chosen, something that is not offered, or a folder that is not there.
            VideoError: An upload is gone.
        """
        return sum(1 for _ in find_files(self._paths(), passed_over=passed_over, within=self.root))

    def __iter__(self) -> Iterator[str | Failure]:
        """Yield paths to read; links out of the offered folder become error rows.

        A file that is checked and then opened by its name could be exchanged for a link in between, so files of the
        offered folder are copied. The copies are deleted with their rows.
        """
        found = find_files(self._paths(), within=self.root)
        if self.uploads:
            yield from found
            return
        for path in found:
            try:
                clip = self.copy(path)
            except VideoError as error:
                yield Failure(path, self.model, error)
            else:
                self.copies[str(clip.path)] = clip
                yield str(clip.path)

    def copy(self, path: str) -> ReceivedClip:
        """Copy a file of the offered folder.

        Raises:
            VideoError: `not_found` or `too_large`; also for links out of the folder, and links to themselves.
        """
        assert self.root is not None
        return receive_found(path, root=self.root, max_bytes=self.recognizer.options.limits.max_bytes)

    def explain(self, path: str, *, fast: bool) -> Explanation:
        """Return what an answer rests on, read from the file again."""
        if self.uploads:
            return self.recognizer.explain_all(path, fast=fast)
        with self.copy(path) as clip:
            return self.recognizer.explain_all(clip.path, fast=fast)

    def taken(self, path: str, folder: Path) -> Path:
        """Return a file that stays: an upload, or a copy of a file of the offered folder in this folder.

        Raises:
            VideoError: It is gone, or it must not be read.
        """
        if not self.uploads:
            with self.copy(path) as clip:
                return put_in(folder, clip.path)
        if not Path(path).is_file():
            raise VideoError("not_found", GONE)
        return Path(path)

    def shown(self, path: str) -> str:
        """Return a path as the visitor knows it: below the offered folder, or the name of an upload."""
        root = None if self.root is None else os.path.realpath(self.root)
        inside = root is not None and Path(path).is_relative_to(root)
        return str(Path(path).relative_to(root)) if inside and root else Path(path).name

    def close(self) -> None:
        """Delete the copies that are left."""
        close_all(self.copies)

    def _paths(self) -> list[str]:
        if self.uploads:
            if not all(Path(upload).is_file() for upload in self.uploads):
                raise VideoError("not_found", GONE)
            return list(self.uploads)
        folder = self.folder
        if self.root is None or not folder:
            raise UsageError(NOTHING)
        if not can_be(folder, MAX_PATH_BYTES):
            raise UsageError(f"A folder's name is text of at most {MAX_PATH_BYTES} bytes, none of them NUL.")
        root = Path(os.path.realpath(self.root))
        chosen = Path(os.path.realpath(root / folder))
        if not chosen.is_relative_to(root):
            raise UsageError(OUTSIDE)
        if not os.path.isdir(chosen):  # unlike the method, false for a name that is too long
            raise UsageError(f"There is no folder {short(folder)} here.")
        return [str(chosen)]


def close_all(copies: Mapping[str, ReceivedClip]) -> None:
    """Delete private copies."""
    for clip in copies.values():
        clip.close()
