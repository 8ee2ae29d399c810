"""Decoding processes for what is not a file: pictures that a browser sends, and a camera. Run in the child only."""

from __future__ import annotations

import io
import os
from typing import IO, Any

from nonlocal_video.errors import VideoError
from nonlocal_video.video import _wire
from nonlocal_video.video._confine import confine
from nonlocal_video.video._worker import begin, working
from nonlocal_video.video.limits import DecodeLimits

PICTURE_FORMATS = ("JPEG", "WEBP")
MAX_PICTURE_BYTES = 1 << 20


def serve_pictures(parent_pid: int, limits_json: str, _shared: int) -> None:
    """Serve pictures: after a request one message a picture, answered by its size and its pixels, or an error."""
    requests, replies, limits = begin(parent_pid, limits_json)
    confined = confine()
    replies.write(_wire.MAGIC)

    _wire.write_json(replies, _wire.DONE, {"confined": confined})
    while True:
        try:
            _, length = _wire.read_header(requests)
            count = _wire.read_json(requests, length)["count"]
            _wire.write_message(replies, _wire.TAKEN)
            for _ in range(count):
                payload = _read_picture(requests)
                with working(limits):
                    answer = _picture(payload, limits)
                if isinstance(answer, VideoError):
                    _wire.write_json(replies, _wire.ERROR, {"code": answer.code, "message": answer.message})
                    break  # the reader sends no more of this request
                _wire.write_json(replies, _wire.PLAN, {"height": answer.shape[0], "width": answer.shape[1]})
                _wire.write_message(replies, _wire.FRAME, answer.data.cast("B"))
        except (_wire.BrokenMessageError, BrokenPipeError):
            return


def _read_picture(requests: IO[bytes]) -> bytes:
    _, length = _wire.read_header(requests)
    if length > MAX_PICTURE_BYTES:
        raise _wire.BrokenMessageError("A picture of more bytes than allowed.")
    payload = bytearray(length)
    _wire.read_exactly(requests, memoryview(payload))
    return bytes(payload)


def _picture(payload: bytes, limits: DecodeLimits) -> Any:
    """Return the pixels (H, W, 3) of a picture, or why it cannot be read."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(payload), formats=PICTURE_FORMATS) as picture:
            if picture.width * picture.height > limits.max_pixels:  # read from the head, before any pixel
                size = f"{picture.width} x {picture.height}"
                return VideoError("too_large", f"A picture of {size} has more than {limits.max_pixels:,} pixels.")
            return np.ascontiguousarray(picture.convert("RGB"))
    except MemoryError:
        return VideoError("out_of_memory", "A picture needs more memory than is allowed.")
    except Exception:  # Pillow raises many kinds
        return VideoError("corrupt", f"A picture is not a whole {' or '.join(PICTURE_FORMATS)} file.")


def serve_camera(parent_pid: int, limits_json: str, _shared: int, address: str) -> None:
    """Send the frames of a camera, each as its time and its pixels, until the pipe is closed.

    Args:
        parent_pid: The parent.
        limits_json: The limits.
        _shared: Not used.
        address: FFmpeg's name of the input format, a colon, and the device.
    """
    _, replies, limits = begin(parent_pid, limits_json)
    replies.write(_wire.MAGIC)
    try:
        import av

        av.logging.restore_default_callback()
        av.logging.set_libav_level(av.logging.ERROR)
        kind, _, device = address.partition(":")
        # A device is opened for writing, too, which this process gives up next, before it decodes anything.
        container = av.open(device, format=kind)
    except Exception as error:
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
        message = f"it cannot be opened as a camera ({reason[:1].lower()}{reason[1:]})"
        _wire.write_json(replies, _wire.ERROR, {"code": "not_found", "message": message})
        return
    _wire.write_json(replies, _wire.DONE, {"confined": confine()})
    try:
        _send_frames(container, replies, limits)
    except (BrokenPipeError, _wire.BrokenMessageError):
        os._exit(0)


def _send_frames(container: Any, replies: IO[bytes], limits: DecodeLimits) -> None:
    import av
    import numpy as np

    try:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"  # threads would hold frames back
        for frame in container.decode(stream):
            if frame.width * frame.height > limits.max_pixels:
                raise VideoError("too_large", f"its frames are {frame.width} x {frame.height}")
            picture = np.ascontiguousarray(frame.to_ndarray(format="rgb24"))
            where = {"seconds": frame.time, "height": picture.shape[0], "width": picture.shape[1]}
            _wire.write_json(replies, _wire.PLAN, where)
            _wire.write_message(replies, _wire.FRAME, picture.data.cast("B"))
        error = VideoError("corrupt", "it gives no more pictures")
    except VideoError as raised:
        error = raised
    except MemoryError:
        error = VideoError("out_of_memory", "its pictures need more memory than is allowed")
    except (av.FFmpegError, IndexError) as raised:
        error = VideoError("corrupt", f"it stopped ({raised})")
    _wire.write_json(replies, _wire.ERROR, {"code": error.code, "message": error.message})
