"""A timeline as a file: JSON, CSV, segments, WebVTT subtitles, a picture."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nonlocal_video.annotations.formats import write_annotations
from nonlocal_video.annotations.segment import AnnotatedSegment
from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.inference.csv_cells import write_rows
from nonlocal_video.inference.prediction import SECONDS_FIELDS, VIDEO_FIELDS, printable
from nonlocal_video.inference.segment_files import to_segments_csv
from nonlocal_video.inference.timeline import Segment, Timeline
from nonlocal_video.io import atomic_write

_SEGMENTS = ".segments.csv"
ANNOTATION_TOOLS = (".eaf", ".boris", ".labelstudio.json", ".activitynet.json", ".srt")
FORMATS = (".json", ".csv", ".vtt", ".png", _SEGMENTS, *ANNOTATION_TOOLS)
_MAX_ROWS = 14
"""Maximum number of classes in the plot."""
_VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\n": " ", "\r": " "})
_DOTS_PER_INCH = 110


def check_output(path: str | os.PathLike[str]) -> Path:
    """Return the path if a timeline can be written there; checked before the work.

    Raises:
        UsageError: Unknown ending, or the folder is not there.
    """
    path = Path(path)
    if not path.name.lower().endswith(FORMATS):
        raise UsageError(f"output = {str(path)!r} should end in one of {', '.join(FORMATS)}.")
    if not path.parent.is_dir():
        raise UsageError(f"output = {str(path)!r} is in a folder that does not exist; create it first.")
    return path


def write_timeline(
    path: str | os.PathLike[str],
    timeline: Timeline,
    *,
    top_k: int = 5,
    threshold: float = 0.0,
    min_seconds: float = 0.0,
    shortest_seconds: float = 0.0,
    csv_escape: bool = True,
    notify: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """Write a file in the format of its suffix; an existing one is replaced atomically.

    Args:
        path: .json (windows and segments), .csv (windows), .segments.csv and .vtt (segments) or .png (a heat map of the
            classes), or that of an annotation tool (segments with a class): .eaf, .boris, .labelstudio.json,
            .activitynet.json or .srt.
        timeline: Complete or not.
        top_k: Classes of each window.
        threshold: See `Timeline.segments`.
        min_seconds: See `Timeline.segments`.
        shortest_seconds: See `Timeline.segments`.
        csv_escape: In a CSV, put an apostrophe before labels that a spreadsheet would take for a formula.
        notify: Called with a sentence about what an annotation tool's format has no place for.

    Raises:
        UsageError: Unknown ending, or the folder is not there.
        OutputError: It cannot be written.
    """
    path = check_output(path)
    ending = max((ending for ending in FORMATS if path.name.lower().endswith(ending)), key=len)
    rule = {"threshold": threshold, "min_seconds": min_seconds, "shortest_seconds": shortest_seconds}
    if ending in ANNOTATION_TOOLS:
        _write_annotations(path, timeline, timeline.segments(**rule), notify)
        return path
    if ending == ".csv":
        content = to_csv(timeline, top_k=top_k, escape=csv_escape).encode()
    elif ending == ".json":
        content = json.dumps(to_json(timeline, top_k=top_k, **rule), indent=1).encode() + b"\n"
    else:
        segments = timeline.segments(**rule)
        if ending == _SEGMENTS:
            content = to_segments_csv(timeline.path, segments, path.parent).encode()
        else:
            content = to_vtt(segments).encode() if ending == ".vtt" else draw(timeline, segments)
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise OutputError(
            f"output = {str(path)!r} cannot be written: {error.strerror}. Choose another path or make room."
        ) from error
    return path


def _write_annotations(
    path: Path, timeline: Timeline, segments: Sequence[Segment], notify: Callable[[str], None]
) -> None:
    rows = [
        AnnotatedSegment(
            timeline.path, segment.start_seconds, segment.end_seconds, segment.label, score=round(segment.score, 6)
        )
        for segment in segments
        if segment.label is not None
    ]
    for note in write_annotations(path, rows, videos={timeline.path: timeline.info}):
        notify(note)


def to_json(
    timeline: Timeline,
    *,
    top_k: int = 5,
    threshold: float = 0.0,
    min_seconds: float = 0.0,
    shortest_seconds: float = 0.0,
) -> dict[str, Any]:
    """The timeline as `timeline --json` prints it; a key that `classify` has too means the same."""
    error = timeline.error
    rule = {"threshold": threshold, "min_seconds": min_seconds, "shortest_seconds": shortest_seconds}
    return {
        "path": printable(timeline.path),
        "status": "error" if error else "ok" if timeline.is_complete else "stopped",
        "model": timeline.model,
        "window_seconds": timeline.window_seconds,
        "stride_seconds": timeline.stride_seconds,
        "planned_windows": timeline.num_planned,
        "context": timeline.context,
        "windows": _windows(timeline, top_k),
        **rule,
        "segments": [asdict(s) for s in timeline.segments(**rule)],
        "error": {"code": error.code, "message": error.message} if error else None,
        "video": {name: getattr(timeline.info, name) for name in VIDEO_FIELDS},
        "seconds": {name: getattr(timeline.timings, name) for name in SECONDS_FIELDS},
        "notes": list(timeline.notes),
    }


def _windows(timeline: Timeline, top_k: int) -> list[dict[str, Any]]:
    """Each window's answer; in a context, also its own and which others it drew on."""
    bounds = [
        {"start_seconds": float(start), "end_seconds": float(end)}
        for start, end in zip(timeline.starts, timeline.ends, strict=True)
    ]
    rows = [span | {"top": [asdict(s) for s in timeline.top(i, top_k)]} for i, span in enumerate(bounds)]
    if (unknown := timeline.unknown) is not None:
        for row, is_unknown in zip(rows, unknown.tolist(), strict=True):
            row["unknown"] = is_unknown
    for i, (row, drawn) in enumerate(zip(rows, timeline.drawn_on(), strict=False)):
        row["raw_top"] = [asdict(s) for s in timeline.raw_top(i, top_k)]
        row["own_weight"] = drawn.own
        row["drawn_on"] = [{"window": other, **bounds[other], "weight": weight} for other, weight in drawn.others]
    return rows


