"""The model card: everything a network's weights need around them to give the right answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from nonlocal_video.errors import UsageError

ClipPlacement = Literal[
    "both_ends", "both_ends_in_steps", "first_to_last_frame", "left_of_parts", "middle_of_parts", "wrapping_parts"
]
FramePlacement = Literal["middle_of_steps", "start_of_steps", "both_ends"]
ShortClips = Literal["loop", "hold_last_frame", "spread"]
CropPlacement = Literal["centre_rounded_up", "steps_rounded_down"]
LongerSide = Literal["rounded_down", "nearest"]

# Far beyond every network there is, and far below what fills a machine's memory.
_MOST: dict[str, float] = {"num_frames": 10_000, "frames_per_second": 10_000, "short_side": 10_000, "crop": 10_000}
_MOST_PIXELS = 1 << 28


@dataclass(frozen=True)
class InputSpec:
    """How a clip becomes the network's input."""

    num_frames: int
    frames_per_second: float
    """For a network trained on every n-th frame (`frame_stride`), what that is for a clip of 30 frames a second."""
    short_side: int
    """The frame's shorter side after the resize, in pixels."""
    crop: int
    """Side of the square that the network sees, in pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """x -> (x / 255 - mean) / std, per RGB channel."""
    frame_stride: int | None = None
    """Take every n-th frame of the clip whatever its rate, as the weights were trained; None samples by time."""
    resize_to: tuple[int, int] | None = None
    """Height and width of the resized frame where its proportions are not kept; the shorter one is `short_side`."""
    antialias: bool = True
    """Smooth frames that shrink. Most published weights were trained and tested without."""
    clip_placement: ClipPlacement = "both_ends"
    """Where several views begin: from the clip's beginning to its end; the same in whole steps of the network's rate
    (torchvision), or so that the last frame is the clip's last (MMAction2 1.x); in equal parts of what is free, at the
    left of each (PySlowFast, pytorchvideo) or in its middle (MMAction2 0.x); or at the left of equal parts of the whole
    clip, going on at its beginning after its end (video-nonlocal-net). A single view is always the middle one."""
    frame_placement: FramePlacement = "middle_of_steps"
    """Which frame of each of the view's `num_frames` equal steps: the middle one, the first (MMAction2, torchvision),
    or the view's first and last frame and evenly spread ones between them (PySlowFast, pytorchvideo)."""
    short_clips: ShortClips = "loop"
    """What fills a view that is longer than the clip: the clip over and over (video-nonlocal-net, MMAction2), its last
    frame (PySlowFast), or nothing, as the view's frames are spread over the clip (pytorchvideo)."""
    crop_placement: CropPlacement = "centre_rounded_up"
    """Where three squares lie along the f pixels that they leave free, and a single one in their middle: at 0,
    ceil(f / 2), f (PySlowFast, pytorchvideo), or at 0, s, 2 s with s = floor(f / 2) (video-nonlocal-net, MMAction2)."""
    longer_side: LongerSide = "rounded_down"
    """Pixels of the resized frame's longer side: whole ones only, or the nearest number (MMAction2)."""

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            if not 0 < getattr(self, name) <= most:
                raise ValueError(f"{name} = {getattr(self, name)} should be above 0, and at most {most}.")
        if self.num_frames * self.crop**2 > _MOST_PIXELS:
            raise ValueError(
                f"num_frames = {self.num_frames} of crop = {self.crop} are {self.num_frames * self.crop**2:,} pixels, "
                f"and at most {_MOST_PIXELS:,} are taken."
            )
        if self.crop > self.short_side:
            raise ValueError(f"crop = {self.crop} should not exceed short_side = {self.short_side}.")
        if self.frame_stride is not None and not 1 <= self.frame_stride <= _MOST["num_frames"]:
            raise ValueError(f"frame_stride = {self.frame_stride} should be from 1 to {_MOST['num_frames']}, or None.")
        if self.resize_to is not None and max(self.resize_to) > _MOST["short_side"]:
            raise ValueError(f"resize_to = {self.resize_to} should be at most {_MOST['short_side']} each.")
        if self.resize_to is not None and min(self.resize_to) != self.short_side:
            raise ValueError(f"resize_to = {self.resize_to} should have short_side = {self.short_side} as its shorter.")
        if self.clip_placement == "wrapping_parts" and self.short_clips != "loop":
            raise ValueError(
                f"short_clips = {self.short_clips!r} should be 'loop': views of 'wrapping_parts' go round."
            )
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(f"mean = {self.mean} and std = {self.std} should have three numbers each.")
        if not all(math.isfinite(number) for number in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise ValueError(f"mean = {self.mean} and std = {self.std} should be finite, and std above 0.")

    @property
    def span_seconds(self) -> float:
        """How much of a clip one view covers; with a `frame_stride`, of one of 30 frames a second."""
        return self.num_frames / self.frames_per_second

    def rate_in(self, clip_frames_per_second: float) -> float:
        """Frames per second to take of a clip that has `clip_frames_per_second`."""
        return self.frames_per_second if self.frame_stride is None else clip_frames_per_second / self.frame_stride


@dataclass(frozen=True)
class Accuracy:
    """A published accuracy and the views it was measured with; percent, on the labels' validation set."""

    top1: float
    top5: float
    views: str
    """CLIPSxCROPS."""


@dataclass(frozen=True)
class ModelCard:
    """Travels inside the weights file as JSON."""

    name: str
    architecture: str
    """Which network `nonlocal_video.models.checkpoint.build_network` makes."""
    config: dict[str, Any]
    """Arguments of that builder's configuration dataclass."""
    input: InputSpec
    labels: tuple[str, ...]
    fast_input: InputSpec | None = None
    """A cheaper view, measured; `--fast` uses it."""
    explain_layer: str | None = None
    """The non-local block that overlays show unless another is asked for."""
    average: Literal["probabilities", "logits"] = "probabilities"
    """What is averaged over views (and windows): the softmax of each, or the logits, of which then the softmax."""
    head_window: tuple[int, int, int] | None = None
    """Cells (T, H, W) of the last features that the classifier pools; a larger map is classified at every place of
    the window (stride 1) and averaged, as PySlowFast tests at 256 pixels. None pools the whole map."""
    published: Accuracy | None = None
    licence: str = ""
    source: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)
    """Sentences shown to users of the model."""

    def view(self, *, fast: bool = False) -> InputSpec:
        """The model's own input, or its cheaper one.

        Raises:
            UsageError: `fast` is asked of a model that has no cheaper one.
        """
        if not fast:
            return self.input
        if self.fast_input is None:
            raise UsageError(f"model {self.name!r} has no fast view; leave --fast away.")
        return self.fast_input

    def __post_init__(self) -> None:
        if self.head_window is not None and not all(0 < size <= _MOST["num_frames"] for size in self.head_window):
            raise ValueError(f"head_window = {self.head_window} should have three sizes above 0, or be None.")
        if not self.labels:
            raise ValueError(f"model {self.name!r} has no labels; a card names every class.")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"model {self.name!r} has the same label twice.")
