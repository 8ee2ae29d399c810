"""Settings of a training run, validated when they are made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from nonlocal_video.blocks.schedule import ProgressiveSchedule
from nonlocal_video.errors import UsageError
from nonlocal_video.models.checkpoint import typed
from nonlocal_video.training.augment import Augmentation
from nonlocal_video.training.distillation.objective import DistillConfig
from nonlocal_video.video.region import Region

Stage = Literal["head", "top", "all"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    All of them except `MAY_DIFFER` determine the result: bit for bit on one CPU, and on one GPU if `deterministic`.
    """

    stage: Stage = "head"
    """Part of the network that is trained: the classifier; the last stage as well (res5, or Mixed_5b and Mixed_5c)
    with its non-local blocks; or everything."""
    epochs: int = 20
    """Number of passes over the training clips."""
    batch_size: int | None = 8
    """Clips in one forward pass, over all processes; none for as many as fit into memory."""
    accumulate: int = 1
    """Number of forward passes whose gradients are averaged into one optimizer step."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    """Optimizer: AdamW, or SGD with Nesterov momentum."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 1e-4
    """Weight decay of the weights of convolutions and linear layers; biases and batch norms have none."""
    momentum: float = 0.9
    """Momentum of SGD."""
    warmup_epochs: float = 1.0
    """Epochs over which the learning rate grows from 0; a cosine then brings it back to 0."""
    label_smoothing: float = 0.0
    """Fraction of each target that is spread evenly over all classes."""
    clip_norm: float | None = None
    """Largest norm of the gradients, which are scaled down to it; none for no limit."""
    batch_norm: Literal["frozen", "batch"] | None = None
    """Statistics of the batch norms: those that came with the weights, or those of each batch; none for frozen with
    pretrained weights and batch without."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights, which is then evaluated and saved; none for no average."""
    precision: Precision = "32-true"
    """Arithmetic: float32, or mixed precision with bfloat16 or float16."""
    gradient_checkpointing: bool = False
    """Recompute activations instead of storing them: less memory, more time, the same numbers."""
    channels_last: bool = False
    """Store features as (N, T, H, W, C) in memory."""
    compile: bool = False
    """Run the network through `torch.compile`."""
    frozen_views: int = 8
    """Random views of each clip whose features are computed once, where a part of the network is frozen; 0 draws a new
    view every epoch."""
    patience: int | None = None
    """Epochs without a better validation figure after which training stops; none for never."""
    seed: int = 0
    """Random seed."""
    deterministic: bool = False
    """Use only algorithms that give the same bits every time: slower on GPUs, an error if PyTorch has none."""
    region: str | None = None
    """Part of the frame of all clips that is seen, X0,Y0,X1,Y1 in fractions of width and height; none for the whole
    frame. Images are seen whole."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Random changes to the training clips."""
    progressive: ProgressiveSchedule | None = None
    """Schedule on which the non-local blocks join; none for all from the start."""
    distillation: DistillConfig | None = None
    """Distillation from a teacher; none for labels only."""
    teacher_views: int = 0
    """Random views of each clip for which the teacher's answers are computed once; 0 asks about a new view every
    epoch."""
    save_every_steps: int | None = None
    """Steps between two saves of the state that resuming needs; none for once an epoch."""
    workers: int = 2
    """Processes that load clips, for each training process; 0 loads in the training process itself."""
    cache_gib: float = 8.0
    """GiB of disk for each of: decoded clips; computed features, or the student's cached views; a teacher's answers."""

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1), ("batch_size", 1), ("accumulate", 1), ("frozen_views", 0), ("teacher_views", 0),
            ("patience", 1), ("seed", 0), ("save_every_steps", 1), ("workers", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} = {value} should be at least {least}.")
        for name in ("learning_rate", "weight_decay", "warmup_epochs", "cache_gib"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name} = {value} should be a finite number, 0 or above.")
        if self.clip_norm is not None and not (math.isfinite(self.clip_norm) and self.clip_norm > 0):
            raise UsageError(f"clip_norm = {self.clip_norm} should be a finite number above 0, or none for no bound.")
        seen = Region.parse(self.region)
        object.__setattr__(self, "region", None if seen is None else str(seen))
        for name in ("momentum", "label_smoothing", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"{name} = {value} should be from 0 to below 1.")
        mixes = self.augmentation.mixup or self.augmentation.cutmix
        if self.stage != "all" and self.frozen_views and mixes:
            raise UsageError(
                "mixup and cutmix mix whole clips, so features cannot be cached; set frozen_views = 0 or stage = 'all'."
            )
        if self.stage != "all" and self.distillation is not None:
            raise UsageError(f"stage = {self.stage!r} freezes the student's trunk; distillation needs stage = 'all'.")
        if self.stage != "all" and self.progressive is not None:
            raise UsageError(f"progressive opens blocks that stage = {self.stage!r} freezes; use stage = 'all'.")
        if self.progressive is not None and not math.isfinite(self.progressive.total_epochs):
            raise UsageError(f"progressive = {self.progressive} should have finite numbers of epochs.")
        if self.teacher_views and self.distillation is None:
            raise UsageError(
                f"teacher_views = {self.teacher_views} needs a teacher; set distillation.teacher, or teacher_views = 0."
            )
        if self.distillation is not None and mixes and self.teacher_views:
            raise UsageError(
                "Teacher outputs cannot be cached for clips mixed by mixup or cutmix; set teacher_views = 0."
            )

    @property
    def seen_region(self) -> Region | None:
        """Part of the frame that is seen; None for all of it."""
        return Region.parse(self.region)

    @property
    def caches_features(self) -> bool:
        """Whether the features of the frozen part are computed once per view, before training."""
        return self.stage != "all" and self.frozen_views > 0

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for JSON."""
        return asdict(self)


MAY_DIFFER = ("workers", "cache_gib", "save_every_steps")
"""Settings that do not affect the result."""


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read the settings of a YAML recipe: fields of `TrainConfig`, and optionally `model`.

    Raises:
        UsageError: The file cannot be read or is not a mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"The recipe {str(path)!r} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"The recipe {str(path)!r} should contain settings, one per line, such as `epochs: 20`.")
    return values


def make_config(values: dict[str, Any]) -> TrainConfig:
    """Make a `TrainConfig` from plain values; missing settings get their defaults.

    Raises:
        UsageError: A name is unknown, or a value is invalid.
    """
    known = [one.name for one in fields(TrainConfig)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UsageError(f"{', '.join(unknown)} is not a training setting; the settings are: {', '.join(known)}.")
    try:
        return typed(TrainConfig, values)
    except ValueError as error:
        reasons = str(error).replace("Value error, ", "").removesuffix(".")  # pydantic's name for our own sentences
        raise UsageError(f"The training settings are invalid: {reasons}.") from error


def resolved(config: TrainConfig, *, has_weights: bool) -> TrainConfig:
    """Return the settings with `batch_norm` decided, which depends on whether the run starts from weights."""
    return config if config.batch_norm else replace(config, batch_norm="frozen" if has_weights else "batch")
