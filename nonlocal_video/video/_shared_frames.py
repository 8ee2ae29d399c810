"""Memory shared by a reader and its decoding process, so that large frames do not go through the pipe.

A 1080p frame has 6 MB. Through the pipe it is copied twice, a megabyte at a time, with a context switch for each; here
it is written once and read once. Messages and small frames use the pipe, as does everything on systems without memory
files (Linux has them).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys

import numpy as np
from numpy.typing import NDArray

_BYTES = 64 << 20
"""Size of the address space; memory is only taken for slots in use."""
_MOST_SLOTS = 4
"""Number of frames that the decoding process may be ahead of its reader."""
_LEAST_FRAME_BYTES = 1 << 20


class SharedFrames:
    """Slots for frames, which the decoding process fills and the reader empties in turn.

    The reader copies the frames, so that nothing can change them afterwards. The decoding process cannot shrink the
    memory, which would end the reader at its next access.

    Attributes:
        descriptor: Descriptor of the memory file; -1 once it is closed, while the memory stays mapped.
    """

    def __init__(self, descriptor: int, *, is_writer: bool) -> None:
        """Map the memory of a descriptor from `create`, in either process."""
        self.descriptor = descriptor
        allowed = mmap.PROT_READ | mmap.PROT_WRITE if is_writer else mmap.PROT_READ
        memory = mmap.mmap(descriptor, _BYTES, mmap.MAP_SHARED, allowed)
        self._memory: NDArray[np.uint8] = np.frombuffer(memory, dtype=np.uint8)  # unmapped with its last view

    @classmethod
    def create(cls) -> SharedFrames | None:
        """Create memory for the reader; return None if the system cannot share memory."""
        if sys.platform != "linux" or not hasattr(os, "memfd_create"):
            return None
        import fcntl

        try:
            opened = os.memfd_create("nonlocal-video-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:  # 0 to 2, free in a program without standard streams, would be the child's own
                descriptor = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 3)
            finally:
                os.close(opened)
        except (OSError, MemoryError):
            return None
        try:
            os.ftruncate(descriptor, _BYTES)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
            return cls(descriptor, is_writer=False)
        except (OSError, MemoryError):  # no address space is left, or the kernel does not know seals
            os.close(descriptor)
            return None

    def close_descriptor(self) -> None:
        """Close the file; the memory stays while it is used."""
        if self.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self.descriptor)
            self.descriptor = -1

    def release(self) -> None:
        """Close the file and unmap the memory, for which Python keeps a second descriptor."""
        self.close_descriptor()
        self._memory = np.empty(0, np.uint8)

    def num_slots(self, frame_bytes: int) -> int:
        """Return the number of slots for frames of this size; 0 for frames that go through the pipe."""
        slots = min(_MOST_SLOTS, _BYTES // max(1, frame_bytes))
        return slots if frame_bytes >= _LEAST_FRAME_BYTES and slots > 1 else 0

    def slot(self, number: int, frame_bytes: int) -> NDArray[np.uint8]:
        """Return the memory (frame_bytes,) of the `number`-th frame."""
        start = number % self.num_slots(frame_bytes) * frame_bytes
        return self._memory[start : start + frame_bytes]
