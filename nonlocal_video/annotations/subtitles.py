"""WebVTT (W3C) and SubRip subtitles: a cue is a segment, its text the label."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from nonlocal_video.annotations.documents import read_text
from nonlocal_video.annotations.options import VIDEO_SUFFIXES, ReadOptions, WriteOptions
from nonlocal_video.annotations.segment import (
    AnnotatedSegment,
    Annotations,
    Collector,
    by_video,
    counted,
    dropped_fields,
    only_spans,
)
from nonlocal_video.errors import UsageError

_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?$")
_ARROW = "-->"
_SCORE = re.compile(r"^(.*\S)\s+(\d{1,3})%$", re.DOTALL)
_TAGS = re.compile(r"<[^<>]*>")
_SRT_TAGS = re.compile(r"</?(?:b|i|u|s|font)\b[^<>]*>|\{\\[^{}]*\}", re.IGNORECASE)
_VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_LEAST_SECONDS = 0.0005


def read_vtt(path: Path, options: ReadOptions) -> Annotations:
    """Read WebVTT; notes, styles, regions, cue settings and tags inside of cues are no labels.

    Raises:
        UsageError: It does not begin like WebVTT, or its video is not known.
    """
    lines = read_text(path).split("\n")
    if not re.match(r"WEBVTT(?:[ \t]|$)", lines[0]):
        raise UsageError(f"{str(path)!r} does not begin with WEBVTT, as WebVTT does; is it SRT?")
    found = Collector()
    head = next((i for i, line in enumerate(lines) if not line.strip()), len(lines))
    if any(line.startswith("X-TIMESTAMP-MAP") for line in lines[:head]):
        found.notes.append("X-TIMESTAMP-MAP was not applied: seconds count from the cues' own 0.")
    for number, timing, payload in _cues(lines, head):
        text = html.unescape(_TAGS.sub("", payload)).replace("\xa0", " ")
        _add(found, number, timing, text, _video(path, options))
    return _result(found)


def read_srt(path: Path, options: ReadOptions) -> Annotations:
    """Read SubRip subtitles.

    Raises:
        UsageError: Their video is not known.
    """
    found = Collector()
    for number, timing, payload in _cues(read_text(path).split("\n"), 0):
        _add(found, number, timing, _SRT_TAGS.sub("", payload), _video(path, options))
    return _result(found)


def write_vtt(segments: Sequence[AnnotatedSegment], options: WriteOptions) -> tuple[str, list[str]]:
    """WebVTT of one video, with the score in percent behind the label, and what is not in it.

    Raises:
        UsageError: The segments are of several videos.
    """
    cues, notes = _to_write(segments, "WebVTT")
    blocks = [
        f"{clock(cue.start_seconds)} {_ARROW} {clock(cue.end_seconds)}\n{_text(cue).translate(_VTT_ESCAPES)}\n"
        for cue in cues
    ]
    return "\n".join(["WEBVTT\n", *blocks]), notes


def write_srt(segments: Sequence[AnnotatedSegment], options: WriteOptions) -> tuple[str, list[str]]:
    """SubRip subtitles of one video, as `write_vtt`."""
    cues, notes = _to_write(segments, "SRT")
    if any(_ARROW in cue.label for cue in cues):
        notes.append("SRT has no way to write --> in a label: -> was written.")
    blocks = [
        f"{number}\n{clock(cue.start_seconds, ',')} {_ARROW} {clock(cue.end_seconds, ',')}\n"
        f"{_text(cue).replace(_ARROW, '->')}\n"
        for number, cue in enumerate(cues, start=1)
    ]
    return "\n".join(blocks), notes


def clock(seconds: float, mark: str = ".") -> str:
    """Hours, minutes, seconds and milliseconds: 3723.5 -> 01:02:03.500."""
    milliseconds = math.floor(seconds * 1000 + 0.5)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def _cues(lines: Sequence[str], first: int) -> Iterator[tuple[int, str, str]]:
    """Line number, timing and text of each cue; one may follow another without an empty line between."""
    i = first
    while i < len(lines):
        line = lines[i]
        if re.match(r"(?:NOTE|STYLE|REGION)(?:\s|$)", line) and (i == 0 or not lines[i - 1].strip()):
            while i < len(lines) and lines[i].strip():
                i += 1
            continue
        i += 1
        if _ARROW not in line:
            continue
        number, text = i, []
        while i < len(lines) and lines[i].strip() and _ARROW not in lines[i]:
            text.append(lines[i].strip())
            i += 1
        if i < len(lines) and _ARROW in lines[i] and text and text[-1].isdecimal():
            text.pop()  # the number of the next cue
        yield number, line, " ".join(text)


def _add(found: Collector, number: int, timing: str, text: str, video: str) -> None:
    where = f"line {number}"
    match = _TIMING.match(timing)
    times = [_seconds(match.groups()[:4]), _seconds(match.groups()[4:])] if match else [None]
    if None in times:
        found.problems.append(f"{where}: {timing.strip()!r} should be like 00:00:01.200 --> 00:00:03.400.")
        return
    start, end = (time for time in times if time is not None)
    scored = _SCORE.match(text.strip())
    if scored and int(scored[2]) <= 100:
        found.add(where, video, start, end, scored[1], score=int(scored[2]) / 100)
    else:
        found.add(where, video, start, end, text)


def _seconds(parts: Sequence[str | None]) -> float | None:
    hours, minutes, seconds = (int(part or 0) for part in parts[:3])
    if minutes > 59 or seconds > 59:
        return None
    return hours * 3600 + minutes * 60 + seconds + int((parts[3] or "0").ljust(3, "0")) / 1000


def _result(found: Collector) -> Annotations:
    if num_scored := sum(segment.score is not None for segment in found.segments):
        found.notes.append(f"The percentage at the end of {counted(num_scored, 'cue')} was read as the score.")
    return found.result()


def _video(path: Path, options: ReadOptions) -> str:
    """The video that subtitles belong to: the one that is named, else the file beside them that has their name."""
    if options.media is not None:
        return options.media
    folder = Path(options.media_folder) if options.media_folder is not None else path.parent
    for suffix in VIDEO_SUFFIXES:
        for stem in (path.stem, path.stem.rpartition(".")[0]):  # a.vtt and a.en.vtt
            for name in (f"{stem}{suffix}", f"{stem}{suffix.upper()}"):
                if stem and (folder / name).is_file():
                    return str(folder / name)
    raise UsageError(
        f"{str(path)!r} does not name its video, and {str(folder)!r} has none called {path.stem}.mp4 or the like. Name "
        f"it with --media."
    )


def _to_write(segments: Sequence[AnnotatedSegment], name: str) -> tuple[list[AnnotatedSegment], list[str]]:
    videos = by_video(segments)
    if len(videos) > 1:
        raise UsageError(f"{name} is of one video, and these segments are of {len(videos)}; choose one with --video.")
    kept, notes = only_spans(next(iter(videos.values()), []), name, least_seconds=_LEAST_SECONDS)
    if any(segment.score is not None for segment in kept):
        notes.append(f"{name} has scores in whole percent, behind the label.")
    return kept, [*notes, *dropped_fields(kept, name, "score")]


def _text(cue: AnnotatedSegment) -> str:
    label = " ".join(cue.label.split())
    return label if cue.score is None else f"{label} {cue.score:.0%}"
