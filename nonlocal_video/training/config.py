"""What a training run is asked to do, as one checked value."""

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

Stage = Literal["head", "top", "all"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run. All but `MAY_DIFFER` decide the result, bit for bit on one CPU, or GPU if `deterministic`."""

    stage: Stage = "head"
    """What learns: the classifier; the last stage of the network, too (res5, or Mixed_5b and Mixed_5c); everything."""
    epochs: int = 20
    batch_size: int | None = 8
    """Clips in one forward pass, of all processes together; None is as many as fit into memory."""
    accumulate: int = 1
    """Forward passes whose gradients are averaged into one optimisation step."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    """At its highest."""
    weight_decay: float = 1e-4
    """Weight decay of convolutions and linear layers; biases and batch norms have none."""
    momentum: float = 0.9
    """Momentum of SGD (Nesterov's)."""
    warmup_epochs: float = 1.0
    """In which the learning rate grows from 0; a cosine then brings it back to 0."""
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    """Gradients are scaled down to at most this norm."""
    batch_norm: Literal["frozen", "batch"] | None = None
    """Normalise with the statistics that came with the weights, or with each batch's; None is the first with weights
    and the second without."""
    ema_decay: float | None = None
    """Decay of the averaged weights, which are then evaluated and saved; None takes the weights as they are."""
    precision: Precision = "32-true"
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, more time, the same numbers."""
    channels_last: bool = False
    """Keep features as (N, T, H, W, C) in memory."""
    compile: bool = False
    """`torch.compile` the network."""
    frozen_views: int = 8
    """With a part that does not learn: so many random views of each clip, whose features are computed once. 0 takes
    another view in every epoch."""
    patience: int | None = None
    """Stop after so many epochs without a better validation figure."""
    seed: int = 0
    deterministic: bool = False
    """Only algorithms that give the same bits every time, which some GPU operations have at a cost."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    progressive: ProgressiveSchedule | None = None
    """When which non-local blocks join in; None is all from the start."""
    distillation: DistillConfig | None = None
    """A teacher to learn from."""
    teacher_views: int = 0
    """With a teacher: so many random views of each clip, for which its answers are computed once. 0 asks it about
    another view in every epoch."""
    save_every_steps: int | None = None
    """How often the state to resume from is saved; None is once an epoch."""
    workers: int = 2
    """Processes that load clips, in each training process; 0 loads in the training process itself."""
    cache_gib: float = 8.0
    """GiB of disk for each of: decoded clips, computed features or the student's cached views, a teacher's answers."""

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
        for name in ("momentum", "label_smoothing", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"{name} = {value} should be from 0 to below 1.")
        mixes = self.augmentation.mixup or self.augmentation.cutmix
        if self.stage != "all" and self.frozen_views and mixes:
            raise UsageError("mixup and cutmix mix whole clips; with them set frozen_views = 0 or stage = 'all'.")
        if self.stage != "all" and self.distillation is not None:
            raise UsageError(f"stage = {self.stage!r} keeps the student's trunk as it is; a teacher wants 'all'.")
        if self.stage != "all" and self.progressive is not None:
            raise UsageError(f"progressive opens blocks that stage = {self.stage!r} keeps as they are; take 'all'.")
        if self.progressive is not None and not math.isfinite(self.progressive.total_epochs):
            raise UsageError(f"progressive = {self.progressive} should have finite numbers of epochs.")
        if self.teacher_views and self.distillation is None:
            raise UsageError(f"teacher_views = {self.teacher_views} only acts with a teacher; name one, or take 0.")
        if self.distillation is not None and mixes and self.teacher_views:
            raise UsageError("mixup and cutmix make clips that no kept answer is about; set teacher_views = 0.")

    @property
    def keeps_features(self) -> bool:
        """Whether the part that does not learn runs once for each view, before training."""
        return self.stage != "all" and self.frozen_views > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


MAY_DIFFER = ("workers", "cache_gib", "save_every_steps")
"""Settings on which the result does not depend."""


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML file: names of `TrainConfig`, and perhaps `model`.

    Raises:
        UsageError: It is not such a file.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"The recipe {str(path)!r} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"The recipe {str(path)!r} should have settings, a line each, like `epochs: 20`.")
    return values


def make_config(values: dict[str, Any]) -> TrainConfig:
    """Settings from plain values; those that are left out have their defaults.

    Raises:
        UsageError: A name is unknown, or a value is not allowed.
    """
    known = [one.name for one in fields(TrainConfig)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UsageError(f"{', '.join(unknown)} is no setting of training; there are: {', '.join(known)}.")
    try:
        return typed(TrainConfig, values)
    except ValueError as error:
        reasons = str(error).replace("Value error, ", "").removesuffix(".")  # pydantic's name for our own sentences
        raise UsageError(f"The settings of training cannot be used: {reasons}.") from error


def resolved(config: TrainConfig, *, has_weights: bool) -> TrainConfig:
    """With what was left to the run decided."""
    return config if config.batch_norm else replace(config, batch_norm="frozen" if has_weights else "batch")
