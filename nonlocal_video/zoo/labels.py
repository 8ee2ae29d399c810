"""The label lists in the package."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Literal

LabelList = Literal["kinetics400", "kinetics600", "kinetics700", "kinetics700_3d_resnets"]
"""Names of the lists. The last has the classes of the one before in the order of 3D-ResNets-PyTorch's outputs."""


@lru_cache
def read_labels(name: LabelList) -> tuple[str, ...]:
    """Return the class names of a list in the order of a network's outputs."""
    text = (files("nonlocal_video.weights") / f"{name}.txt").read_text("utf-8")
    return tuple(text.splitlines())
