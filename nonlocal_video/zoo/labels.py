"""The label lists that come with the package."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Literal

LabelList = Literal["kinetics400", "kinetics600", "kinetics700", "kinetics700_3d_resnets"]
"""The last one has the same classes as the one before, in the order of 3D-ResNets-PyTorch's outputs."""


@lru_cache
def read_labels(name: LabelList) -> tuple[str, ...]:
    """Class names in the order of a network's outputs."""
    text = (files("nonlocal_video.weights") / f"{name}.txt").read_text("utf-8")
    return tuple(text.splitlines())
