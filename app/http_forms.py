"""Requests and answers of the HTTP API, as its OpenAPI document describes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import File, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from nonlocal_video.attention.maps import Method
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.context import Context
from nonlocal_video.inference.views import ViewCount

from .choices import FAST

MAX_TOP_K = 400
MAX_VIEWS = 30
"""Maximum number of views of one request, that of the paper's protocol (10x3)."""
MAX_LENGTH = 300
"""Maximum number of characters of a setting."""
MAX_ADDRESS = 2_000
"""Maximum number of characters of a webhook's address."""
Text = Annotated[str, Field(max_length=MAX_LENGTH)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=MAX_TOP_K, description="Number of classes, the likeliest first.")]


class ClipForm(BaseModel):
    """A clip, and the settings that all requests share."""

    model_config = ConfigDict(extra="forbid")

    file: Annotated[UploadFile | None, File(description="The clip; or give path.")] = None
    path: Annotated[
        str | None, Field(description="In place of file: a path below the server's --folder-root, such as b/c.mp4.")
    ] = None
    model: Annotated[Text | None, Field(description="Name of a model of this server; by default its first.")] = None
    region: Annotated[
        Text | None, Field(description="X0,Y0,X1,Y1: the part of the picture to look at, in fractions of its size.")
    ] = None


class ClassifyForm(ClipForm):
    """Settings of `/v1/classify`."""

    top_k: Count = 5

    views: Annotated[
        Text, Field(description="CLIPSxCROPS, such as 1x1, 3x1 or the paper's 10x3, or fast for the cheap view.")
    ] = "1x1"
    context: Annotated[Literal["none"], Field(description="What else the answer draws on: one clip has no others.")] = (
        "none"
    )


class ExplainForm(ClipForm):
    """Settings of `/v1/explain`."""

    top_k: Count = 5

    views: Annotated[Literal["1x1", "fast"], Field(description="The view that is explained.")] = "1x1"
    method: Annotated[
        Method | Literal["gradcam"] | None,
        Field(description="By default query with a point, evidence with a label, else attention; gradcam is evidence."),
    ] = None
    query: Annotated[
        Text | None, Field(description="SECONDS,X,Y: a point of the clip, in seconds and fractions of the picture.")
    ] = None
    label: Annotated[Text | None, Field(description="Class whose evidence is shown.")] = None
    layer: Annotated[Text | None, Field(description="Dotted name of a non-local block, or of a layer.")] = None
    output: Annotated[Literal["json", "overlay"], Field(description="overlay answers with the video, in H.264.")] = (
        "json"
    )


class SlidingForm(ClipForm):
    """Settings of all work on the sliding windows of a video."""

    views: Annotated[Literal["1x1", "fast"], Field(description="fast takes the cheap view of each window.")] = "1x1"
    window_seconds: Annotated[Seconds | None, Field(description="By default the span of the model's input.")] = None
    stride_seconds: Annotated[Seconds | None, Field(description="By default half a window.")] = None
    webhook: Annotated[
        str | None,
        Field(
            max_length=MAX_ADDRESS,
            description="Address that the ended job is posted to, on a host that the server's --allow-webhook names.",
        ),
    ] = None

    @property
    def is_fast(self) -> bool:
        """Whether the cheap view is taken."""
        return self.views == FAST


class FeaturesForm(SlidingForm):
    """Settings of `/v1/features`."""


class TimelineForm(SlidingForm):
    """Settings of `/v1/timeline`."""

    top_k: Count = 5
    context: Annotated[
        Context, Field(description="nonlocal: each window's answer draws on those like it; none: on itself alone.")
    ] = "nonlocal"
    threshold: Annotated[float, Field(description="Score below which a segment has no class.")] = 0.0
    min_seconds: Annotated[float, Field(description="Shorter segments are merged into their neighbours.")] = 0.0
    shortest_seconds: Annotated[float, Field(description="Length of the shortest action.")] = 0.0


def view_count(views: str) -> str:
    """Return a number of views, checked.

    Raises:
        UsageError: It is no number of views, or above `MAX_VIEWS`.
    """
    count = ViewCount.parse(views)
    if count.num_clips * count.num_crops > MAX_VIEWS:
        raise UsageError(f"views = {views!r} should be at most {MAX_VIEWS} in all, such as 10x3.")
    return views


class ErrorBody(BaseModel):
    """An error."""

    code: str
    message: str


class ScoredBody(BaseModel):
    """A class with its probability."""

    label: str
    index: int
    score: float


class VideoBody(BaseModel):
    """Kind of the clip."""

    duration_seconds: float
    num_frames: int
    fps: float
    width: int
    height: int
    codec: str
    rotation_degrees: int
    start_seconds: float
    decoder: str


class TimingsBody(BaseModel):
    """Seconds that the clip took."""

    decode: float
    transform: float
    forward: float
    total: float


class RowBody(BaseModel):
    """A row of `nonlocal-video classify --json`."""

    path: str
    status: Literal["ok", "error"]
    model: str
    top: list[ScoredBody]
    unknown: Annotated[bool, Field(description="Of a taught model alone: whether no class is like the clip.")] = False
    error: ErrorBody | None
    video: VideoBody | None
    seconds: TimingsBody | None
    notes: list[str]


class ProgressBody(BaseModel):
    """Progress of the job."""

    done: int
    planned: int | None


class JobBody(BaseModel):
    """A job; the result of a timeline is the object of `nonlocal-video timeline --json`.

    That of features has `rows`, which are those of the table that `nonlocal-video features` writes.
    """

    id: str
    kind: Literal["timeline", "features"]
    path: str
    status: Literal["waiting", "running", "done", "stopped", "failed"]
    created: str
    progress: ProgressBody
    result: dict[str, Any] | None
    error: ErrorBody | None
