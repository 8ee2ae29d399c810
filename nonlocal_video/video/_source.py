"""Opening of a file with PyAV, or a one-sentence reason why it cannot be opened. Runs in the decoding process only."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from nonlocal_video.errors import VideoError
from nonlocal_video.video._messages import printable_name
from nonlocal_video.video._streams import StreamChoice, choose_stream
from nonlocal_video.video.limits import DecodeLimits

DECODER_THREADS = 2
"""Number of threads of one decoder. Large machines use more workers instead; decord is only exact up to two threads."""

# Tags in any encoding must not keep a file from opening; PyAV 19 ensures it by itself.
_ANY_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}

_STDERR = 2
_MAX_PRINTED_BYTES = 1 << 16

# Formats that open further files or addresses named inside the file (a "video" could make us read or download
# anything), and text shown as ANSI art.
_REFUSED_FORMATS = {
    "applehttp", "avisynth", "bluray", "concat", "concatf", "dash", "ffmetadata", "hls", "image2", "image2pipe", "imf",
    "lavfi", "rtp", "rtsp", "sap", "sdp", "tty", "vapoursynth", "webm_dash_manifest",
}  # fmt: skip
_FORMAT_WHITELIST = ",".join(sorted(av.formats_available - _REFUSED_FORMATS))

_LISTS = (".csv", ".eaf", ".boris", ".json")  # of clips or segments, which other verbs take
# First bytes (offset, text) of video files, by which a file that FFmpeg refuses is damaged and not of another kind.
_SIGNATURES = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (0, b"\x1aE\xdf\xa3"), (8, b"AVI "), (0, b"FLV\x01"),
    (0, b"OggS"), (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), (0, b"\x00\x00\x01\xba"), (0, b"GIF8"),
)  # fmt: skip


def map_error(error: av.FFmpegError, name: str, doing: str) -> VideoError:
    """Translate an FFmpeg error that is not about damaged data; any other is damage."""
    if isinstance(error, MemoryError) or error.errno == errno.ENOMEM:
        return VideoError("out_of_memory", f"{name}: memory ran out while {doing}; allow the decoder more memory.")
    if isinstance(error, (av.error.DecoderNotFoundError, av.error.PatchWelcomeError)):
        return VideoError("unsupported_codec", f"{name}: no decoder here can read it; convert it to H.264 in MP4.")
    return VideoError("corrupt", f"{name}: it is damaged ({doing} failed); get the file again or re-encode it.")


_CAMERA = re.compile(r"/dev/video\d+", re.ASCII)
_WATCH = "`nonlocal-video watch` takes cameras; or record a clip."


class Source:
    """A regular file, open for reading, that FFmpeg can read several times in a row."""

    def __init__(self, path: str, limits: DecodeLimits) -> None:
        self.path = path
        self.name = printable_name(path)
        self.limits = limits
        self.stream_choice: StreamChoice | None = None  # set when the file is opened for the first time
        self._fd = self._open()
        self.status = os.fstat(self._fd)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _open(self) -> int:
        # Without O_NONBLOCK, opening a FIFO waits for a writer, possibly forever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            return os.open(self.path, flags)
        except FileNotFoundError:
            raise self._missing() from None
        except IsADirectoryError:
            raise self._not_a_file() from None
        except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
            if getattr(error, "errno", None) in (errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP):
                raise self._not_a_file() from None
            why = getattr(error, "strerror", None) or "the path is not a valid one"
            message = f"{self.name}: it cannot be opened ({why.lower()}); check the path and its permissions."
            raise VideoError("not_found", message) from None

    def _missing(self) -> VideoError:
        if self.name == "-":
            words = "standard input is not read; save the clip to a file and give its path."
        elif _CAMERA.fullmatch(self.path):
            words = f"there is no such camera; {_WATCH}"
        else:
            words = "there is no such file; check the path."
        return VideoError("not_found", f"{self.name}: {words}")

    def _not_a_file(self) -> VideoError:
        if _CAMERA.fullmatch(self.path):
            return VideoError("not_a_video", f"{self.name}: it is a camera, not a file; {_WATCH}")
        return VideoError("not_a_video", f"{self.name}: it is not a regular file; give the path of a video file.")

    def _check(self) -> None:
        if not stat.S_ISREG(self.status.st_mode):
            raise self._not_a_file()
        if self.status.st_size == 0:
            raise VideoError("not_a_video", f"{self.name}: it is empty; give a video file.")
        if self.status.st_size > self.limits.max_bytes:
            size = f"{self.status.st_size:,} bytes are more than the {self.limits.max_bytes:,} allowed"
            raise VideoError("too_large", f"{self.name}: {size}; cut it into parts or raise max_bytes.")

    @property
    def identity(self) -> tuple[int, int, int, int]:
        """Identity of the file's contents, which changes with them."""
        return self.status.st_dev, self.status.st_ino, self.status.st_size, self.status.st_mtime_ns

    def read_at(self, position: int, length: int) -> bytes:
        """Return up to `length` bytes of the file, independent of other readers."""
        if hasattr(os, "pread"):
            return os.pread(self._fd, length, position)
        os.lseek(self._fd, position, os.SEEK_SET)  # FFmpeg has its own descriptor there, see `opened`
        return os.read(self._fd, length)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    @contextmanager
    def opened(self, **extra_options: str) -> Iterator[tuple[InputContainer, VideoStream]]:
        """Open the file's container at its beginning, and its video stream (pixel limit set, two threads)."""
        container = self._open_container(extra_options)
        if self.stream_choice is None:
            try:
                self.stream_choice = self._choose_stream(container)
            except BaseException:
                container.close()
                raise
            if self.stream_choice.has_read_packets:
                container.close()
                container = self._open_container(extra_options)
        with container:
            stream = self._video_stream(container, self.stream_choice)
            # A photo is large and, above all, not a video; the decoder has the limit as well.
            is_photo = container.format.name.endswith("_pipe")
            pixels = stream.codec_context.width * stream.codec_context.height
            if pixels > self.limits.max_pixels and not is_photo:
                raise self.too_many_pixels(stream.codec_context.width, stream.codec_context.height)
            decoder_options = {"max_pixels": str(self.limits.max_pixels)}
            if stream.codec_context.codec.canonical_name == "hevc":
                # The other decoders mark a picture in which they met an error; this one does not unless told.
                decoder_options["err_detect"] = "explode"
            stream.codec_context.options = decoder_options
            stream.thread_type = "AUTO"
            stream.thread_count = DECODER_THREADS
            yield container, stream

    def too_many_pixels(self, width: int, height: int) -> VideoError:
        """Return the error for frames above the pixel limit."""
        size = f"its frames are {width} x {height} but {self.limits.max_pixels:,} pixels are allowed"
        return VideoError("too_large", f"{self.name}: {size}; scale it down or raise max_pixels.")

    def undecodable(self) -> VideoError:
        """Return the error for a decoder that yields no frame.

        FFmpeg replaces sizes beyond its arithmetic by 0 x 0 and names them only in its log, our standard error.
        """
        printed = os.pread(_STDERR, _MAX_PRINTED_BYTES, 0) if hasattr(os, "pread") else b""
        size = re.search(rb"Picture size (\d+)x(\d+) is invalid", printed)
        if size:
            return self.too_many_pixels(int(size[1]), int(size[2]))
        message = f"{self.name}: none of its frames can be decoded; get the file again or re-encode it."
        return VideoError("corrupt", message)

    def duplicate_descriptor(self) -> int:
        """Return a descriptor of the file, at its beginning, that the caller closes."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        return os.dup(self._fd)

    def _open_container(self, extra_options: dict[str, str]) -> InputContainer:
        os.lseek(self._fd, 0, os.SEEK_SET)
        options = {"format_whitelist": _FORMAT_WHITELIST, **extra_options}
        file: Any
        if os.name == "nt":  # FFmpeg's C library does not know descriptors of Python's
            file = "file:" + self.path
            options["protocol_whitelist"] = "file"
        else:  # the same file that was checked, whatever its path now refers to
            file = "fd:"
            options.update(fd=str(self._fd), protocol_whitelist="fd")
        try:
            return av.open(file, options=options, **_ANY_TAGS)
        except av.FFmpegError as error:
            raise self._open_error(error) from None

    def _choose_stream(self, container: InputContainer) -> StreamChoice:
        choice = choose_stream(container)
        if choice is None:
            if not container.streams:
                message = f"{self.name}: it is damaged (no stream can be read); get the file again."
                raise VideoError("corrupt", message)
            raise VideoError("no_video_stream", f"{self.name}: it has no video stream; give a file with pictures.")
        return choice

    def _video_stream(self, container: InputContainer, choice: StreamChoice) -> VideoStream:
        stream = next((s for s in container.streams.video if s.index == choice.index), None)
        if stream is None:
            raise VideoError("internal", f"{self.name}: it changed while it was read; try again.")
        if stream.codec_context is None and container.format.name.endswith("_pipe"):
            kind = container.format.name.removesuffix("_pipe").upper()
            raise VideoError("not_a_video", f"{self.name}: it is a still picture ({kind}); give a video file.")
        if stream.codec_context is None:
            message = f"{self.name}: its video codec has no decoder here; convert it to H.264 in MP4."
            raise VideoError("unsupported_codec", message)
        return stream

    def _open_error(self, error: av.FFmpegError) -> VideoError:
        if isinstance(error, (MemoryError, av.error.DecoderNotFoundError, av.error.PatchWelcomeError)):
            return map_error(error, self.name, "opening it")
        head = os.pread(self._fd, 16, 0) if hasattr(os, "pread") else b""
        if any(head[offset:].startswith(text) for offset, text in _SIGNATURES):
            message = f"{self.name}: it is damaged or cut off (its index cannot be read); get the file again."
            return VideoError("corrupt", message)
        what_to_do = "give a video."
        if self.name.lower().endswith(_LISTS):
            what_to_do = "give a video. Lists of clips are for check, teach, train and evaluate."
        return VideoError("not_a_video", f"{self.name}: it is not a video file of a known format; {what_to_do}")
