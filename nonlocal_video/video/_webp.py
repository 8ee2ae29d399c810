"""Reading of animated WebP with Pillow; FFmpeg (up to 8) only reads stills. Runs in the decoding process only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import VideoError
from nonlocal_video.video._source import Source

MILLISECONDS = 1000  # per second: WebP's unit of time
_RIFF_BYTES, _CHUNK_BYTES, _FRAME_HEADER_BYTES = 12, 8, 16
_VP8X_BYTES = 10
_ANIMATED = 0x02
_SHORTEST_MS = 10
"""Durations up to this stand for "no duration" and are shown for a tenth of a second, as in browsers."""
_SHOWN_INSTEAD_MS = 100


@dataclass(frozen=True)
class WebpAnimation:
    """Contents of a file's chunks (RFC 9649)."""

    width: int
    """Width of the canvas."""
    height: int
    """Height of the canvas."""
    durations_ms: tuple[int, ...]
    """Duration of each frame, as browsers show it."""


def is_webp(source: Source) -> bool:
    """Return whether a file begins as WebP."""
    head = source.read_at(0, _RIFF_BYTES)
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


def read_animation(source: Source) -> WebpAnimation:
    """Parse the chunks of a WebP file without decoding a picture.

    Raises:
        VideoError: If it is a still, is cut off or exceeds a limit, or Pillow cannot read WebP here.
    """
    size = _RIFF_BYTES - 4 + int.from_bytes(source.read_at(4, 4), "little")
    position = _RIFF_BYTES
    canvas: tuple[int, int] | None = None
    durations = []
    while position + _CHUNK_BYTES <= size:
        head = source.read_at(position, _CHUNK_BYTES + _FRAME_HEADER_BYTES)
        kind, length, body = head[:4], int.from_bytes(head[4:8], "little"), head[8:]
        position += _CHUNK_BYTES + length + length % 2
        end = position - length % 2  # some writers omit the last padding
        if len(head) < _CHUNK_BYTES or end > source.status.st_size or (kind == b"VP8X" and len(body) < _VP8X_BYTES):
            raise _damaged(source)
        if kind == b"VP8X" and body[0] & _ANIMATED:
            canvas = 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
        elif kind == b"ANMF":
            duration = int.from_bytes(body[12:15], "little")
            durations.append(duration if duration > _SHORTEST_MS else _SHOWN_INSTEAD_MS)
            if len(durations) > source.limits.max_frames:
                message = f"{source.name}: it has more than {source.limits.max_frames:,} frames"
                raise VideoError("too_long", f"{message}; cut it into parts or raise max_frames.")
    if canvas is None:
        raise VideoError("not_a_video", f"{source.name}: it is a still picture (WEBP); give a video file.")
    if not durations:
        raise _damaged(source)
    if canvas[0] * canvas[1] > source.limits.max_pixels:
        raise source.too_many_pixels(*canvas)
    _check_pillow(source)
    return WebpAnimation(*canvas, tuple(durations))


def read_frames(source: Source, animation: WebpAnimation, wanted: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """Decode the frames with the given indices (ascending), each once, on white where they are transparent.

    Yields:
        RGB pictures (H, W, 3), in order.

    Raises:
        VideoError: If a frame cannot be decoded.
    """
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # this project's own limit was checked
    with open(source.duplicate_descriptor(), "rb") as file:
        try:
            with Image.open(file, formats=["WEBP"]) as image:
                if image.size != (animation.width, animation.height):
                    raise _damaged(source)
                for number in wanted.tolist():
                    image.seek(number)
                    picture = image.convert("RGBA")
                    white = Image.new("RGBA", picture.size, "white")
                    yield np.asarray(Image.alpha_composite(white, picture).convert("RGB"))
        except (OSError, EOFError, ValueError, SyntaxError):  # Pillow's errors for damage
            raise _damaged(source) from None


def _check_pillow(source: Source) -> None:
    try:
        from PIL import features

        if features.check("webp"):
            return
    except ImportError:
        pass
    message = f"{source.name}: animated WebP cannot be read here (Pillow lacks it)"
    raise VideoError("unsupported_codec", f"{message}; convert it to H.264 in MP4, or install Pillow with WebP.")


def _damaged(source: Source) -> VideoError:
    return VideoError("corrupt", f"{source.name}: it is a damaged or cut off animation; get the file again.")
