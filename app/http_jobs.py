"""The long work of the HTTP API: what a job does in its thread, window by window, until it ends or is stopped."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from nonlocal_video.errors import VideoError
from nonlocal_video.features.json_rows import to_rows
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.sliding import slide
from nonlocal_video.inference.timeline import Timeline
from nonlocal_video.inference.timeline_files import to_json

from .http_forms import FeaturesForm, SlidingForm, TimelineForm
from .jobs import Job

MAX_FEATURE_WINDOWS = 5_000
"""Maximum number of windows whose features one answer holds: about 60 MB of JSON."""


def timeline_job(job: Job, recognizer: Recognizer, path: Path, form: TimelineForm) -> dict[str, Any]:
    """Return the object of `nonlocal-video timeline --json`."""
    rule = {"threshold": form.threshold, "min_seconds": form.min_seconds, "shortest_seconds": form.shortest_seconds}
    timeline = _slide(job, recognizer, path, form, context=form.context)
    return _without_path(to_json(timeline, top_k=form.top_k, **rule), path, form)


def features_job(job: Job, recognizer: Recognizer, path: Path, form: FeaturesForm) -> dict[str, Any]:
    """Return the rows that `nonlocal-video features` writes for the video, as JSON.

    Raises:
        VideoError: There are more windows than an answer holds.
    """
    timeline = _slide(job, recognizer, path, form, context="none", most=MAX_FEATURE_WINDOWS)
    stopped = job.stop.is_set() and not timeline.is_complete
    error = timeline.error
    found = {
        "status": "error" if error else "stopped" if stopped else "ok",
        "rows": to_rows(timeline, recognizer, name=_name(path, form)),
        "error": {"code": error.code, "message": error.message} if error else None,
        "notes": list(timeline.notes),
    }
    return _without_path(found, path, form)


def _slide(
    job: Job, recognizer: Recognizer, path: Path, form: SlidingForm, *, most: int | None = None, **how: Any
) -> Timeline:
    """Slide over the video until its end or until the job is stopped, and count the windows."""
    steps = slide(
        recognizer,
        path,
        fast=form.is_fast,
        window_seconds=form.window_seconds,
        stride_seconds=form.stride_seconds,
        region=form.region,
        **how,
    )
    with closing(steps):
        for timeline in steps:
            job.done, job.planned = len(timeline), timeline.num_planned
            if most is not None and timeline.num_planned > most:
                raise VideoError(
                    "too_long",
                    f"{timeline.num_planned:,} windows are more than the {most:,} of one answer; take a longer "
                    f"stride_seconds, or `nonlocal-video features` for a table.",
                )
            if job.stop.is_set() and not timeline.is_complete:
                return timeline.in_context(timeline.context)  # each window so far drew on those before it alone
    return timeline


def _name(path: Path, form: SlidingForm) -> str:
    return form.path or (form.file.filename if form.file else None) or path.name


def _without_path(result: dict[str, Any], path: Path, form: SlidingForm) -> dict[str, Any]:
    """Return the result with the clip's own name in place of the server's path in its error."""
    if result["error"]:
        result["error"]["message"] = result["error"]["message"].replace(str(path), _name(path, form))
    return result
