"""The prediction for one clip, and its row in a table."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.clip_frames import read_frames
from nonlocal_video.inference.precision import Precision
from nonlocal_video.inference.runtimes.choice import Runtime
from nonlocal_video.inference.runtimes.device import in_words
from nonlocal_video.notebook import FRAMES_IN_STRIP, bars, card, data_frame, heading, strip
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.region import Region
from nonlocal_video.video.sampling import TemporalView

if TYPE_CHECKING:
    import pandas

VIDEO_FIELDS = (
    "duration_seconds", "num_frames", "fps", "width", "height", "codec", "rotation_degrees", "start_seconds", "decoder",
)  # fmt: skip
SECONDS_FIELDS = ("decode", "transform", "forward", "total")


_LOOKS_ESCAPED = re.compile(r"\\(?=x(?:5c|[89a-f][0-9a-f]))")
_ESCAPED = re.compile(rb"\\x(5c|[89a-f][0-9a-f])")


def printable(path: str) -> str:
    r"""Return a file name as text for tables; `path_of_printable` reverses this.

    Bytes that are not UTF-8 become `\xNN`, with two lowercase digits. A backslash that is followed by what looks like
    that (`\xff` in the name itself) becomes `\x5c`; all other names stay as they are.
    """
    named = _LOOKS_ESCAPED.sub(lambda _: r"\x5c", path)
    return os.fsencode(named).decode("utf-8", "backslashreplace")


def path_of_printable(text: str) -> str:
    r"""Return the file name that `printable` made `text` of, as `os.fsdecode` gives names."""
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), os.fsencode(text)))


@dataclass(frozen=True)
class ScoredLabel:
    """A class with its probability."""

    label: str
    """Name of the class."""
    index: int
    """Index of the class."""
    score: float
    """Probability of the class."""


def best_of(labels: Sequence[str], scores: NDArray[np.floating], k: int) -> list[ScoredLabel]:
    """Return the k likeliest classes (or all, if fewer), best first; ties in label order.

    Raises:
        UsageError: k is below 1.
    """
    if k < 1:
        raise UsageError(f"top-k = {k} should be at least 1.")
    order = np.argsort(-scores, kind="stable")[:k]
    return [ScoredLabel(labels[i], int(i), float(scores[i])) for i in order]


@dataclass(frozen=True)
class StageTimings:
    """Wall-clock seconds spent on one clip."""

    decode: float
    transform: float
    forward: float

    @property
    def total(self) -> float:
        """Total seconds."""
        return self.decode + self.transform + self.forward


@dataclass(frozen=True, repr=False)
class Prediction:
    """Prediction of the network for one clip."""

    path: str
    """Path as given; `<frames>` or `<bytes>` for a clip that is not a file."""
    model: str
    labels: tuple[str, ...]
    scores: NDArray[np.float64]
    """Probabilities, (classes,): the softmax averaged over the views."""
    video: VideoInfo
    views: tuple[TemporalView, ...]
    """Time spans of the views."""
    num_crops: int
    num_frames: int
    """Number of frames per view."""
    crop: int
    """Side of the square input of the network, in pixels."""
    device: str
    timings: StageTimings
    notes: tuple[str, ...] = ()
    """Notes for the user, such as that the clip was looped or the decoder was changed."""
    runtime: Runtime = "torch"
    precision: Precision = "float32"
    region: Region | None = None
    """Requested region of the frame; None is the whole frame."""
    seen: tuple[tuple[float, float, float, float], ...] = ()
    """Part of the picture that the network saw, for each crop: left, top, right and bottom edge, in fractions of its
    width and height."""
    logits: NDArray[np.float32] | None = None
    """(classes,) whose softmax the scores are: of a single view the network's own."""
    features: NDArray[np.float32] | None = None
    """(C,) features of the layer before the classifier, averaged over time and space as the classifier does, and over
    the views; None where a network does not name that layer."""
    unknown: bool | None = None
    """Whether the clip is unlike all classes of a taught model; None for other models."""

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.labels),):
            raise ValueError(f"{self.scores.shape = } should be ({len(self.labels)},): one score a label.")

    def __repr__(self) -> str:
        best = self.top(1)[0]
        return f"Prediction({self.path!r}, {best.label!r} {best.score:.3f}, {self.summary})"

    def _repr_html_(self) -> str:
        """Show the answer in a notebook: some of the frames that the network saw, and the five likeliest classes.

        The frames are read from the file again; a clip that is not a local file is shown without them.
        """
        times = sorted({time for view in self.views for time in view.times_seconds})
        count = min(FRAMES_IN_STRIP, len(times))
        chosen = [times[round(index)] for index in np.linspace(0, len(times) - 1, count)]
        frames = read_frames(self.path, chosen)
        return card(
            heading(printable(self.path), self.summary),
            strip(frames, chosen) if frames else "",
            bars([(one.label, one.score) for one in self.top(5)]),
        )

    @property
    def summary(self) -> str:
        """Describe what the network saw of the clip: views, frames, pixels, span, decoder and device."""
        spans = ", ".join(f"{view.start_seconds:.2f}-{view.end_seconds:.2f} s" for view in self.views[:3])
        where = "" if self.region is None else f" of region {self.region}"
        more = f" and {len(self.views) - 3} more spans" if len(self.views) > 3 else ""
        views = "1 view" if len(self.views) == self.num_crops == 1 else f"{len(self.views)}x{self.num_crops} views"
        return (
            f"{views} of {self.num_frames} frames, {self.crop} px{where}, "
            f"{spans}{more}, {self.video.decoder}, {in_words(self.device, self.runtime, self.precision)}"
        )

    @property
    def top1(self) -> ScoredLabel:
        """The top class."""
        return self.top(1)[0]

    def top(self, k: int = 5) -> list[ScoredLabel]:
        """Return the top k classes (or all, if fewer), best first; ties in label order."""
        return best_of(self.labels, self.scores, k)

    def to_pandas(self) -> pandas.DataFrame:
        """Return all classes as a data frame, the likeliest first: columns `label`, `index` and `score`.

        Raises:
            UsageError: pandas is not installed.
        """
        ranked = self.top(len(self.labels))
        return data_frame({name: [getattr(one, name) for one in ranked] for name in ("label", "index", "score")})

    def to_row(self, top_k: int = 5) -> dict[str, Any]:
        """Return the row of this clip, as in `classify --json`."""
        return {
            "path": printable(self.path),
            "status": "ok",
            "model": self.model,
            "top": [{"label": s.label, "index": s.index, "score": s.score} for s in self.top(top_k)],
            **({} if self.unknown is None else {"unknown": self.unknown}),
            "error": None,
            "video": {name: getattr(self.video, name) for name in VIDEO_FIELDS},
            "seconds": {name: getattr(self.timings, name) for name in SECONDS_FIELDS},
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Failure:
    """A clip without a prediction, and its error."""

    path: str
    model: str
    error: VideoError

    def to_row(self, top_k: int = 5) -> dict[str, Any]:
        """Return the row of this clip, with the same keys as `Prediction.to_row`."""
        return {
            "path": printable(self.path),
            "status": "error",
            "model": self.model,
            "top": [],
            "error": {"code": self.error.code, "message": self.error.message},
            "video": None,
            "seconds": None,
            "notes": [],
        }


Outcome = Prediction | Failure