def to_csv(timeline: Timeline, *, top_k: int = 5, escape: bool = True) -> str:
    """A row a window: its bounds, and its likeliest classes in the columns that `classify` gives them.

    Of a taught model the column `unknown` says whether the window shows none of its classes. In a context the columns
    `raw_top1_label`, ... have its own answer, `own_weight` its share in the refined one, and `drawn_on` the windows
    that have most of the rest, by their number from 0: `7:0.213 2:0.094`.
    """
    text = io.StringIO()
    ranks = range(1, len(timeline.top(0, top_k)) + 1)
    rows = []
    for window in _windows(timeline, top_k):
        row = {"start_seconds": window["start_seconds"], "end_seconds": window["end_seconds"]}
        for kind in ("top", "raw_top"):
            for rank, scored in zip(ranks, window.get(kind, ()), strict=False):
                row |= {f"{kind}{rank}_{name}": scored[name] for name in ("label", "index", "score")}
        row |= {name: window[name] for name in ("unknown",) if name in window}
        if "drawn_on" in window:
            row["own_weight"] = window["own_weight"]
            row["drawn_on"] = " ".join(f"{other['window']}:{other['weight']:.3f}" for other in window["drawn_on"])
        rows.append(row)
    write_rows(text, list(rows[0]), rows, escape=escape, lineterminator="\n")
    return text.getvalue()


