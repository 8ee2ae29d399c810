"""Reading of a folder of JPEGs as one clip, in the natural order of their names. Runs in the decoding process only."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from nonlocal_video.errors import VideoError
from nonlocal_video.frame_folders import is_jpeg, natural_order
from nonlocal_video.video._messages import printable_name
from nonlocal_video.video.limits import DecodeLimits

MOST_FRAMES = 100_000
"""Largest number of pictures in a folder: each is opened when the folder is indexed."""
_NUMBER = re.compile(r"(\d+)")


class FrameFolder:
    """A folder of JPEGs of one size.

    Attributes:
        name: Its name, for messages.
        size: Width and height of every picture, upright.
        notes: Sentences for the user.
    """

    def __init__(self, path: str, limits: DecodeLimits) -> None:
        """List the pictures, and read their headers.

        Raises:
            VideoError: There are no frames, too many or too large ones, one is damaged, or their sizes differ.
        """
        self.path = path
        self.name = printable_name(path)
        self.limits = limits
        self.files, self._status = self._list()
        self.size = self._common_size()
        self.notes = self._gaps()

    @property
    def identity(self) -> tuple[int, ...]:
        """Identity of the contents, which changes with them."""
        return self._status

    def close(self) -> None:
        """Do nothing: each picture is closed when it has been read."""

    def read_frames(self, wanted: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """Decode the pictures with the given indices (ascending), each once.

        Yields:
            RGB pictures (H, W, 3), in order.

        Raises:
            VideoError: If one cannot be decoded, or has changed.
        """
        for number in wanted.tolist():
            with self._opened(self.files[number]) as image:
                picture = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
            if picture.shape[1::-1] != self.size:
                raise VideoError("internal", f"{self.name}: it changed while it was read; try again.")
            yield picture

    def _list(self) -> tuple[list[str], tuple[int, ...]]:
        allowed = min(MOST_FRAMES, self.limits.max_frames)
        names, num_bytes, newest = [], 0, 0
        try:
            folder = os.stat(self.path)
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if not is_jpeg(entry.name) or not entry.is_file():
                        continue
                    names.append(entry.name)
                    status = entry.stat()
                    num_bytes, newest = num_bytes + status.st_size, max(newest, status.st_mtime_ns)
                    if len(names) > allowed:
                        raise VideoError(
                            "too_long", f"{self.name}: it has more than {allowed:,} pictures; make a video of them."
                        )
        except OSError as error:
            raise VideoError("not_found", f"{self.name}: it cannot be read ({error.strerror}).") from None
        if not names:
            raise VideoError("not_a_video", f"{self.name}: it is a folder without JPEGs; give a clip.")
        if num_bytes > self.limits.max_bytes:
            size = f"{num_bytes:,} bytes are more than the {self.limits.max_bytes:,} allowed"
            raise VideoError("too_large", f"{self.name}: {size}; raise max_bytes.")
        status_of_all = (folder.st_dev, folder.st_ino, folder.st_mtime_ns, len(names), num_bytes, newest)
        return sorted(names, key=natural_order), status_of_all

    def _common_size(self) -> tuple[int, int]:
        first: tuple[int, int] | None = None
        for name in self.files:
            with self._opened(name) as image:
                width, height = image.size
                if width * height > self.limits.max_pixels:
                    raise self._too_many_pixels(name, width, height)
                if image.getexif().get(0x0112, 1) >= 5:  # stored on its side
                    width, height = height, width
            first = first or (width, height)
            if (width, height) != first:
                sizes = f"{self.files[0]} is {first[0]} x {first[1]} and {name} {width} x {height}"
                message = f"{self.name}: its pictures have different sizes ({sizes}); the frames of a clip have one."
                raise VideoError("not_a_video", message)
        assert first is not None
        return first

    def _gaps(self) -> tuple[str, ...]:
        """Return a note on numbers that are missing, as later frames are then shown too early."""
        numbers = [_NUMBER.findall(name.rpartition(".")[0]) for name in self.files]
        if not all(numbers):
            return ()
        last = [int(found[-1]) for found in numbers]
        missing = last[-1] - last[0] + 1 - len(last)
        if missing <= 0:
            return ()
        return (
            f"{missing} of the pictures' numbers from {last[0]} to {last[-1]} are missing; those after a gap count "
            f"as the next frames.",
        )

    @contextmanager
    def _opened(self, name: str) -> Iterator[Image.Image]:
        Image.MAX_IMAGE_PIXELS = None  # this project's own limit is checked
        path = os.path.join(self.path, name)
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise VideoError("not_a_video", f"{self.name}: {name} is not a regular file.")
                with Image.open(file, formats=["JPEG"]) as image:
                    yield image
        except FileNotFoundError:
            raise VideoError("internal", f"{self.name}: {name} vanished while it was read; try again.") from None
        except UnidentifiedImageError:
            raise VideoError("corrupt", f"{self.name}: {name} is not a JPEG, or damaged; get it again.") from None
        except (OSError, ValueError, SyntaxError):  # Pillow's errors for damage
            raise VideoError("corrupt", f"{self.name}: {name} is damaged or cut off; get it again.") from None

    def _too_many_pixels(self, name: str, width: int, height: int) -> VideoError:
        size = f"{name} is {width} x {height} but {self.limits.max_pixels:,} pixels are allowed"
        return VideoError("too_large", f"{self.name}: {size}; scale it down or raise max_pixels.")
