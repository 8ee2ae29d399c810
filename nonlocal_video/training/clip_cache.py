"""Decoded small clips on the disk, within a bound, shared by all processes that read the same folder."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.io import atomic_write, lock_of

_log = logging.getLogger(__name__)

GIBIBYTE = 1024**3
MAX_CLIP_BYTES = 128 * 1024**2
_ENDING = ".npy"
_UNFINISHED = ".part"


class ClipCache:
    """uint8 frames by name, until the folder is full.

    What is in stays in: training goes round all clips in every epoch, and a cache that throws out the longest unused
    clip would throw out each one just before its turn. A folder is for one set of clips; delete it to start again. The
    system keeps what it reads in free memory, so a folder that fits there is as fast as memory.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, max_bytes: int = 8 * GIBIBYTE, max_clip_bytes: int = MAX_CLIP_BYTES
    ) -> None:
        """Open or make the folder.

        Args:
            folder: Used by this cache alone; several processes may use it at the same time.
            max_bytes: Of all frames together. A folder that holds more already takes no more.
            max_clip_bytes: Of the frames of one clip; larger ones are not kept.
        """
        if not 0 < max_clip_bytes <= max_bytes:
            raise UsageError(f"{max_clip_bytes = } should be above 0 and at most {max_bytes = }.")
        self.folder, self.max_bytes, self.max_clip_bytes = Path(folder), max_bytes, max_clip_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                for left in self.folder.glob(f"*{_UNFINISHED}"):  # of a process that was killed
                    left.unlink()
                self._count()
        except OSError as error:
            raise OutputError(f"The cache {str(folder)!r} cannot be used: {error.strerror}. Choose another.") from error

    @property
    def num_bytes(self) -> int:
        """Bytes that are in it now."""
        return int((self.folder / "bytes").read_text("ascii"))

    def has_room(self, num_bytes: int) -> bool:
        """Whether a clip of this size would be kept, if nobody else is faster."""
        return num_bytes <= self.max_clip_bytes and self.num_bytes + num_bytes <= self.max_bytes

    def frames(self, name: str, places: Sequence[int] | NDArray[np.int64] | None = None) -> NDArray[np.uint8] | None:
        """The frames under a name, or those at some places of them; only they are read. None if they are not there.

        A file that is damaged is deleted, with a warning, and its frames are not there.
        """
        path = self.folder / f"{name}{_ENDING}"
        try:
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
            sums = _read_checksums(path, stored)
        except FileNotFoundError:
            return None
        except Exception:  # NumPy has many for a broken header
            self._drop_damaged(name)
            return None
        found = np.array(stored if places is None else stored[places])
        if not np.array_equal(_checksums(found), sums if places is None else sums[places]):
            self._drop_damaged(name)
            return None
        return found

    def _drop_damaged(self, name: str) -> None:
        path = self.folder / f"{name}{_ENDING}"
        _log.warning("%r of the cache is damaged; it is made again.", str(path))
        with self._lock():
            path.unlink(missing_ok=True)
            self._count()

    def put(self, name: str, frames: NDArray[np.uint8]) -> bool:
        """Keep frames under a name; False if there is no room.

        Raises:
            OutputError: The disk is full, or the folder has vanished.
        """
        path = self.folder / f"{name}{_ENDING}"
        with self._lock():
            total = self.num_bytes
            if path.exists():
                return True
            if frames.nbytes > self.max_clip_bytes or total + frames.nbytes > self.max_bytes:
                return False
            try:
                with atomic_write(path, part=path.with_suffix(_UNFINISHED)) as file:
                    np.save(file, frames)
                    sums = _checksums(frames)
                    file.write(sums.tobytes() + _frame(frames, sums))
                size = path.stat().st_size
            except OSError as error:
                raise OutputError(
                    f"The cache {str(self.folder)!r} cannot be written: {error.strerror}. Free the disk, or allow the "
                    f"cache fewer bytes."
                ) from error
            self._write_total(total + size)
        return True

    def _lock(self) -> FileLock:
        return lock_of(self.folder / "lock")  # a new one each time: a lock held over a fork belongs to two processes

    def _count(self) -> None:
        self._write_total(sum(entry.stat().st_size for entry in self.folder.glob(f"*{_ENDING}")))

    def _write_total(self, num_bytes: int) -> None:
        with atomic_write(self.folder / "bytes", part=self.folder / "bytes.new", sync=False) as file:
            file.write(str(num_bytes).encode())


def _checksums(frames: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the checksum of each frame, (T,); an array with one axis is one piece, (1,)."""
    pieces = frames[None] if frames.ndim == 1 else frames
    return np.array([zlib.crc32(np.ascontiguousarray(piece).data) for piece in pieces], dtype="<u4")


def _frame(frames: NDArray[np.uint8], sums: NDArray[np.uint32]) -> bytes:
    """The checksum of all that is not a frame's own: shape, type and checksums."""
    return zlib.crc32(repr((frames.shape, frames.dtype.str)).encode() + sums.tobytes()).to_bytes(4, "little")


def _read_checksums(path: Path, stored: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """What `put` wrote behind the frames.

    Raises:
        ValueError: It is damaged, or the shape of the frames is.
    """
    num_bytes = 4 * (1 if stored.ndim == 1 else len(stored))
    with open(path, "rb") as file:
        file.seek(-num_bytes - 4, os.SEEK_END)
        behind = file.read()
    sums = np.frombuffer(behind[:num_bytes], "<u4")
    if _frame(stored, sums) != behind[num_bytes:]:
        raise ValueError("its shape or its checksums are not those that were written")
    return sums
