"""Label Studio's JSON: ranges of frames that are counted from 1 and include the last one, at a rate of its own.

The browser counts frame = seconds * frame rate, with the rate of the labelling configuration (24 unless it says
otherwise), whatever the video's is. So frames become seconds by that rate, unless they are known to count the video's
own frames; then the times at which those are shown hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonlocal_video.annotations.documents import as_list, as_mapping, as_number, read_json, to_json
from nonlocal_video.annotations.options import (
    VIDEO_SUFFIXES,
    ReadOptions,
    WriteOptions,
    base_name,
    check_rate,
    is_remote,
)
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
from nonlocal_video.errors import UsageError, VideoError

DEFAULT_RATE = 24.0
_WRITTEN_RATE = 25.0
_KIND = "timelinelabels"
_MINIMAL = frozenset({"annotation_id", "annotator", "lead_time"})
"""Keys that tasks of JSON-MIN have beside their data, and without any result, too."""


@dataclass(frozen=True)
class _Range:
    where: str
    task: int
    start: int
    end: int
    label: str
    score: float | None
    annotator: str | None


def is_label_studio(document: Any) -> bool:
    """Whether JSON looks like this format."""
    tasks = document if isinstance(document, list) else [document]
    return bool(tasks) and all(
        isinstance(task, dict) and ("data" in task or _flat_results(task) or task.keys() & _MINIMAL) for task in tasks
    )


def read_label_studio(path: Path, options: ReadOptions) -> Annotations:
    """Read the tasks of an export (JSON or JSON-MIN) or an import: annotations, or else predictions.

    Raises:
        UsageError: It holds no tasks, or a frame rate is no rate.
    """
    document = read_json(path)
    if not is_label_studio(document):
        raise UsageError(
            f"{str(path)!r} has no tasks of Label Studio: objects with data, and annotations or predictions."
        )
    tasks: list[dict[str, Any]] = document if isinstance(document, list) else [document]
    found = Collector()
    passed_over: Counter[str] = Counter()
    num_predicted = 0
    ranges: list[_Range] = []
    for number, task in enumerate(tasks):
        results, predicted = _results(task, passed_over)
        num_predicted += predicted
        for position, (result, annotator, score) in enumerate(results):
            where = f"task {task.get('id', number)}, region {result.get('id', position)}"
            ranges += _ranges(where, number, result, annotator, score, options, found, passed_over)
    counts_from = 0 if any(one.start == 0 for one in ranges) else 1
    if not counts_from:
        found.notes.append("A range begins at frame 0, so frames were taken to count from 0; Label Studio's do from 1.")
    assumed: list[str] = []
    videos = {one.task: _video(tasks[one.task], path.parent, options) for one in ranges}
    for one in ranges:
        if one.start < 0 or one.end < one.start:
            found.problems.append(f"{one.where}: frames {one.start} to {one.end} should be in order and not below 0.")
            continue
        first, after_last = one.start - counts_from, one.end - counts_from + 1
        video = videos[one.task]
        if options.frame_times is not None:
            try:
                times = options.frame_times(video)
            except VideoError as error:
                found.problems.append(f"{one.where}: {error.message}")
                continue
            if after_last >= len(times):
                found.problems.append(f"{one.where}: frame {one.end} is beyond the video's {len(times) - 1} frames.")
                continue
            start, end = times[first], times[after_last]
        else:
            rate = _rate(tasks[one.task], options)
            if rate is None:
                rate = DEFAULT_RATE
                assumed.append(base_name(video))
            start, end = first / rate, after_last / rate
        found.add(one.where, video, round(start, 6), round(end, 6), one.label, score=one.score, annotator=one.annotator)
    if assumed:
        found.notes.append(
            f"{listed(sorted(set(assumed)))}: the file has no frame rate; seconds were counted at {DEFAULT_RATE:g} "
            f"frames a second, Label Studio's default. --frames-per-second names the frameRate of your labelling "
            f"configuration."
        )
    if num_predicted:
        found.notes.append(f"Predictions were read from {counted(num_predicted, 'task')} without annotations.")
    found.notes += [f"Left out: {count} {what}." for what, count in passed_over.items()]
    return found.result()


def write_label_studio(segments: Sequence[AnnotatedSegment], options: WriteOptions) -> tuple[str, list[str]]:
    """Tasks to import, a task a video, with the segments as predictions; and what is not in them.

    The frame rate is in `data.fps`, for a labelling configuration with `<Video name="video" value="$video"
    frameRate="$fps"/>` and `<TimelineLabels name="actions" toName="video">`.
    """
    kept, notes = only_spans(segments, "Label Studio")
    notes += dropped_fields(kept, "Label Studio's predictions", "score")
    tasks, coarsest = [], float("inf")
    for path, spans in by_video(kept).items():
        info = options.videos.get(path)
        rate = options.frames_per_second or (round(info.fps, 3) if info is not None else _WRITTEN_RATE)
        coarsest = min(coarsest, rate)
        scores = [span.score for span in spans if span.score is not None]
        prediction: dict[str, Any] = {"model_version": "nonlocal-video"}
        if scores:
            prediction["score"] = sum(scores) / len(scores)
        prediction["result"] = [_region(number, span, rate) for number, span in enumerate(spans, start=1)]
        tasks.append({"data": {"video": _written_video(path, options), "fps": rate}, "predictions": [prediction]})
    if tasks:
        notes.append(
            f"Label Studio counts frames: times were rounded to 1/{coarsest:g} s. Its configuration needs "
            f'frameRate="$fps", or it shows them elsewhere.'
        )
    return to_json(tasks), notes


def _flat_results(task: dict[str, Any]) -> dict[str, list[Any]]:
    """The results of a task of JSON-MIN by the name of their control."""
    return {
        name: value
        for name, value in task.items()
        if isinstance(value, list) and value and all("ranges" in as_mapping(item) for item in value)
    }


def _results(
    task: dict[str, Any], passed_over: Counter[str]
) -> tuple[list[tuple[dict[str, Any], str | None, float | None]], bool]:
    """A task's regions with annotator and score, and whether they are predictions."""
    if "data" not in task:
        flat = [{"from_name": name, "type": _KIND, "value": v} for name, vs in _flat_results(task).items() for v in vs]
        return [(result, _annotator(task.get("annotator")), None) for result in flat], False
    annotations = []
    for annotation in map(as_mapping, as_list(task.get("annotations"))):
        if annotation.get("was_cancelled"):
            passed_over["annotations that were skipped by their annotator"] += 1
        else:
            annotations.append(annotation)
    if annotations:
        return [
            (as_mapping(result), _annotator(annotation.get("completed_by")), None)
            for annotation in annotations
            for result in as_list(annotation.get("result"))
        ], False
    predictions = list(map(as_mapping, as_list(task.get("predictions"))))
    return [
        (as_mapping(result), None, as_number(prediction.get("score")))
        for prediction in predictions
        for result in as_list(prediction.get("result"))
    ], bool(predictions)


