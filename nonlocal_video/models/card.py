"""The model card: everything that a network's weights need beside them to give correct predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from nonlocal_video.errors import UsageError
from nonlocal_video.models.taught import TaughtClasses

ClipPlacement = Literal[
    "both_ends", "both_ends_in_steps", "first_to_last_frame", "left_of_parts", "middle_of_parts", "wrapping_parts"
]
FramePlacement = Literal["middle_of_steps", "start_of_steps", "both_ends"]
ShortClips = Literal["loop", "hold_last_frame", "spread"]
CropPlacement = Literal["centre_rounded_up", "centre_rounded_to_even", "steps_rounded_down"]
LongerSide = Literal["rounded_down", "nearest"]

# Far above any real network, and far below what would exhaust a machine's memory.
_MOST: dict[str, float] = {"num_frames": 10_000, "frames_per_second": 10_000, "short_side": 10_000, "crop": 10_000}
_MOST_PIXELS = 1 << 28


@dataclass(frozen=True)
class InputSpec:
    """Steps from a clip to the network's input: sampling in time, resize, crop and normalisation.

    Raises:
        ValueError: If a value is out of range or contradicts another one.

    Example:
        >>> spec = InputSpec(num_frames=32, frames_per_second=15, short_side=256, crop=224,
        ...                  mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))
        >>> round(spec.span_seconds, 3)
        2.133
    """

    num_frames: int
    """Number of frames T of the network's input."""
    frames_per_second: float
    """Sampling rate. With a `frame_stride`, the rate that it gives for a clip of 30 frames per second."""
    short_side: int
    """Shorter side of the resized frame, in pixels."""
    crop: int
    """Side of the square crop that is the network's input, in pixels."""
    mean: tuple[float, float, float]
    """Mean of each RGB channel, for values from 0 to 1."""
    std: tuple[float, float, float]
    """Standard deviation of each RGB channel: the input is (x / 255 - mean) / std."""
    frame_stride: int | None = None
    """Take every n-th frame at any frame rate of the clip, as the weights were trained; None samples by time."""
    resize_to: tuple[int, int] | None = None
    """Height and width of the resized frame if its aspect ratio is not kept; the shorter one is `short_side`."""
    antialias: bool = True
    """Whether frames are smoothed when they shrink. Most published weights were trained and tested without."""
    clip_placement: ClipPlacement = "both_ends"
    """Starts of several clips: evenly from the beginning of the video to its end; the same in whole steps of the
    network's rate (torchvision), or so that the last frame is the video's last (MMAction2 1.x); at the left of equal
    parts of the free time (PySlowFast, pytorchvideo) or in their middle (MMAction2 0.x); or at the left of equal parts
    of the whole video, wrapping around at its end (video-nonlocal-net). A single clip is always the middle one."""
    frame_placement: FramePlacement = "middle_of_steps"
    """Frame that is taken of each of the view's `num_frames` equal steps: the middle one, the first (MMAction2,
    torchvision), or the view's first and last frame and evenly spaced ones between them (PySlowFast, pytorchvideo)."""
    short_clips: ShortClips = "loop"
    """Filling of a view that is longer than the clip: by looping the clip (video-nonlocal-net, MMAction2), by
    repeating its last frame (PySlowFast), or not at all, with the view's frames spread over the clip (pytorchvideo)."""
    crop_placement: CropPlacement = "centre_rounded_up"
    """Places of three crops along the f pixels that they leave free, and a single one in the middle: at 0, ceil(f / 2),
    f (PySlowFast, pytorchvideo), the same with f / 2 rounded to an even number where it is halfway (torchvision), or at
    0, s, 2 s with s = floor(f / 2) (video-nonlocal-net, MMAction2)."""
    longer_side: LongerSide = "rounded_down"
    """Rounding of the resized frame's longer side: down, or to the nearest pixel (MMAction2)."""
    whole_clip: bool = False
    """Whether the frames are spread over the whole clip, or over the part that is asked for, however long it is
    (transformers). `frames_per_second` then gives the length of a timeline's windows alone."""

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            if not 0 < getattr(self, name) <= most:
                raise ValueError(f"{name} = {getattr(self, name)} should be above 0, and at most {most}.")
        if self.num_frames * self.crop**2 > _MOST_PIXELS:
            raise ValueError(
                f"num_frames = {self.num_frames} at crop = {self.crop} are {self.num_frames * self.crop**2:,} pixels; "
                f"at most {_MOST_PIXELS:,} are allowed."
            )
        if self.crop > self.short_side:
            raise ValueError(f"crop = {self.crop} should not exceed short_side = {self.short_side}.")
        if self.frame_stride is not None and not 1 <= self.frame_stride <= _MOST["num_frames"]:
            raise ValueError(f"frame_stride = {self.frame_stride} should be from 1 to {_MOST['num_frames']}, or None.")
        if self.resize_to is not None and max(self.resize_to) > _MOST["short_side"]:
            raise ValueError(f"resize_to = {self.resize_to} should be at most {_MOST['short_side']} each.")
        if self.resize_to is not None and min(self.resize_to) != self.short_side:
            raise ValueError(
                f"resize_to = {self.resize_to} should have short_side = {self.short_side} as its shorter side."
            )
        if self.whole_clip and self.frame_stride is not None:
            raise ValueError(f"frame_stride = {self.frame_stride} should be None with whole_clip, which has its own.")
        if self.clip_placement == "wrapping_parts" and self.short_clips != "loop":
            raise ValueError(
                f"short_clips = {self.short_clips!r} should be 'loop': views of 'wrapping_parts' wrap around."
            )
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(f"mean = {self.mean} and std = {self.std} should have three numbers each.")
        if not all(math.isfinite(number) for number in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise ValueError(f"mean = {self.mean} and std = {self.std} should be finite, and std above 0.")

    @property
    def span_seconds(self) -> float:
        """Seconds of a clip that one view covers; with a `frame_stride`, of a clip of 30 frames per second."""
        return self.num_frames / self.frames_per_second

    def rate_in(self, clip_frames_per_second: float) -> float:
        """Return the sampling rate, in frames per second, for a clip of `clip_frames_per_second`."""
        return self.frames_per_second if self.frame_stride is None else clip_frames_per_second / self.frame_stride


@dataclass(frozen=True)
class Accuracy:
    """A published accuracy in percent on the validation set of the labels, and the views that it was measured with."""

    top1: float
    top5: float
    views: str
    """Number of clips and crops, as CLIPSxCROPS."""


@dataclass(frozen=True)
class ModelCard:
    """Description of a model: its architecture, input, labels and origin. The weights file carries it as JSON.

    Raises:
        ValueError: If there are no labels, a label occurs twice, or `head_window` has a size below 1.

    Example:
        >>> card = nlv.load("default").card
        >>> card.name, len(card.labels), card.input.num_frames
        ('i3d-nl-k400', 400, 64)
    """

    name: str
    architecture: str
    """Name of the network that `nonlocal_video.models.checkpoint.build_network` builds."""
    config: dict[str, Any]
    """Fields of that architecture's configuration dataclass."""
    input: InputSpec
    """Input that the weights were trained for."""
    labels: tuple[str, ...]
    """Class names, in the order of the logits."""
    fast_input: InputSpec | None = None
    """A cheaper input with a measured accuracy; `--fast` uses it."""
    explain_layer: str | None = None
    """Name of the non-local block that overlays show by default."""
    average: Literal["probabilities", "logits"] = "probabilities"
    """Values that are averaged over views (and windows): the softmax of each, or the logits before one softmax."""
    head_window: tuple[int, int, int] | None = None
    """Size (T, H, W), in cells, of the window of the last features that the classifier pools. On a larger map the
    window slides with stride 1 and the results are averaged, as PySlowFast tests at 256 pixels. None pools the whole
    map."""
    published: Accuracy | None = None
    """Accuracy that the publisher of the weights reports."""
    licence: str = ""
    """Licence of the weights."""
    source: str = ""
    """Origin of the weights."""
    notes: tuple[str, ...] = field(default_factory=tuple)
    """Sentences that are shown to users of the model."""
    taught: TaughtClasses | None = None
    """Classes of a model that was taught by examples: their means, by which a clip is found to be unknown."""

    def view(self, *, fast: bool = False) -> InputSpec:
        """Return the model's input, or its cheaper one if `fast`.

        Raises:
            UsageError: If `fast` is asked of a model without a cheaper input.
        """
        if not fast:
            return self.input
        if self.fast_input is None:
            raise UsageError(f"model {self.name!r} has no fast view; leave out --fast.")
        return self.fast_input

    def __post_init__(self) -> None:
        if self.head_window is not None and not all(0 < size <= _MOST["num_frames"] for size in self.head_window):
            raise ValueError(f"head_window = {self.head_window} should have three sizes above 0, or be None.")
        if not self.labels:
            raise ValueError(f"model {self.name!r} has no labels; a card names every class.")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"model {self.name!r} has the same label twice.")
        if self.taught is not None and len(self.taught.means) != len(self.labels):
            raise ValueError(
                f"model {self.name!r} has {len(self.labels)} labels and was taught {len(self.taught.means)} classes."
            )