def to_vtt(segments: Sequence[Segment]) -> str:
    """Return WebVTT subtitles (W3C) with a cue for each segment that has a class."""
    cues = [
        f"{clock(segment.start_seconds)} --> {clock(segment.end_seconds)}\n"
        f"{segment.label.translate(_VTT_ESCAPES)} {segment.score:.0%}\n"
        for segment in segments
        if segment.label is not None
    ]
    return "\n".join(["WEBVTT\n", *cues])


def clock(seconds: float) -> str:
    """Format seconds as hours, minutes, seconds and milliseconds: 3723.5 -> 01:02:03.500."""
    milliseconds = math.floor(seconds * 1000 + 0.5)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"


def draw(timeline: Timeline, segments: Sequence[Segment]) -> bytes:
    """A PNG: the scores over time of each class that has a segment, in the order of the first ones.

    In a context each window's own scores are drawn below the refined ones.
    """
    from matplotlib.figure import Figure  # not pyplot, which would choose a window system
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    won: dict[int, float] = {}  # class -> its score times its seconds
    for segment in segments:
        if segment.index is not None:
            won[segment.index] = won.get(segment.index, 0.0) + segment.score * segment.seconds
    strongest = sorted(won, key=lambda index: -won[index])[:_MAX_ROWS]
    rows = [index for index in won if index in strongest]
    if not rows:  # no class reaches the threshold: the likeliest ones
        rows = np.argsort(-timeline.scores.mean(axis=0), kind="stable")[:3].tolist()
    drawn = [timeline] if timeline.context == "none" else [timeline, timeline.in_context("none")]
    figure = Figure(figsize=(12, 1.5 + 0.3 * len(rows) * len(drawn)), dpi=_DOTS_PER_INCH, layout="constrained")
    every = figure.subplots(len(drawn), sharex=True, squeeze=False)[:, 0]
    edges = np.arange(len(rows) + 1) - 0.5
    for axes, shown in zip(every, drawn, strict=True):
        bounds = [float(shown.starts[0])]
        columns = []
        for moment in shown.moments():
            bounds.append(moment.end_seconds)
            columns.append(moment.scores[rows])
        mesh = axes.pcolormesh(bounds, edges, np.array(columns).T, cmap="Blues", vmin=0, vmax=1, rasterized=True)
        for row, index in enumerate(rows if shown is timeline else ()):
            spans = [(s.start_seconds, s.seconds) for s in segments if s.index == index]
            axes.broken_barh(spans, (row + 0.36, 0.12), color="#d1495b", linewidth=0)
        axes.set_yticks(range(len(rows)), [timeline.labels[index] for index in rows], parse_math=False)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(edges, minor=True)
        axes.grid(axis="y", which="minor", color="#dddddd", linewidth=0.6)
        axes.tick_params(axis="y", which="both", length=0)
        axes.set_xlim(bounds[0], bounds[-1])
    axes.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 1.5, 2, 3, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _short_clock(seconds, bounds[-1])))
    axes.set_xlabel("time; above refined by the whole video, below each window alone" if len(drawn) > 1 else "time")
    axes = every[0]
    left_out = f"; {len(rows)} strongest of {len(won)} winners" if len(won) > len(rows) else ""
    title = f"{os.path.basename(printable(timeline.path))}, {timeline.model}{left_out}"
    if not timeline.is_complete:
        title += f"; not complete: {len(timeline)} of {timeline.num_planned} windows"
    axes.set_title(title, loc="left", fontsize=10, parse_math=False)
    figure.colorbar(mesh, ax=list(every), label="score", pad=0.01, ticks=[0, 0.5, 1])
    axes.text(1, 1.02, "red: segments", transform=axes.transAxes, ha="right", fontsize=8, color="#d1495b")
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _short_clock(seconds: float, longest: float) -> str:
    """Format a time for the plot, as short as the length of the video allows."""
    shown = clock(max(seconds, 0.0))
    if longest < 60:
        return f"{seconds:g} s"
    return shown[:8] if longest >= 3600 else shown[3:8]
