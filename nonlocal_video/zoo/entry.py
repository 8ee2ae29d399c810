"""One published checkpoint: everything that has to be known beside its tensors."""

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
    """What one may do with the weights."""

    name: str
    """SPDX identifier where there is one, else the words of the publisher."""
    non_commercial: bool = False


@dataclass(frozen=True)
class Download:
    """The published file."""

    url: str
    file_format: FileFormat
    sha256: str | None = None
    """All 64 hex digits, or the first 8 where only these are published, or None where no hash is."""
    affine: bool = False
    """The file's batch norms are a gain and a bias alone, without statistics; its non-local blocks may have none."""
    by_hand: bool = False
    """The address is a page that asks a person, not a file that can be fetched."""
    size_mb: float | None = None
    """Size of the file in 10^6 bytes, where its publisher states it."""

    def __post_init__(self) -> None:
        if self.sha256 is not None and (len(self.sha256) not in (8, 64) or set(self.sha256) - set("0123456789abcdef")):
            raise ValueError(f"sha256 = {self.sha256!r} should be 8 or 64 lower-case hex digits, or left out.")
        if self.size_mb is not None and self.size_mb <= 0:
            raise ValueError(f"size_mb = {self.size_mb} should be above 0, or left out.")


@dataclass(frozen=True)
class PublishedInput:
    """The input in its publisher's own terms: T frames every `frame_stride`, values from 0 to `value_range`."""

    num_frames: int
    frame_stride: int
    stride_counts: Literal["frames", "thirtieths"]
    """What the stride counts: the clip's own frames, or frames at 30 a second whatever the clip's rate."""
    short_side: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    value_range: Literal[1, 255] = 1
    channel_order: Literal["RGB"] = "RGB"
    resize_to: tuple[int, int] | None = None
    antialias: bool = False
    clip_placement: ClipPlacement = "both_ends"
    frame_placement: FramePlacement = "start_of_steps"
    short_clips: ShortClips = "loop"
    crop_placement: CropPlacement = "centre_rounded_up"
    longer_side: LongerSide = "rounded_down"

    def spec(self) -> InputSpec:
        """The same as this project's `InputSpec`, whose mean and std are of values from 0 to 1."""
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
    source: Source
    config: dict[str, Any]
    """What differs from the defaults of `ResNet3DConfig`, as in a model card; `nonlocal_blocks` holds the details of
    the blocks: where, kernel, scale, pooling order, biases."""
    input: PublishedInput
    labels: LabelList
    parameters: int
    last_features: tuple[int, int, int, int]
    """Channels, frames, rows and columns of the last features of one view of `view_side` pixels."""
    gmacs: float | None
    """Multiply-accumulates of one view of `view_side` pixels, in 10^9."""
    licence: Licence
    download: Download | None = None
    """None: no weights were published, only the configuration."""
    accuracy: Accuracy | None = None
    average: Literal["probabilities", "logits"] = "probabilities"
    head_window: tuple[int, int, int] | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def view_side(self) -> int:
        """Pixels for which the row's figures are stated: 224, or 112 for networks trained at that."""
        return min(self.input.crop, 224)

    @property
    def card(self) -> ModelCard:
        """The model card that travels with the converted weights."""
        blocks = list(self.config.get("nonlocal_blocks", {}))
        stage_and_block = blocks[-1].split(".") if blocks else None
        return ModelCard(
            name=self.name,
            architecture="resnet3d",
            config=deepcopy(self.config),  # rows share parts of theirs
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
        """Size of the published file in 10^6 bytes; None where there is none.

        Where its publisher states no size (`download.size_mb`), about: 4 bytes for each parameter. A file that also
        holds the optimiser's state is larger.
        """
        if self.download is None:
            return None
        return 4 * self.parameters / 1e6 if self.download.size_mb is None else self.download.size_mb

    @property
    def network_config(self) -> ResNet3DConfig:
        """`config` as `Video3DResNet.from_config` takes it."""
        from nonlocal_video.models.resnet3d import ResNet3DConfig

        return TypeAdapter(ResNet3DConfig).validate_python(self.config)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
