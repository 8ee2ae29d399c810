"""The timeline of a video: scores of sliding windows, and segments made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.context import Context, DrawnOn, drawn_on, probabilities, refined
from nonlocal_video.inference.precision import Precision
from nonlocal_video.inference.prediction import ScoredLabel, StageTimings, best_of
from nonlocal_video.inference.runtimes.choice import Runtime
from nonlocal_video.inference.runtimes.device import in_words
from nonlocal_video.inference.shortest_action import best_segments
from nonlocal_video.models.taught import TaughtClasses
from nonlocal_video.video.info import VideoInfo

_LEAST_MOMENT_SECONDS = 0.002  # bounds of windows that are closer than this differ by rounding alone
_ABOVE_ALL = 1.000001  # a score that no class reaches
_GAP_SECONDS = 1e-5  # between windows that touch, by rounding


@dataclass(frozen=True)
class Segment:
    """A part of the video with one class; times are in seconds from the start of the file."""

    start_seconds: float
    end_seconds: float
    label: str | None
    """Class name; None if no class reaches the threshold."""
    index: int | None
    score: float
    """Score of the class, averaged over time; for a segment without a class, that of the top class."""

    @property
    def seconds(self) -> float:
        """Length."""
        return self.end_seconds - self.start_seconds


@dataclass(frozen=True)
class Moment:
    """The time between two adjacent window bounds, which the same windows cover."""

    start_seconds: float
    end_seconds: float
    scores: NDArray[np.float64]
    """Mean scores of the windows that cover it, (classes,)."""
    is_unknown: bool = False
    """Whether most of these windows are unknown to a taught model."""

    @property
    def seconds(self) -> float:
        """Length."""
        return self.end_seconds - self.start_seconds


@dataclass(frozen=True, repr=False)
class Timeline:
    """Scores of the W windows that cover a video, or of those computed so far; times are those of a player."""

    path: str
    model: str
    labels: tuple[str, ...]
    starts: NDArray[np.float64]
    """Start times in seconds, ascending, (W,)."""
    ends: NDArray[np.float64]
    """End times in seconds, ascending, (W,); the last window of a complete timeline ends with the video."""
    scores: NDArray[np.float32]
    """(W, classes) probabilities: without a context those that `Recognizer.classify` gives for each window's span, with
    one these refined by the other windows."""
    info: VideoInfo
    window_seconds: float
    stride_seconds: float
    num_planned: int
    """Number of windows of the whole video."""
    num_frames: int
    """Number of frames per window."""
    crop: int
    """Side of the square input of the network, in pixels."""
    device: str
    timings: StageTimings
    """Total time of all windows so far."""
    notes: tuple[str, ...] = ()
    """Notes for the user: windows of another length than the model's, a looped video."""
    runtime: Runtime = "torch"
    logits: NDArray[np.float32] | None = None
    """(W, classes) of each window by itself, whatever the context."""
    features: NDArray[np.float32] | None = None
    """(W, C) pooled features of the layer before the classifier."""
    context: Context = "none"
    """Windows that refined the scores. While they are still coming, those before each; in the end, all of them."""
    precision: Precision = "float32"
    taught: TaughtClasses | None = None
    """Classes of a taught model, by which windows are unknown."""
    error: VideoError | None = None
    """Error of a damaged video, for which there are fewer windows than planned."""

    def __post_init__(self) -> None:
        if not len(self.starts) or self.scores.shape != (len(self.starts), len(self.labels)):
            raise ValueError(
                f"{self.scores.shape = } should be ({len(self.starts)}, {len(self.labels)}): a row a window (at least "
                f"one), a column a label."
            )
        if len(self.ends) != len(self.starts) or (self.ends <= self.starts).any():
            raise ValueError("ends should have one time a window, after its start.")
        if (np.diff(self.starts) <= 0).any() or (np.diff(self.ends) <= 0).any():
            raise ValueError("starts and ends should ascend.")
        if (self.starts[1:] > self.ends[:-1] + _GAP_SECONDS).any():
            raise ValueError("windows should leave no gap.")

    def __repr__(self) -> str:
        broke = "" if self.error is None else f", broke: {self.error.code}"
        return f"Timeline({self.path!r}, {len(self)} of {self.num_planned} windows, {self.summary}{broke})"

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.starts)

    @property
    def is_complete(self) -> bool:
        """Whether the windows reach the end of the video, or of the requested part."""
        return len(self) == self.num_planned

    @property
    def summary(self) -> str:
        """Describe which part and windows were looked at."""
        return (
            f"{len(self)} windows of {self.window_seconds:.2f} s every {self.stride_seconds:.2f} s, each of "
            f"{self.num_frames} frames, {self.crop} px, {self.info.decoder}, "
            f"{in_words(self.device, self.runtime, self.precision)}"
        )

    @property
    def raw_scores(self) -> NDArray[np.float32]:
        """(W, classes) probabilities of each window by itself."""
        return self.scores if self.context == "none" or self.logits is None else probabilities(self.logits)

    @property
    def unknown(self) -> NDArray[np.bool_] | None:
        """(W,) whether each window by itself shows none of the classes; None if the model was not taught."""
        if self.taught is None or self.features is None:
            return None
        return self.taught.likeness(self.features).unknown

    def in_context(self, context: Context) -> Timeline:
        """Return the timeline with each window refined by all others there are, or by none.

        Raises:
            UsageError: It has no features to compare windows by.
        """
        if context == "none":
            return replace(self, scores=self.raw_scores, context=context)
        if self.logits is None or self.features is None:
            raise UsageError(
                f"context = {context!r} compares windows by their features, which this timeline lacks; use 'none'."
            )
        return replace(self, scores=refined(self.logits, self.features), context=context)

    def drawn_on(self, k: int = 5) -> Iterator[DrawnOn]:
        """Yield for each window the k other windows that its refined answer rests on most, with their weights.

        Nothing without a context.
        """
        if self.context != "none" and self.features is not None:
            yield from drawn_on(self.features, k=k)

    def top(self, window: int, k: int = 5) -> list[ScoredLabel]:
        """Return the top k classes of a window (or all, if fewer), best first.

        Raises:
            UsageError: k is below 1.
        """
        return best_of(self.labels, self.scores[window], k)

    def raw_top(self, window: int, k: int = 5) -> list[ScoredLabel]:
        """Return the k likeliest classes of a window by itself, best first; `top` refines them."""
        if self.context == "none" or self.logits is None:
            return self.top(window, k)
        return best_of(self.labels, probabilities(self.logits[[window]])[0], k)

    def moments(self) -> Iterator[Moment]:
        """Yield the covered time, divided at every start and end of a window, in order.

        Overlapping windows see most of the video several times; a moment's scores are the mean of all that see it:

            windows 0-2, 1-3 and 2-4 s: the moments are 0-1 (first window), 1-2 (first and second), 2-3, 3-4.
        """
        bounds = [float(self.starts[0])]
        for bound in np.unique(np.concatenate([self.starts, self.ends])).tolist():
            if bound - bounds[-1] >= _LEAST_MOMENT_SECONDS:
                bounds.append(bound)
        if len(bounds) == 1:  # a video of a single, very short picture
            bounds.append(bounds[0])
        bounds[-1] = float(self.ends[-1])
        unknown = self.unknown
        for start, end in pairwise(bounds):
            middle = (start + end) / 2
            first = int(np.searchsorted(self.ends, middle, side="right"))
            behind = int(np.searchsorted(self.starts, middle, side="right"))
            most_unknown = unknown is not None and bool(unknown[first:behind].mean() > 0.5)
            yield Moment(start, end, self.scores[first:behind].mean(axis=0, dtype=np.float64), most_unknown)

    def segments(
        self, *, threshold: float = 0.0, min_seconds: float = 0.0, shortest_seconds: float = 0.0
    ) -> list[Segment]:
        """Return the top label over time: segments that cover the windows' time without gap or overlap.

        1. Each moment (see `moments`) goes to the class with the highest mean score of the windows that see it, the
           first of equal ones; to none if that score is below the threshold, or if most of these windows are unknown
           to a taught model.
        2. Neighbouring moments of the same class are one segment.
        3. While a segment is shorter than `min_seconds`, the shortest (first of equals) goes to its longer neighbour
           (the earlier of equals), and then to the other one too if that has the same class.

        With `shortest_seconds` the first two steps are one: of all ways to cut the time into segments that are no
        shorter, the best one is found exactly (`shortest_action.best_segments`); no class counts as one with the score
        `threshold`.

        Args:
            threshold: Score from 0 to 1 that a class must reach.
            min_seconds: A single segment that is all there is may be shorter.
            shortest_seconds: Length of the shortest action there is; a single segment may be shorter.

        Raises:
            UsageError: A number is out of range.
        """
        check_segment_rule(threshold, min_seconds, shortest_seconds)
        found: list[Segment] = []
        for (start, end), index in self._classes(threshold, shortest_seconds):
            if found and found[-1].index == index:
                found[-1] = replace(found[-1], end_seconds=end)
            else:
                label = None if index is None else self.labels[index]
                found.append(Segment(start, end, label, index, 0.0))
        _give_short_ones_away(found, min_seconds)
        return self._scored(found)

    def _classes(self, threshold: float, shortest_seconds: float) -> Iterator[tuple[tuple[float, float], int | None]]:
        """Start and end of moments, or of runs of them, and the class of each."""
        if not shortest_seconds:
            for moment in self.moments():
                best = int(moment.scores.argmax())
                is_none = moment.is_unknown or moment.scores[best] < threshold
                yield (moment.start_seconds, moment.end_seconds), None if is_none else best
            return
        can_be_none = threshold > 0 or self.taught is not None
        bounds = [float(self.starts[0])]

        def rows() -> Iterator[tuple[float, NDArray[np.float64]]]:
            for moment in self.moments():
                bounds.append(moment.end_seconds)
                none = _ABOVE_ALL if moment.is_unknown else threshold
                yield moment.seconds, np.append(moment.scores, none) if can_be_none else moment.scores

        for first, behind, index in best_segments(rows(), shortest_seconds):
            yield (bounds[first], bounds[behind]), index if index < len(self.labels) else None

    def _scored(self, segments: list[Segment]) -> list[Segment]:
        """Return the segments with their scores."""
        sums = np.zeros(len(self.labels))
        scored: list[Segment] = []
        for moment in self.moments():
            sums += moment.scores * moment.seconds
            segment = segments[len(scored)]
            if moment.end_seconds == segment.end_seconds:
                total = sums.max() if segment.index is None else sums[segment.index]
                scored.append(replace(segment, score=float(total / segment.seconds)))
                sums[:] = 0
        return scored


