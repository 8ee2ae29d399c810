"""ActivityNet's JSON: the ground truth's `database` and the `results` of a detector."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nonlocal_video.annotations.documents import as_list, as_mapping, as_number, read_json, to_json
from nonlocal_video.annotations.options import VIDEO_SUFFIXES, ReadOptions, WriteOptions, base_name
from nonlocal_video.annotations.segment import (
    AnnotatedSegment,
    Annotations,
    Collector,
    by_video,
    counted,
    dropped_fields,
    listed,
    only_spans,
)
from nonlocal_video.errors import UsageError

_VERSION = "VERSION 1.3"
_SPLITS = {"training": "train", "validation": "validation", "testing": "test", "val": "validation"}
_SUBSETS = {"train": "training", "validation": "validation", "val": "validation", "test": "testing"}
_SAME_SECONDS = 1e-3


def is_activitynet(document: Any) -> bool:
    """Whether JSON looks like this format."""
    content = as_mapping(document)
    return isinstance(content.get("database"), dict) or isinstance(content.get("results"), dict)


def read_activitynet(path: Path, options: ReadOptions) -> Annotations:
    """Read a ground truth or results; a key is the name of a video without its ending, on disk often with `v_` before.

    Raises:
        UsageError: It is neither of the two.
    """
    document = read_json(path)
    if not is_activitynet(document):
        raise UsageError(f"{str(path)!r} has neither a database nor results, as ActivityNet's JSON has.")
    found = Collector()
    beyond: list[str] = []
    missing: list[str] = []
    videos = document.get("database") if isinstance(document.get("database"), dict) else document["results"]
    for key, entry in videos.items():
        annotations = as_list(entry) or as_list(as_mapping(entry).get("annotations"))
        subset = as_mapping(entry).get("subset")
        duration = as_number(as_mapping(entry).get("duration"))
        video = _video(key, path.parent, options)
        if not os.path.isfile(video):
            missing.append(key)
        for number, annotation in enumerate(map(as_mapping, annotations)):
            where = f"{key}, annotation {number}"
            times = [as_number(time) for time in as_list(annotation.get("segment"))]
            if len(times) != 2 or times[0] is None or times[1] is None:
                found.problems.append(f"{where}: segment = {annotation.get('segment')!r} should be [start, end].")
                continue
            if duration is not None and times[1] > duration + _SAME_SECONDS:
                beyond.append(where)
            found.add(
                where,
                video,
                times[0],
                times[1],
                str(annotation.get("label", "")),
                split=_SPLITS.get(str(subset), str(subset)) if subset else None,
                score=as_number(annotation.get("score")),
            )
    found.segments, num_doubles = _without_doubles(found.segments)
    if num_doubles:
        found.notes.append(
            f"Taken once: {counted(num_doubles, 'segment')} that the file repeats (same label, same times)."
        )
    if beyond:
        found.notes.append(f"{listed(beyond)}: these end after the video's duration.")
    if missing:
        found.notes.append(f"{listed(missing)}: no such video was found; --media-folder names the folder of videos.")
    return found.result()


def write_activitynet(segments: Sequence[AnnotatedSegment], options: WriteOptions) -> tuple[str, list[str]]:
    """Results if a segment has a score, else a ground truth; and what is not in it.

    Raises:
        UsageError: Two videos have one name.
    """
    kept, notes = only_spans(segments, "ActivityNet's JSON", least_seconds=_SAME_SECONDS)
    is_scored = any(segment.score is not None for segment in kept)
    notes += dropped_fields(kept, "ActivityNet's JSON", *(("score",) if is_scored else ("split",)))
    entries: dict[str, Any] = {}
    path_of: dict[str, str] = {}
    for path, spans in by_video(kept).items():
        key = os.path.splitext(base_name(options.written_path(path)))[0].removeprefix("v_")
        if key in path_of:
            raise UsageError(f"{path_of[key]!r} and {path!r} are both {key!r} in ActivityNet's JSON; rename one.")
        path_of[key] = path
        annotations = [
            {"label": span.label, "segment": [round(span.start_seconds, 3), round(span.end_seconds, 3)]}
            | ({"score": span.score if span.score is not None else 1.0} if is_scored else {})
            for span in spans
        ]
        if is_scored:
            entries[key] = annotations
            continue
        entry: dict[str, Any] = {"annotations": annotations}
        if (info := options.videos.get(path)) is not None:
            entry |= {"duration": round(info.end_seconds, 3), "resolution": f"{info.width}x{info.height}"}
        if (split := spans[0].split) is not None:
            entry["subset"] = _SUBSETS.get(split, split)
        entries[key] = entry
    if is_scored:
        if num_without := sum(segment.score is None for segment in kept):
            notes.append(f"Results need scores: {counted(num_without, 'segment')} without one got the score 1.")
        return to_json({"version": _VERSION, "results": entries, "external_data": {}}), notes
    if without := [key for key, entry in entries.items() if "duration" not in entry]:
        notes.append(f"{listed(without)}: written without a duration, as the video was not found.")
    return to_json({"version": _VERSION, "taxonomy": [], "database": entries}), notes


def _video(key: str, folder: Path, options: ReadOptions) -> str:
    if options.media is not None:
        return options.video(folder, key)
    inside = options.media_folder if options.media_folder is not None else str(folder)
    for stem in (f"v_{key}", key):
        for suffix in VIDEO_SUFFIXES:
            for name in (stem + suffix, stem + suffix.upper()):
                if os.path.isfile(path := os.path.join(inside, name)):
                    return path
    return os.path.join(inside, key)


def _without_doubles(segments: Sequence[AnnotatedSegment]) -> tuple[list[AnnotatedSegment], int]:
    kept: list[AnnotatedSegment] = []
    same: dict[tuple[str, str], list[AnnotatedSegment]] = {}
    for segment in segments:
        others = same.setdefault((segment.path, segment.label), [])
        is_double = segment.score is None and any(
            abs(segment.start_seconds - other.start_seconds) <= _SAME_SECONDS
            and abs(segment.end_seconds - other.end_seconds) <= _SAME_SECONDS
            for other in others
        )
        if not is_double:
            others.append(segment)
            kept.append(segment)
    return kept, len(segments) - len(kept)
