"""Disk caches of training, with a checksum on all that is stored: decoded clips, a teacher's outputs, features."""

from __future__ import annotations

import logging
import math
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.io import atomic_write, lock_of, refuse_link

_log = logging.getLogger(__name__)

GIBIBYTE = 1024**3
MAX_CLIP_BYTES = 128 * 1024**2
_ENDING = ".npy"
_UNFINISHED = ".part"


class DiskCache:
    """Stores uint8 arrays by name, until the folder is full: frames of clips, or outputs of a teacher as bytes.

    All processes that use the same folder share it. Nothing is evicted: training visits all clips in every epoch, so
    evicting the least recently used one would drop each clip just before it is needed. Use one folder per set of clips;
    delete it to start again. A folder that fits into free memory is as fast as memory, thanks to the page cache.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, max_bytes: int = 8 * GIBIBYTE, max_clip_bytes: int = MAX_CLIP_BYTES
    ) -> None:
        """Open or create the folder.

        Args:
            folder: Folder for this cache alone; several processes may use it at the same time.
            max_bytes: Maximum size of all frames. A folder that is larger already accepts no more.
            max_clip_bytes: Maximum size of one clip's frames; larger clips are not cached.

        Raises:
            UsageError: A limit is invalid.
            OutputError: The folder cannot be used.
        """
        if not 0 < max_clip_bytes <= max_bytes:
            raise UsageError(f"{max_clip_bytes = } should be above 0 and at most {max_bytes = }.")
        self.folder, self.max_bytes, self.max_clip_bytes = Path(folder), max_bytes, max_clip_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                for leftover in self.folder.glob(f"*{_UNFINISHED}"):  # left by a killed process
                    leftover.unlink()
                self._count()
        except OSError as error:
            raise OutputError(f"The cache {str(folder)!r} cannot be used: {error.strerror}. Choose another.") from error

    @property
    def num_bytes(self) -> int:
        """Current size in bytes."""
        return int((self.folder / "bytes").read_text("ascii"))

    def has_room(self, num_bytes: int) -> bool:
        """Return whether a clip of this size fits at this moment."""
        return num_bytes <= self.max_clip_bytes and self.num_bytes + num_bytes <= self.max_bytes

    def frames(self, name: str, indices: Sequence[int] | NDArray[np.int64] | None = None) -> NDArray[np.uint8] | None:
        """Return the frames stored under a name, or those at `indices`, reading no others.

        Returns:
            uint8 (T, H, W, 3), or None if the name is missing. A damaged file is deleted with a warning and is missing.
        """
        path = self.folder / f"{name}{_ENDING}"
        try:
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
            checksums = _read_checksums(path, stored)
        except FileNotFoundError:
            return None
        except Exception:  # NumPy raises many kinds for a broken header
            self._drop_damaged(name)
            return None
        found = np.array(stored if indices is None else stored[indices])
        if not np.array_equal(_checksums(found), checksums if indices is None else checksums[indices]):
            self._drop_damaged(name)
            return None
        return found

    def _drop_damaged(self, name: str) -> None:
        path = self.folder / f"{name}{_ENDING}"
        _log.warning("%r in the cache is damaged; it is computed again.", str(path))
        with self._lock():
            path.unlink(missing_ok=True)
            self._count()

    def put(self, name: str, frames: NDArray[np.uint8]) -> bool:
        """Store frames under a name; return False if there is no room.

        Raises:
            OutputError: The disk is full, or the folder is gone.
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
                    checksums = _checksums(frames)
                    file.write(checksums.tobytes() + _header_checksum(frames, checksums))
                size = path.stat().st_size
            except OSError as error:
                raise OutputError(
                    f"The cache {str(self.folder)!r} cannot be written: {error.strerror}. Free disk space, or lower "
                    f"the size of the cache."
                ) from error
            self._write_total(total + size)
        return True

    def _lock(self) -> FileLock:
        return lock_of(self.folder / "lock")  # a new one each time: a lock held across a fork belongs to two processes

    def _count(self) -> None:
        self._write_total(sum(entry.stat().st_size for entry in self.folder.glob(f"*{_ENDING}")))

    def _write_total(self, num_bytes: int) -> None:
        with atomic_write(self.folder / "bytes", part=self.folder / "bytes.new", sync=False) as file:
            file.write(str(num_bytes).encode())


