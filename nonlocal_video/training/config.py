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

Stage = Literal["head", "top", "all"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    All of them except `MAY_DIFFER` determine the result: bit for bit on one CPU, and on one GPU if `deterministic`.
    """

    stage: Stage = "head"
    """Trainable part: the classifier (`head`), the last stage as well (`top`: res5, or Mixed_5b and 5c), or `all`."""
    epochs: int = 20
    """Number of epochs."""
    batch_size: int | None = 8
    """Clips per forward pass, over all processes; None uses the largest batch that fits into memory."""
    accumulate: int = 1
    """Forward passes per optimisation step; their gradients are averaged."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    """Optimizer: SGD or AdamW."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 1e-4
    """Weight decay of convolutions and linear layers; biases and batch norms have none."""
    momentum: float = 0.9
    """Nesterov momentum of SGD."""
    warmup_epochs: float = 1.0
    """Epochs of linear warm-up from 0; cosine decay to 0 follows."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes."""
    clip_norm: float | None = None
    """Maximum norm of the gradients; None does not clip them."""
    batch_norm: Literal["frozen", "batch"] | None = None
    """Statistics that batch norms use: those stored with the weights (`frozen`) or those of each `batch`; None is
    `frozen` with pretrained weights and `batch` without."""
    ema_decay: float | None = None
    """Decay of the moving average of the weights, which is then evaluated and saved; None uses no average."""
    precision: Precision = "32-true"
    """Numeric precision, as Lightning Fabric names it."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time, the same result."""
    channels_last: bool = False
    """Store features in memory as (N, T, H, W, C)."""
    compile: bool = False
    """Whether to compile the network with `torch.compile`."""
    frozen_views: int = 8
    """Random views per clip whose features are cached when part of the network is frozen; 0 draws new views in every
    epoch."""
    patience: int | None = None
    """Epochs without improvement on the validation set after which training stops; None never stops early."""
    seed: int = 0
    """Random seed."""
    deterministic: bool = False
    """Whether to use deterministic algorithms only; some GPU operations are slower then."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Random augmentation of training clips."""
    progressive: ProgressiveSchedule | None = None
    """Schedule that opens the non-local blocks stage by stage; None has all open from the start."""
    distillation: DistillConfig | None = None
    """Teacher and weights of the distillation losses; None trains on labels alone."""
    teacher_views: int = 0
    """Random views per clip for which the teacher's outputs are cached; 0 runs the teacher on new views in every
    epoch."""
    save_every_steps: int | None = None
    """Steps between saved training states; None saves one per epoch."""
    workers: int = 2
    """Data loading processes per training process; 0 loads in the training process itself."""
    cache_gib: float = 8.0
    """Maximum size in GiB of each disk cache: decoded clips, features or the student's views, and teacher outputs."""

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
