"""Read the tables that BORIS exports as CSV or TSV: a row a bout (aggregated), or a row a start, stop or point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nonlocal_video.annotations.boris import NO_SUBJECT, Bout, about_subjects, paired, score_of
from nonlocal_video.annotations.documents import as_number
from nonlocal_video.annotations.options import ReadOptions
from nonlocal_video.annotations.segment import Annotations, Collector, counted
from nonlocal_video.annotations.segments_csv import read_table
from nonlocal_video.errors import UsageError

_MEDIA_COLUMNS = ("media file name", "media file path", "media file")
_TIME_COLUMNS = ("start (s)", "time")


def is_boris_table(rows: Sequence[tuple[int, list[str]]]) -> bool:
    """Whether one of the first lines is the header of such a table; older ones have others before it."""
    return _header(rows) is not None


def read_boris_table(path: Path, options: ReadOptions) -> Annotations:
    """Read a table by the names of its columns, among which there may be others.

    Times are taken less the column `Time offset (s)`. An observation of several media files has one clock for all of
    them, from which the table does not tell where each begins: read the project instead.

    Raises:
        UsageError: It has no such columns.
    """
    rows = read_table(path)
    header = _header(rows)
    if header is None:
        raise UsageError(f"{str(path)!r} has no line with the columns Behavior and Time or Start (s), as BORIS writes.")
    columns = [name.casefold() for name in rows[header][1]]
    medium = next((name for name in _MEDIA_COLUMNS if name in columns), None)
    if medium is None and options.media is None:
        raise UsageError(f"{str(path)!r} does not name its video; name it with --media.")
    found = Collector()
    observations: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, fields in rows[header + 1 :]:
        values = dict(zip(columns, fields, strict=False))
        observations.setdefault(values.get("observation id", ""), []).append((number, values))
    subjects: dict[str, None] = {}
    num_modified = 0
    for name, lines in observations.items():
        media = list(dict.fromkeys(values.get(medium or "", "") for _, values in lines))
        if len(media) > 1:
            found.problems.append(
                f"observation {name!r} has {len(media)} media files on one clock; convert the .boris project, which "
                f"has their lengths."
            )
            continue
        video = options.video(path.parent, media[0])
        bouts = _aggregated(name, lines, found) if "start (s)" in columns else _events(name, lines, found)
        num_modified += sum(
            any(k.startswith("modifier") and v not in ("", "None", "NA") for k, v in row.items()) for _, row in lines
        )
        subjects |= dict.fromkeys(bout.subject for bout in bouts)
        for bout in bouts:
            if options.wants(bout.subject or NO_SUBJECT):
                where = f"observation {name!r}: {bout.code!r} at {bout.start:g} s"
                score = score_of(bout.comment)
                found.add(where, video, round(bout.start, 6), round(bout.end, 6), bout.code, score=score)
    found.notes += about_subjects(list(subjects), options)
    if num_modified:
        found.notes.append(f"The modifiers of {counted(num_modified, 'row')} were left out.")
    return found.result()


def _header(rows: Sequence[tuple[int, list[str]]]) -> int | None:
    for index, (_, fields) in enumerate(rows[:200]):
        names = {field.casefold() for field in fields}
        if "behavior" in names and names & set(_TIME_COLUMNS):
            return index
    return None


def _aggregated(name: str, lines: Sequence[tuple[int, Mapping[str, str]]], found: Collector) -> list[Bout]:
    bouts = []
    for number, row in lines:
        start, end = as_number(row.get("start (s)")), as_number(row.get("stop (s)"))
        is_point = row.get("behavior type", "").upper().startswith("POINT")
        if is_point and end is None:
            end = start
        offset = _offset(row)
        if start is None or end is None or not row.get("behavior"):
            found.problems.append(f"line {number}: a row needs Behavior, Start (s) and Stop (s).")
            continue
        comment = row.get("comment start", "")
        bouts.append(Bout(start - offset, end - offset, _subject(row), row["behavior"], comment))
    return bouts


def _events(name: str, lines: Sequence[tuple[int, Mapping[str, str]]], found: Collector) -> list[Bout]:
    events: list[tuple[float, str, tuple[str, str, str], str]] = []
    for number, row in lines:
        time = as_number(row.get("time"))
        kind = (row.get("behavior type") or row.get("status") or "").upper()
        if time is None or kind not in ("START", "STOP", "POINT") or not row.get("behavior"):
            found.problems.append(f"line {number}: a row needs Behavior, Time and START, STOP or POINT.")
            continue
        modifiers = "|".join(value for column, value in row.items() if column.startswith("modifier"))
        events.append((time - _offset(row), kind, (_subject(row), row["behavior"], modifiers), row.get("comment", "")))
    events.sort(key=lambda event: event[0])
    return paired(name, events, found)


def _subject(row: Mapping[str, str]) -> str:
    return "" if row.get("subject", "") == NO_SUBJECT else row.get("subject", "")


def _offset(row: Mapping[str, str]) -> float:
    return as_number(row.get("time offset (s)")) or 0.0
