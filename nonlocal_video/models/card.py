"""The model card: everything a network's weights need around them to give the right answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class InputSpec:
    """How a clip becomes the network's input."""

    num_frames: int
    frames_per_second: float
    short_side: int
    """The frame's shorter side after the resize, in pixels."""
    crop: int
    """Side of the square that the network sees, in pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """x -> (x / 255 - mean) / std, per RGB channel."""

    def __post_init__(self) -> None:
        for name in ("num_frames", "frames_per_second", "short_side", "crop"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)} should be above 0.")
        if self.crop > self.short_side:
            raise ValueError(f"crop = {self.crop} should not exceed short_side = {self.short_side}.")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(f"{self.mean = } and {self.std = } should have three numbers each.")

    @property
    def span_seconds(self) -> float:
        """How much of the clip one view covers."""
        return self.num_frames / self.frames_per_second


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
    licence: str = ""
    source: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)
    """Sentences shown to whoever uses the model."""

    def __post_init__(self) -> None:
        if not self.labels:
            raise ValueError(f"model {self.name!r} has no labels; a card names every class.")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"model {self.name!r} has the same label twice.")
