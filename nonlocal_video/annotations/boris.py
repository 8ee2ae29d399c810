"""Read and write the projects of BORIS (.boris), whose state events begin and end by turns."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nonlocal_video.annotations.documents import as_list, as_mapping, as_number, read_json, to_json
from nonlocal_video.annotations.options import ReadOptions, WriteOptions, base_name
from nonlocal_video.annotations.segment import (
    AnnotatedSegment,
    Annotations,
    Collector,
    by_video,
    counted,
    dropped_fields,
    listed,
    without_overlap,
)
from nonlocal_video.errors import UsageError

NO_SUBJECT = "No focal subject"
_SCORE = re.compile(r"^score (\d+(?:\.\d+)?)$")
_KEYS = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class Bout:
    """One occurrence of a behaviour, on the clock of its observation."""

    start: float
    end: float
    subject: str
    code: str
    comment: str = ""


def is_boris(document: Any) -> bool:
    """Whether JSON looks like a project of BORIS."""
    return isinstance(as_mapping(document).get("observations"), dict) and "behaviors_conf" in document


def read_boris(path: Path, options: ReadOptions) -> Annotations:
    """Read the observations of media files.

    The 1st, 3rd, ... event of a subject, behaviour and modifiers starts a state, the 2nd, 4th, ... stops it. Times
    are taken less the observation's offset, and run on over all files of the first player: each file before counts with
    its length, cut to milliseconds. A state that lasts over the end of a file becomes one in each.

    Raises:
        UsageError: It is no such project.
    """
    document = read_json(path)
    if not is_boris(document):
        raise UsageError(f"{str(path)!r} is not a project of BORIS: it has no observations or no behaviours.")
    states = {
        str(conf.get("code")): "state" in str(conf.get("type", "")).lower()
        for conf in map(as_mapping, as_mapping(document["behaviors_conf"]).values())
    }
    found = Collector()
    subjects: dict[str, None] = {}
    num_modified = 0
    for name, observation in document["observations"].items():
        if (reason := _unreadable(as_mapping(observation))) is not None:
            found.problems.append(f"observation {name!r}: {reason}")
            continue
        bouts, modified = _bouts(name, observation, states, found)
        num_modified += modified
        subjects |= dict.fromkeys(bout.subject for bout in bouts)
        wanted = [bout for bout in bouts if options.wants(bout.subject or NO_SUBJECT)]
        _add_bouts(name, observation, wanted, path.parent, options, found)
    found.notes += about_subjects(list(subjects), options)
    if num_modified:
        found.notes.append(f"The modifiers of {counted(num_modified, 'event')} were left out.")
    return found.result()


def write_boris(segments: Sequence[AnnotatedSegment], options: WriteOptions) -> tuple[str, list[str]]:
    """A project with an observation a video, and what is not in it.

    Points are point events. Segments of one label that overlap, which BORIS could not pair, are given to subjects
    `layer 2` and so on. A score is the comment of its event: `score 0.93`.
    """
    notes = dropped_fields(segments, "BORIS", "score")
    state_labels = {segment.label for segment in segments if not segment.is_point}
    code_of_point = {s.label: f"{s.label} (point)" if s.label in state_labels else s.label for s in segments}
    if both := sorted({s.label for s in segments if s.is_point} & state_labels):
        notes.append(
            f"{listed(both)}: in BORIS a behaviour is a state or a point; the points are called '... (point)'."
        )
    subjects: dict[str, None] = {}
    observations: dict[str, Any] = {}
    unknown = []
    now = datetime.now(UTC).isoformat(timespec="seconds").removesuffix("+00:00")
    for path, spans in by_video(segments).items():
        written = options.written_path(path)
        events: list[tuple[float, int, list[Any]]] = []
        for label in dict.fromkeys(span.label for span in spans):
            of_label = [span for span in spans if span.label == label]
            for number, layer in enumerate(without_overlap(s for s in of_label if not s.is_point), start=1):
                subject = "" if number == 1 else f"layer {number}"
                subjects |= {subject: None} if subject else {}
                for span in layer:
                    start = round(span.start_seconds, 3)
                    end = max(round(start + 0.001, 3), round(span.end_seconds, 3))
                    events.append((start, len(events), _event(start, subject, label, span.score)))
                    events.append((end, len(events), _event(end, subject, label, None)))
            for span in of_label:
                if span.is_point:
                    event = _event(round(span.start_seconds, 3), "", code_of_point[label], span.score)
                    events.append((event[0], len(events), event))
        info = options.videos.get(path)
        if info is None:
            unknown.append(base_name(written))
        length = info.end_seconds if info is not None else max(span.end_seconds for span in spans)
        name = base_name(written) if base_name(written) not in observations else written
        observations[name] = {
            "type": "MEDIA",
            "date": now,
            "description": "",
            "time offset": 0.0,
            "file": {str(player): [written] if player == 1 else [] for player in range(1, 9)},
            "media_info": {
                "length": {written: round(length, 3)},
                "fps": {} if info is None else {written: round(info.fps, 3)},
                "hasVideo": {written: True},
                "hasAudio": {written: False},
                "offset": {"1": 0.0},
            },
            "independent_variables": {},
            "events": [event for _, _, event in sorted(events, key=lambda one: one[:2])],
        }
    if unknown:
        notes.append(f"{listed(unknown)}: not found, so that its length is written as the end of its last segment.")
    codes = dict.fromkeys(
        (code_of_point[s.label], "Point event") if s.is_point else (s.label, "State event") for s in segments
    )
    return to_json(
        {
            "time_format": "hh:mm:ss",
            "project_date": now,
            "project_name": "nonlocal-video",
            "project_description": "",
            "project_format_version": "7.0",
            "subjects_conf": {
                str(number): {"key": "", "name": name, "description": ""} for number, name in enumerate(subjects)
            },
            "behaviors_conf": {str(number): _behaviour(number, *code) for number, code in enumerate(codes)},
            "observations": observations,
            "behavioral_categories": [],
            "independent_variables": {},
            "coding_map": {},
            "behaviors_coding_map": [],
            "converters": {},
        }
    ), notes


def paired(name: str, events: Sequence[tuple[float, str, tuple[str, str, str], str]], found: Collector) -> list[Bout]:
    """Pair the starts and stops of states and take points as they are.

    Args:
        name: Of the observation, for messages.
        events: Time; "START", "STOP" or "POINT"; subject, code and modifiers; comment. In order.
        found: Gets a problem for each start or stop without the other.
    """
    bouts: list[Bout] = []
    started: dict[tuple[str, str, str], tuple[float, str]] = {}
    for time, kind, key, comment in events:
        where = f"observation {name!r}: {key[1]!r} at {time:g} s"
        if kind == "POINT":
            bouts.append(Bout(time, time, key[0], key[1], comment))
        elif kind == "START":
            if key in started:
                found.problems.append(f"{where} starts again before it stops; the first start was left out.")
            started[key] = time, comment
        elif key in started:
            start, first_comment = started.pop(key)
            bouts.append(Bout(start, time, key[0], key[1], first_comment))
        else:
            found.problems.append(f"{where} stops without a start.")
    for key, (time, _) in started.items():
        found.problems.append(f"observation {name!r}: {key[1]!r} at {time:g} s never stops.")
    return sorted(bouts, key=lambda bout: (bout.start, bout.end))


def about_subjects(subjects: Sequence[str], options: ReadOptions) -> list[str]:
    """Say that subjects are not told apart, if there are several."""
    if len(subjects) < 2 or options.tiers:
        return []
    return [f"Subjects are not told apart: {listed([s or NO_SUBJECT for s in subjects])}. --tier takes some of them."]


def score_of(comment: str) -> float | None:
    """The score that a comment holds, if this project wrote it."""
    match = _SCORE.match(comment.strip())
    return float(match[1]) if match else None


def _unreadable(observation: Mapping[str, Any]) -> str | None:
    if observation.get("type", "MEDIA") != "MEDIA":
        return f"it is of type {observation.get('type')!r}; only observations of media files have a video's times."
    if observation.get("media_creation_date_as_offset"):
        return "its times count from the media's creation date; switch that off in BORIS and save the project again."
    if not as_list(as_mapping(observation.get("file")).get("1")):
        return "its first player has no media file."
    return None


def _bouts(
    name: str, observation: Mapping[str, Any], states: Mapping[str, bool], found: Collector
) -> tuple[list[Bout], int]:
    """The bouts of an observation, and how many events have modifiers."""
    offset = as_number(observation.get("time offset")) or 0.0
    rows: list[tuple[float, tuple[str, str, str], str]] = []
    for number, event in enumerate(map(as_list, as_list(observation.get("events")))):
        time = as_number(event[0]) if len(event) >= 3 else None
        code = str(event[2]) if len(event) >= 3 else ""
        if time is None or code not in states:
            found.problems.append(
                f"observation {name!r}, event {number}: {event!r} has no time, or a behaviour unknown here."
            )
            continue
        modifiers, comment = (str(event[i]) if len(event) > i else "" for i in (3, 4))
        rows.append((time - offset, (str(event[1]), code, modifiers), comment))
    rows.sort(key=lambda row: row[0])
    running: set[tuple[str, str, str]] = set()
    events = []
    for time, key, comment in rows:
        kind = "POINT" if not states[key[1]] else "STOP" if key in running else "START"
        if states[key[1]]:
            running ^= {key}
        events.append((time, kind, key, comment))
    return paired(name, events, found), sum(bool(key[2].replace("None", "").strip("|")) for _, key, _ in rows)


def _add_bouts(
    name: str,
    observation: Mapping[str, Any],
    bouts: Sequence[Bout],
    folder: Path,
    options: ReadOptions,
    found: Collector,
) -> None:
    """Put bouts into the files of the first player, one behind the other."""
    files = [str(file) for file in observation["file"]["1"]]
    lengths = as_mapping(as_mapping(observation.get("media_info")).get("length"))
    known = [as_number(lengths.get(file)) for file in files]
    if any(length is None for length in known[:-1]):
        found.problems.append(f"observation {name!r}: it has {len(files)} files, and not the length of each.")
        return
    starts = [0.0]
    for length in known[:-1]:
        assert length is not None
        starts.append(starts[-1] + math.floor(round(length * 1000, 6)) / 1000)
    videos = [options.video(folder, file) for file in files]
    ends = [*starts[1:], math.inf]
    for bout in bouts:
        for video, start, end in zip(videos, starts, ends, strict=True):
            is_here = start <= bout.start < end if bout.start == bout.end else bout.start < end and bout.end > start
            if not (is_here or (bout.end <= 0 and start == 0.0)):
                continue
            first = bout.start - start if start == 0.0 else max(bout.start - start, 0.0)
            last = min(bout.end, end) - start
            where = f"observation {name!r}: {bout.code!r} at {bout.start:g} s"
            found.add(where, video, round(first, 6), round(last, 6), bout.code, score=score_of(bout.comment))
            if bout.end > end and bout.start < end:
                found.notes.append(f"{where} lasts over the end of {os.path.basename(video)} and was divided there.")


def _event(time: float, subject: str, code: str, score: float | None) -> list[Any]:
    comment = "" if score is None else f"score {score:.6f}".rstrip("0").rstrip(".")
    return [time, subject, code, "", comment, "NA"]


def _behaviour(number: int, code: str, kind: str) -> dict[str, str]:
    return {
        "type": kind,
        "key": _KEYS[number] if number < len(_KEYS) else "",
        "code": code,
        "description": "",
        "color": "",
        "category": "",
        "modifiers": "",
        "excluded": "",
        "coding map": "",
    }
