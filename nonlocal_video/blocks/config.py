"""What a non-local block is made of, as one checked value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

NonLocalType = Literal["gaussian", "embedded_gaussian", "dot_product", "concatenation"]
NonLocalMode = Literal["spacetime", "space_only", "time_only"]
PoolOrder = Literal["pool_conv", "conv_pool"]
Scale = float | Literal["inverse_sqrt"] | None


@dataclass(frozen=True)
class NonLocalConfig:
    """A non-local block, Wang et al., CVPR 2018, section 3. `mode` and `temporal_groups` act on video only."""

    inter_channels: int | None = None
    """Channels of theta, phi and g; None is half of the block's input."""
    nonlocal_type: NonLocalType = "embedded_gaussian"
    mode: NonLocalMode = "spacetime"
    sub_sample: bool = True
    """Max-pool keys and values by 2 along height and width ((1, 2, 2) in video)."""
    pool_order: PoolOrder = "conv_pool"
    """Max-pooling before or after the 1x1x1 convolutions phi and g: published weights differ, shapes do not."""
    scale: Scale = None
    """Factor on theta^T phi before the softmax. None is 1, as in the paper (eq. 3); "inverse_sqrt" is
    inter_channels ** -0.5, as in the authors' code; or any number."""
    bn_layer: bool = True
    """Batch norm after W, its gain zero when new."""
    embed_bias: bool = True
    """Bias in theta, phi and g."""
    out_bias: bool = True
    """Bias in W."""
    temporal_groups: int | None = None
    """Frames per group; None lets all frames see each other. Groups of 4 are what some published weights use."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("nonlocal_type", self.nonlocal_type, get_args(NonLocalType)),
            ("mode", self.mode, get_args(NonLocalMode)),
            ("pool_order", self.pool_order, get_args(PoolOrder)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} = {value!r} should be one of {allowed}.")
        for name, number in (("inter_channels", self.inter_channels), ("temporal_groups", self.temporal_groups)):
            if number is not None and number < 1:
                raise ValueError(f"{name} = {number} should be at least 1, or None.")
        if isinstance(self.scale, str) and self.scale != "inverse_sqrt":
            raise ValueError(f"scale = {self.scale!r} should be a number, 'inverse_sqrt' or None.")
        if isinstance(self.scale, float | int) and not math.isfinite(self.scale):
            raise ValueError(f"scale = {self.scale!r} should be finite.")
        if self.scale is not None and self.nonlocal_type != "embedded_gaussian":
            raise ValueError(
                f"scale = {self.scale!r} only acts on nonlocal_type='embedded_gaussian', not on "
                f"{self.nonlocal_type!r}; leave it None."
            )
        if self.temporal_groups is not None and self.mode == "space_only":
            raise ValueError(
                f"temporal_groups = {self.temporal_groups} has no meaning in mode='space_only', where no frame sees "
                "another; leave it None."
            )
