"""Pooled features of the windows of a video, and what to compute of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.windows import WindowRequest
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.info import VideoInfo

if TYPE_CHECKING:
    from nonlocal_video.inference.recognizer import Recognizer


@dataclass(frozen=True, repr=False)
class WindowFeatures:
    """Features of the W windows of a video; seconds are those of a player.

    Row k of the arrays covers [starts[k], ends[k]) and sees the frames that `classify` takes of that span.
    """

    path: str
    model: str
    weights_sha256: str | None
    """Digest of the weights file; None of a network that came from no file."""
    layer: str
    """Dotted name of the layer whose output is pooled."""
    starts: NDArray[np.float64]
    """Start times in seconds, (W,)."""
    ends: NDArray[np.float64]
    """End times in seconds, (W,); the last window ends with the video."""
    features: NDArray[np.float32]
    """(W, C), or (W, 10, C) of ten crops: means of the layer's output over time and space."""
    logits: NDArray[np.float32]
    """(W, classes); of ten crops the mean."""
    info: VideoInfo
    window_frames: int
    """Number of frames that the network sees of a window."""
    window_seconds: float
    frames_per_second: float
    """Number of these frames in a second."""
    stride_seconds: float
    """Seconds from one window's start to the next one's; the last window may be closer to the one before it."""
    num_planned: int
    """Number of windows of the whole video."""
    notes: tuple[str, ...] = ()
    error: VideoError | None = None
    """Error of a damaged video, for which there are fewer windows than planned."""

    def __repr__(self) -> str:
        broke = "" if self.error is None else f" of {self.num_planned}, broke: {self.error.code}"
        return f"WindowFeatures({self.path!r}, {len(self)} windows{broke}, {self.layer!r}, {self.features.shape})"

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.starts)

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each window in seconds, (W,)."""
        return (self.starts + self.ends) / 2


@dataclass(frozen=True)
class FeatureRequest:
    """Settings for what to compute of each video."""

    windows: WindowRequest
    layer: str | None = None
    """Dotted name of a layer; None is the one before the classifier."""
    fast: bool = False

    def checked(self, recognizer: Recognizer) -> tuple[InputSpec, str]:
        """Return the network's input and the layer's name, after refusing what no video could be given for.

        Raises:
            UsageError: The network has no such layer or does not say which is its last, or the stride is longer than
                the window.
        """
        spec = recognizer.card.view(fast=self.fast)
        name = self.layer or getattr(recognizer.network, "feature_layer", None)
        if name is None:
            raise UsageError(
                f"The network of {recognizer.card.name!r} has no `feature_layer` that names the layer before its "
                f"classifier; name a layer."
            )
        modules = dict(recognizer.inference_network.named_modules()) if self.layer else {}
        if self.layer and self.layer not in modules:
            known = ", ".join(child for child in modules if child and child.count(".") == 0)
            raise UsageError(
                f"layer = {self.layer!r} is not in {recognizer.card.name!r}, which has {known} and theirs."
            )
        window, stride = self.windows.window_seconds, self.windows.stride_seconds
        if window is None and spec.frame_stride is None:
            window = spec.num_frames / spec.frames_per_second
        if window is not None and stride is not None and stride > window + 1e-6:
            raise UsageError(
                f"stride-seconds = {stride:g} should not exceed the window's {window:g} s: no window would see what "
                f"is between. A longer window spreads its frames over more time."
            )
        return spec, name