class TensorTable:
    """Stores a float32 tensor and a class for each view of each clip, in files of fixed size that processes share.

    A cell without a checksum is empty. The checksum is written last, so that a kill costs the cells of one write.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        """Open or create the files, in every process of a run.

        Args:
            folder: Folder for this table alone.
            shape: Number of views, number of clips, and the shape of one tensor.

        Raises:
            OutputError: The files cannot be written.
        """
        self.folder, self.shape = folder, shape
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._tensors = self._open("views", np.float32, shape)
            self._classes = self._open("classes", np.int64, shape[:2])
            self._checksums = self._open("checksums", np.uint64, shape[:2])  # 0 where nothing is stored yet
        except OSError as error:
            raise OutputError(f"{str(folder)!r} cannot be written: {error.strerror}. Make room for it.") from error

    def _open(self, name: str, kind: type, shape: tuple[int, ...]) -> np.memmap:
        path = self.folder / name
        size = math.prod(shape) * np.dtype(kind).itemsize
        refuse_link(path, hard=True)
        with open(path, "ab") as file:
            if file.tell() != size:
                file.truncate(size)  # zeros: nothing is stored
            if hasattr(os, "posix_fallocate"):  # otherwise a full disk would end the process by SIGBUS later
                os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(path, dtype=kind, mode="r+", shape=shape)

    def has(self, clip: int, view: int) -> bool:
        """Return whether a tensor is stored for a view, sound or not."""
        return bool(self._checksums[view, clip])

    def drop_damaged(self, keys: Iterable[tuple[int, int]]) -> None:
        """Empty the cells, given as clip and view, whose checksum does not fit, with a warning."""
        damaged = 0
        for clip, view in keys:
            if self._checksums[view, clip] not in (0, self._checksum(clip, view)):
                self._checksums[view, clip] = 0
                damaged += 1
        if damaged:
            _log.warning("%d cached views in %r are damaged; they are recomputed.", damaged, str(self.folder))

    def put(
        self, clips: NDArray[np.int64], view: int, tensors: NDArray[np.float32], classes: NDArray[np.int64]
    ) -> None:
        """Store the tensors (N, ...) and classes (N,) of one view of N clips."""
        self._tensors[view, clips] = tensors
        self._classes[view, clips] = classes
        for clip in clips:  # last: a kill in between costs one batch
            self._checksums[view, clip] = self._checksum(clip, view)

    def get(self, clip: int, view: int) -> tuple[NDArray[np.float32], int] | None:
        """Return a view's tensor and class, or None where it is empty or damaged."""
        tensor: NDArray[np.float32] = np.array(self._tensors[view, clip])
        label = int(self._classes[view, clip])
        return (tensor, label) if self._checksums[view, clip] == _cell_checksum(tensor, label, clip, view) else None

    def flush(self) -> None:
        """Write to the disk what is in memory only."""
        for tensor in (self._tensors, self._classes, self._checksums):
            tensor.flush()

    def _checksum(self, clip: int, view: int) -> int:
        return _cell_checksum(self._tensors[view, clip], int(self._classes[view, clip]), clip, view)


def _checksums(frames: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the checksum of each frame, (T,); an array with one axis counts as one frame, (1,)."""
    frames_or_bytes = frames[None] if frames.ndim == 1 else frames
    return np.array([zlib.crc32(np.ascontiguousarray(frame).data) for frame in frames_or_bytes], dtype="<u4")


def _header_checksum(frames: NDArray[np.uint8], checksums: NDArray[np.uint32]) -> bytes:
    """Return the checksum of the shape, the type and the checksums of the frames."""
    return zlib.crc32(repr((frames.shape, frames.dtype.str)).encode() + checksums.tobytes()).to_bytes(4, "little")


def _read_checksums(path: Path, stored: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the checksums that `put` wrote after the frames.

    Raises:
        ValueError: They or the shape of the frames are damaged.
    """
    num_bytes = 4 * (1 if stored.ndim == 1 else len(stored))
    with open(path, "rb") as file:
        file.seek(-num_bytes - 4, os.SEEK_END)
        trailer = file.read()
    checksums = np.frombuffer(trailer[:num_bytes], "<u4")
    if _header_checksum(stored, checksums) != trailer[num_bytes:]:
        raise ValueError("its shape or its checksums are damaged")
    return checksums


def _cell_checksum(tensor: NDArray[np.float32], label: int, clip: int, view: int) -> int:
    """Return the checksum of a stored tensor, its class and its index; never 0."""
    about = struct.pack("<qqq", label, clip, view)
    return 1 << 32 | zlib.crc32(about, zlib.crc32(np.ascontiguousarray(tensor).data))
