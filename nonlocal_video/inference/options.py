"""Options that say how a model runs: on what, in which arithmetic, and how clips are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nonlocal_video.inference.precision import Precision
from nonlocal_video.inference.runtimes.choice import RuntimeOption
from nonlocal_video.video.decode import DecoderChoice, VideoReader
from nonlocal_video.video.limits import DecodeLimits


@dataclass(frozen=True)
class RunOptions:
    """Options of a model's run; the same for every clip, and sent along to other processes."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    runtime: RuntimeOption = "auto"
    """`auto` is OpenVINO where it saves time on a CPU, else PyTorch."""
    precision: Precision = "float32"
    decoder: DecoderChoice = "auto"
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    """Limits for a file."""

    def keywords(self) -> dict[str, Any]:
        """Return the options as the keyword arguments of `load` and `Recognizer`."""
        return dict(vars(self))

    def new_reader(self) -> VideoReader:
        """Return a reader with the decoder and the limits; the caller closes it."""
        return VideoReader(decoder=self.decoder, limits=self.limits)