def _annotator(value: Any) -> str | None:
    named = value.get("email") or value.get("id") if isinstance(value, dict) else value
    return None if named is None or named == "" else str(named)


def _ranges(
    where: str,
    task: int,
    result: dict[str, Any],
    annotator: str | None,
    score: float | None,
    options: ReadOptions,
    found: Collector,
    passed_over: Counter[str],
) -> Iterator[_Range]:
    control, value = str(result.get("from_name", "")), as_mapping(result.get("value"))
    if not options.wants(control):
        return
    if result.get("type") != _KIND:
        kind = result.get("type") or "without a type"
        passed_over[f"results of type {kind}, which have no range of time for a label"] += 1
        return
    own = as_number(result.get("score"))
    for span in map(as_mapping, as_list(value.get("ranges"))):
        start, end = as_number(span.get("start")), as_number(span.get("end"))
        if start is None or end is None or start != int(start) or end != int(end):
            found.problems.append(f"{where}: {span!r} should have whole numbers of frames as start and end.")
            continue
        for label in as_list(value.get(_KIND)):
            named = options.label(control, str(label))
            yield _Range(where, task, int(start), int(end), named, own if own is not None else score, annotator)


def _rate(task: dict[str, Any], options: ReadOptions) -> float | None:
    if options.frames_per_second is not None:
        return options.frames_per_second
    rate = as_number(as_mapping(task.get("data", task)).get("fps"))
    check_rate(rate)
    return rate


def _video(task: dict[str, Any], folder: Path, options: ReadOptions) -> str:
    data = as_mapping(task.get("data", task))
    texts = [value for value in data.values() if isinstance(value, str)]
    named = data.get("video") if isinstance(data.get("video"), str) else None
    likely = [text for text in texts if text.partition("?")[0].lower().endswith(VIDEO_SUFFIXES)]
    return options.video(folder, *([named] if named else likely[:1]))


def _region(number: int, span: AnnotatedSegment, rate: float) -> dict[str, Any]:
    first = round(span.start_seconds * rate)
    after_last = max(first + 1, round(span.end_seconds * rate))
    region: dict[str, Any] = {
        "id": f"segment{number}",
        "from_name": "actions",
        "to_name": "video",
        "type": _KIND,
        "value": {"ranges": [{"start": first + 1, "end": after_last}], _KIND: [span.label]},
    }
    return region if span.score is None else {**region, "score": span.score}


def _written_video(path: str, options: WriteOptions) -> str:
    shown = options.written_path(path)
    if options.url_prefix is None or is_remote(path):
        return shown
    return options.url_prefix + base_name(shown)