def check_segment_rule(threshold: float, min_seconds: float, shortest_seconds: float = 0.0) -> None:
    """Refuse what `Timeline.segments` would refuse, before there is a timeline.

    Raises:
        UsageError: A number is out of range.
    """
    if not 0 <= threshold <= 1:
        raise UsageError(f"threshold = {threshold:g} should be from 0 to 1.")
    for name, seconds in (("min-seconds", min_seconds), ("shortest-seconds", shortest_seconds)):
        if not (math.isfinite(seconds) and seconds >= 0):
            raise UsageError(f"{name} = {seconds:g} should be a finite number, 0 or above.")


def _give_short_ones_away(segments: list[Segment], min_seconds: float) -> None:
    while len(segments) > 1:
        short = min(range(len(segments)), key=lambda i: segments[i].seconds)
        if segments[short].seconds >= min_seconds - 1e-9:
            return
        neighbours = [i for i in (short - 1, short + 1) if 0 <= i < len(segments)]
        taker = segments[max(neighbours, key=lambda i: segments[i].seconds)]
        together = [short, *(i for i in neighbours if segments[i].index == taker.index)]
        first, last = min(together), max(together)
        whole = replace(taker, start_seconds=segments[first].start_seconds, end_seconds=segments[last].end_seconds)
        segments[first : last + 1] = [whole]
