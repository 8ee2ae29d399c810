"""Answers of the HTTP API: one request with a clip, one answer; long work as jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import anyio.to_thread
from fastapi import Form, Request, Response
from fastapi.responses import JSONResponse

from nonlocal_video.attention.maps import QueryPoint
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.prediction import printable
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.timeline import check_segment_rule

from .api import described
from .choices import FAST
from .http_errors import ApiError
from .http_forms import (
    ClassifyForm,
    ClipForm,
    ExplainForm,
    FeaturesForm,
    SlidingForm,
    TimelineForm,
    view_count,
)
from .http_job_answer import job_response
from .http_jobs import features_job, timeline_job
from .jobs import Job, Jobs
from .received import ReceivedClip, receive
from .turns import Turns
from .webhooks import check_webhook

PREFIX = "/v1"
FORM = Form(media_type="multipart/form-data")


@dataclass(frozen=True)
class HttpApi:
    """Handlers of the routes."""

    recognizers: Mapping[str, Recognizer]
    """Recognizers by model name; the first is the default."""
    turns: Turns
    jobs: Jobs
    max_upload_bytes: int
    folder_root: Path | None = None
    """Folder whose files may be named in place of an upload; None offers none."""
    webhook_hosts: Collection[str] = ()
    """Hosts that may be told of the end of a job."""

    async def classify(self, request: Request, form: Annotated[ClassifyForm, FORM]) -> Any:
        """Recognise the action of a clip: the row of `nonlocal-video classify --json`, in this answer."""
        how: dict[str, Any] = {"fast": True} if form.views == FAST else {"views": view_count(form.views)}

        def work(clip: ReceivedClip, recognizer: Recognizer) -> dict[str, Any]:
            row = recognizer.classify(clip.path, **how, region=form.region).to_row(form.top_k)
            return row | {"path": printable(clip.name)}

        return await self._answered(request, form, work)

    async def explain(self, request: Request, form: Annotated[ExplainForm, FORM]) -> Any:
        """Show where the network looked: the strongest places as JSON, or the overlay video (`output=overlay`)."""
        query = None if form.query is None else _query_point(form.query)

        def work(clip: ReceivedClip, recognizer: Recognizer) -> Any:
            explanation = recognizer.explain_all(
                clip.path,
                fast=form.views == FAST,
                around_seconds=None if query is None else query.seconds,
                region=form.region,
            )
            maps = explanation.maps(method=form.method, query=query, label=form.label or None, layer=form.layer or None)
            if form.output == "overlay":
                with TemporaryDirectory() as folder:
                    video = maps.save_overlay(Path(folder) / "overlay.mp4").read_bytes()
                return Response(video, media_type="video/mp4")
            row = explanation.prediction.to_row(form.top_k) | {"path": printable(clip.name)}
            return JSONResponse({"prediction": row, **described(maps)})

        return await self._answered(request, form, work)

    async def timeline(self, form: Annotated[TimelineForm, FORM], response: Response) -> Any:
        """Start a timeline of a long video; the answer is the job, and `GET /v1/jobs/{id}` gives the rest."""
        check_segment_rule(form.threshold, form.min_seconds, form.shortest_seconds)
        return await self._started("timeline", timeline_job, form, response)

    async def features(self, form: Annotated[FeaturesForm, FORM], response: Response) -> Any:
        """Start the features of a video's windows; the job's result has the rows of `nonlocal-video features`."""
        return await self._started("features", features_job, form, response)

    async def job(self, id: str) -> Any:
        """Return a job: its status, its progress and, at the end, its result or its error."""
        return await anyio.to_thread.run_sync(job_response, self.jobs.get(id))

    async def stop_job(self, id: str) -> Any:
        """Stop a job after its current step; what there is stays as its result."""
        job = self.jobs.get(id)
        job.stop.set()
        return await anyio.to_thread.run_sync(job_response, job)

    async def _started(
        self,
        kind: str,
        work: Callable[[Job, Recognizer, Path, Any], dict[str, Any]],
        form: SlidingForm,
        response: Response,
    ) -> Any:
        """Queue long work on a clip, and answer with the job."""
        if form.webhook is not None:
            check_webhook(form.webhook, self.webhook_hosts)
        recognizer = self._recognizer(form.model)
        self.jobs.check_room()
        clip = await self._received(form)

        def in_thread(job: Job) -> dict[str, Any]:
            with clip.plain_errors():
                return work(job, recognizer, clip.path, form) | {"path": printable(clip.name)}

        try:
            job = self.jobs.start(Job(kind, printable(clip.name), form.webhook), in_thread, cleanup=clip.close)
        except ApiError:
            clip.close()
            raise
        response.headers["Location"] = f"{PREFIX}/jobs/{job.id}"
        return job.to_json()

    async def _answered(self, request: Request, form: ClipForm, work: Callable[[ReceivedClip, Recognizer], Any]) -> Any:
        """Do the work on the clip when it is its turn, unless the program has left meanwhile."""
        recognizer = self._recognizer(form.model)
        self.turns.check_room()  # before a large upload is copied

        def in_thread() -> Any:
            with clip.plain_errors():
                return work(clip, recognizer)

        async def is_wanted() -> bool:
            return not await request.is_disconnected()

        with await self._received(form) as clip:
            answer = await self.turns.run(in_thread, is_wanted=is_wanted)
        return Response(status_code=204) if answer is None else answer

    def _received(self, form: ClipForm) -> Awaitable[ReceivedClip]:
        copied = partial(receive, form.file, form.path, root=self.folder_root, max_bytes=self.max_upload_bytes)
        return anyio.to_thread.run_sync(copied)

    def _recognizer(self, model: str | None) -> Recognizer:
        if model is None:
            return next(iter(self.recognizers.values()))
        if model not in self.recognizers:
            raise UsageError(f"model = {model!r} should be one of {', '.join(self.recognizers)}.")
        return self.recognizers[model]


def _query_point(text: str) -> QueryPoint:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3:
        raise UsageError(f"query = {text!r} should be SECONDS,X,Y, such as 1.5,0.5,0.4.")
    return QueryPoint(*values)
