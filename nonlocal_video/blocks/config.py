"""The settings of a non-local block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

NonLocalType = Literal["gaussian", "embedded_gaussian", "dot_product", "concatenation"]
NonLocalMode = Literal["spacetime", "space_only", "time_only"]
PoolOrder = Literal["pool_conv", "conv_pool"]
Scale = float | Literal["inverse_sqrt"] | None
SOFTMAX_TYPES: tuple[NonLocalType, ...] = ("gaussian", "embedded_gaussian")
"""Kernels whose weights sum to 1 for each query."""


@dataclass(frozen=True)
class NonLocalConfig:
    """Settings of a non-local block (Wang et al., CVPR 2018, section 3).

    `mode` and `temporal_groups` act on video only.

    Example:
        >>> config = NonLocalConfig(nonlocal_type="dot_product", mode="time_only")
        >>> VideoNonLocalBlock.from_config(64, config).get_block_info()["inter_channels"]
        32
        >>> NonLocalConfig(nonlocal_type="softmax")
        Traceback (most recent call last):
        ValueError: nonlocal_type = 'softmax' should be one of ('gaussian', 'embedded_gaussian', ...

    Raises:
        ValueError: If a value is not allowed, or has no meaning beside another one.
    """

    inter_channels: int | None = None
    """Number of channels of theta, phi and g; None is half of the block's input channels."""
    nonlocal_type: NonLocalType = "embedded_gaussian"
    mode: NonLocalMode = "spacetime"
    """Positions that attend to each other; see `VideoNonLocalBlock`."""
    sub_sample: bool = True
    """Whether keys and values are max-pooled by 2 along height and width ((1, 2, 2) in video)."""
    pool_order: PoolOrder = "conv_pool"
    """Max-pooling before or after the 1x1x1 convolutions phi and g. Published weights differ in it."""
    scale: Scale = None
    """Factor on theta^T phi before the softmax. None is 1, as in the paper (eq. 3). "inverse_sqrt" is
    inter_channels ** -0.5, as in the authors' code. Any finite number is allowed."""
    bn_layer: bool = True
    """Whether a batch norm follows W. Its gain is zero in a new block."""
    embed_bias: bool = True
    """Whether theta, phi and g have a bias."""
    out_bias: bool = True
    """Whether W has a bias."""
    temporal_groups: int | None = None
    """Number of frames in a group; None is one group of all frames. Some published weights use groups of 4."""

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
                f"temporal_groups = {self.temporal_groups} has no meaning in mode='space_only', where a frame attends "
                "to itself only; leave it None."
            )
