"""One published checkpoint: all information about it besides its tensors."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter

from nonlocal_video.models.card import (
    Accuracy,
    ClipPlacement,
    CropPlacement,
    FramePlacement,
    InputSpec,
    LongerSide,
    ModelCard,
    ShortClips,
)
from nonlocal_video.zoo.labels import LabelList, read_labels

if TYPE_CHECKING:
    from nonlocal_video.models.resnet3d import ResNet3DConfig

Source = Literal[
    "nonlocal-video", "pyslowfast", "video-nonlocal-net", "mmaction2", "pytorchvideo", "torchvision", "kenshohara"
]
FileFormat = Literal["safetensors", "torch", "caffe2"]


@dataclass(frozen=True)
class Licence:
    """Licence of the weights."""

    name: str
    """SPDX identifier if there is one, else the publisher's words."""
    non_commercial: bool = False
    """Whether it forbids commercial use."""


@dataclass(frozen=True)
class Download:
    """The published file."""

    url: str
    """Address of the file."""
    file_format: FileFormat
    """Format of the file."""
    sha256: str | None = None
    """SHA-256: all 64 hex digits, the first 8 if only these are published, or None if none are."""
    affine: bool = False
    """Whether batch norms are a gain and a bias alone, without statistics; non-local blocks may then have none."""
    by_hand: bool = False
    """Whether the address is a page for people, not a file that can be downloaded."""
    size_mb: float | None = None
    """Size of the file in 10^6 bytes, if its publisher states it."""

    def __post_init__(self) -> None:
        if self.sha256 is not None and (len(self.sha256) not in (8, 64) or set(self.sha256) - set("0123456789abcdef")):
            raise ValueError(f"sha256 = {self.sha256!r} should be 8 or 64 lower-case hex digits, or left out.")
        if self.size_mb is not None and self.size_mb <= 0:
            raise ValueError(f"size_mb = {self.size_mb} should be above 0, or left out.")


@dataclass(frozen=True)
class PublishedInput:
    """Network input in the publisher's own terms: T frames every `frame_stride`, values from 0 to `value_range`."""

    num_frames: int
    """Number of frames."""
    frame_stride: int
    """Distance between frames, counted as in `stride_counts`."""
    stride_counts: Literal["frames", "thirtieths"]
    """Unit of the stride: the clip's own frames, or frames at 30 per second for any rate of the clip."""
    short_side: int
    """Shorter side of the resized frame, in pixels."""
    crop: int
    """Side of the crop, in pixels."""
    mean: tuple[float, float, float]
    """Mean of each channel, on the scale of `value_range`."""
    std: tuple[float, float, float]
    """Standard deviation of each channel, on the same scale."""
    value_range: Literal[1, 255] = 1
    """Largest value of a pixel."""
    channel_order: Literal["RGB"] = "RGB"
    resize_to: tuple[int, int] | None = None
    antialias: bool = False
    clip_placement: ClipPlacement = "both_ends"
    frame_placement: FramePlacement = "start_of_steps"
    short_clips: ShortClips = "loop"
    crop_placement: CropPlacement = "centre_rounded_up"
    longer_side: LongerSide = "rounded_down"

    def spec(self) -> InputSpec:
        """Return the same as this project's `InputSpec`, whose mean and std are for values from 0 to 1."""
        mean, std = (
            (a / self.value_range, b / self.value_range, c / self.value_range) for a, b, c in (self.mean, self.std)
        )
        return InputSpec(
            num_frames=self.num_frames,
            frames_per_second=30 / self.frame_stride,
            short_side=self.short_side,
            crop=self.crop,
            mean=mean,
            std=std,
            frame_stride=self.frame_stride if self.stride_counts == "frames" else None,
            resize_to=self.resize_to,
            antialias=self.antialias,
            clip_placement=self.clip_placement,
            frame_placement=self.frame_placement,
            short_clips=self.short_clips,
            crop_placement=self.crop_placement,
            longer_side=self.longer_side,
        )


@dataclass(frozen=True)
class CatalogueEntry:
    """A row of the catalogue."""

    name: str
    """Catalogue name."""
    source: Source
    """Project that published the weights."""
    config: dict[str, Any]
    """Fields that differ from the defaults of `ResNet3DConfig`, as in a model card; other architectures have their own
    fields. `nonlocal_blocks` has the position, kernel, scale, pooling order and biases of the blocks."""
    input: PublishedInput
    """Input of the network."""
    labels: LabelList
    """Name of the label list."""
    parameters: int
    """Number of parameters."""
    last_features: tuple[int, int, int, int]
    """Channels, frames, rows and columns of the last features for one view of `view_side` pixels."""
    gmacs: float | None
    """Multiply-accumulates for one view of `view_side` pixels, in 10^9."""
    licence: Licence
    """Licence of the weights."""
    download: Download | None = None
    """The published file; None if only the configuration was published."""
    accuracy: Accuracy | None = None
    """Published accuracy."""
    architecture: Literal["resnet3d", "torchvision"] = "resnet3d"
    """Architecture that `config` is for; see `ModelCard`."""
    average: Literal["probabilities", "logits"] = "probabilities"
    """Values that are averaged over views; see `ModelCard`."""
    head_window: tuple[int, int, int] | None = None
    """Window of the classifier; see `ModelCard`."""
    notes: tuple[str, ...] = field(default_factory=tuple)
    """Sentences that are shown to users of the model."""

    @property
    def view_side(self) -> int:
        """Crop in pixels for which the row's figures hold: 224, or 112 for networks trained at that."""
        return min(self.input.crop, 224)

    @property
    def card(self) -> ModelCard:
        """Return the model card for the converted weights."""
        blocks = list(self.config.get("nonlocal_blocks", {}))
        stage_and_block = blocks[-1].split(".") if blocks else None
        return ModelCard(
            name=self.name,
            architecture=self.architecture,
            config=deepcopy(self.config),  # rows share parts of it
            input=self.input.spec(),
            labels=read_labels(self.labels),
            explain_layer=f"{stage_and_block[0]}.nonlocal{stage_and_block[1]}" if stage_and_block else None,
            average=self.average,
            head_window=self.head_window,
            published=self.accuracy,
            licence=self.licence.name,
            source=self.download.url if self.download else self.source,
            notes=self.notes,
        )

    @property
    def download_mb(self) -> float | None:
        """Size of the published file in 10^6 bytes; None without a file.

        If its publisher states no size (`download.size_mb`), this is an estimate of 4 bytes for each parameter. A file
        that also holds the optimiser's state is larger.
        """
        if self.download is None:
            return None
        return 4 * self.parameters / 1e6 if self.download.size_mb is None else self.download.size_mb

    @property
    def network_config(self) -> ResNet3DConfig:
        """Return `config` as `Video3DResNet.from_config` takes it."""
        from nonlocal_video.models.resnet3d import ResNet3DConfig

        return TypeAdapter(ResNet3DConfig).validate_python(self.config)

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as plain values for JSON."""
        return asdict(self)
