"""Options of annotation readers and writers: facts that the file does not state."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Literal, get_args
from urllib.parse import parse_qs, unquote, urlsplit

from nonlocal_video.errors import UsageError
from nonlocal_video.video.info import VideoInfo

LabelsFrom = Literal["value", "tier", "both"]
VIDEO_SUFFIXES = (
    ".mp4",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".mts",
    ".ts",
    ".wmv",
    ".flv",
    ".gif",
)
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
"""Prefix that Label Studio puts before the names of files that are uploaded to it."""


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading an annotation file; see `read_annotations`."""

    media: str | None = None
    media_folder: str | None = None
    tiers: tuple[str, ...] = ()
    labels_from: LabelsFrom = "value"
    frames_per_second: float | None = None
    frame_times: Callable[[str], Sequence[float]] | None = None
    """Function from a video to the times of its frames, and of the last one's end; for numbers of such frames."""

    _named: set[str] = field(default_factory=set, compare=False)

    def __post_init__(self) -> None:
        check_rate(self.frames_per_second)
        if self.labels_from not in get_args(LabelsFrom):
            raise UsageError(f"labels-from = {self.labels_from!r} should be one of {', '.join(get_args(LabelsFrom))}.")
        if self.media is not None and self.media_folder is not None:
            raise UsageError("media names the video, media-folder the folder of videos: give one of the two.")

    def video(self, folder: Path, *names: str) -> str:
        """The path of a video that an annotation file calls by one of these names, the best first.

        Args:
            folder: The annotation file's.
            names: Paths, which count from that folder, file:// and other addresses, or names of Label Studio.
        """
        if self.media is not None:
            self._named.add(next(filter(None, names), ""))
            if len(self._named) > 1:
                videos = ", ".join(sorted(self._named))
                raise UsageError(f"media = {self.media!r} is one video, and the file speaks of several: {videos}.")
            return self.media
        candidates = [_candidate(name) for name in names if name]
        if not candidates:
            raise UsageError("The file does not name its video; name it with --media.")
        if self.media_folder is not None:
            inside = [os.path.join(self.media_folder, base) for name in candidates for base in _base_names(name)]
            return _plain(_first_file(inside) or inside[0])
        local = [name for name in candidates if not is_remote(name)]
        paths = [os.path.join(folder, name) for name in local]  # an absolute name stays what it is
        beside = [os.path.join(folder, base) for name in local for base in _base_names(name)]
        if (found := _first_file([*paths, *beside])) is not None:
            return _plain(found)
        return candidates[0] if is_remote(candidates[0]) else _plain(paths[0])

    def wants(self, tier: str) -> bool:
        """Whether a tier (ELAN), a control (Label Studio) or a subject (BORIS) is to be read."""
        return not self.tiers or tier in self.tiers

    def label(self, tier: str, value: str) -> str:
        """The label of an annotation with this value on this tier."""
        if self.labels_from == "value":
            return value
        return tier if self.labels_from == "tier" or not value.strip() else f"{tier}: {value.strip()}"


@dataclass(frozen=True)
class WriteOptions:
    """Options for writing annotations; see `write_annotations`."""

    folder: Path
    """Folder of the file that is written; relative paths count from it."""
    videos: Mapping[str, VideoInfo] = field(default_factory=dict)
    frames_per_second: float | None = None
    url_prefix: str | None = None

    def __post_init__(self) -> None:
        check_rate(self.frames_per_second)

    def written_path(self, path: str) -> str:
        """A video's path as it stands in the written file.

        Raises:
            UsageError: Its name is not text.
        """
        shown = path if is_remote(path) or os.path.isabs(path) else os.path.relpath(path, self.folder)
        try:
            shown.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{os.fsencode(path)!r} has bytes that are not UTF-8 text. Rename the video.") from None
        return shown


def check_rate(frames_per_second: float | None) -> None:
    """Refuse what is no frame rate."""
    if frames_per_second is not None and not (math.isfinite(frames_per_second) and 0 < frames_per_second <= 100_000):
        raise UsageError(f"frames-per-second = {frames_per_second:g} should be above 0, and at most 100000.")


def is_remote(path: str) -> bool:
    """Whether a path is an address rather than a file of this machine."""
    return "://" in path and not path.startswith("file:")


def base_name(path: str) -> str:
    """The last part of a path of this or another system."""
    return PureWindowsPath(path).name if "\\" in path else path.rstrip("/").rpartition("/")[2]


def _candidate(name: str) -> str:
    """A name of an annotation file as a path: addresses of files and of Label Studio's storage become paths."""
    if name.startswith("file:"):
        path = unquote(name[5:])
        if re.match(r"/+\.\.?/", path):  # as old versions of ELAN write relative paths
            return path.lstrip("/")
        path = "/" + path.lstrip("/") if path.startswith("/") else path
        return path[1:] if re.match(r"/[A-Za-z]:[/\\]", path) else path
    address = urlsplit(name) if name.startswith("/data/") else None
    if address is not None and (storage := parse_qs(address.query).get("d")):
        return storage[0].lstrip("/")
    return name


def _base_names(name: str) -> list[str]:
    base = base_name(unquote(urlsplit(name).path) if is_remote(name) else name)
    return [base, *([_UPLOAD_PREFIX.sub("", base)] if _UPLOAD_PREFIX.match(base) else [])]


def _plain(path: str) -> str:
    """The path without `./` and `x/..`, unless that leads elsewhere, as behind a link; so a video has one name."""
    plain = os.path.normpath(path)
    return plain if not os.path.exists(path) or (os.path.exists(plain) and os.path.samefile(path, plain)) else path


def _first_file(paths: Sequence[str]) -> str | None:
    return next((path for path in paths if os.path.isfile(path)), None)
