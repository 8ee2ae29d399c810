"""The non-local block on video: over all positions of a clip, within each frame, or along time at each pixel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from nonlocal_video.blocks.config import NonLocalConfig, NonLocalMode, NonLocalType, PoolOrder, Scale
from nonlocal_video.blocks.nonlocal_block import NonLocalBlock


class VideoNonLocalBlock(NonLocalBlock):
    """Non-local block on video (B, C, T, H, W), over spacetime, space or time (Wang et al., CVPR 2018, eq. 1 and 6).

    - "spacetime": each position attends to all positions of all frames.
    - "space_only": each position attends to the positions of its own frame.
    - "time_only": each position attends to the same position in all frames.

    `temporal_groups` limits "all frames" to those of the same group of consecutive frames.

    `sub_sample` pools keys and values by (1, 2, 2) in the modes with space. In "time_only" there is one position per
    frame and nothing to pool, so it has no effect.

    The clip is thus divided into S sets of positions that attend to each other: T frames, H*W pixels or T /
    temporal_groups groups. `forward(x, return_nl_map=True)` returns their maps as (B, S, N', M') with N' queries and M'
    keys per set, or (B, N, M) for undivided spacetime. `attention` and `attention_received` always refer to the whole
    clip: keys are the M = T*H'*W' positions of `key_size((T, H, W))`, and keys outside a query's set have weight
    exactly 0.

    Args:
        in_channels: Number of channels C of the input.
        inter_channels: Number of channels of theta, phi and g; None is half of C (at least 1).
        mode: Which positions attend to each other, see above.
        sub_sample: Whether keys and values are max-pooled by (1, 2, 2).
        bn_layer: Whether a batch norm follows W.
        nonlocal_type: The pairwise function f and its normalisation; see `nonlocal_video.blocks.kernels`.
        scale: Factor on theta . phi before the softmax of the embedded Gaussian; None is 1, "inverse_sqrt" is
            inter_channels ** -0.5.
        pool_order: Max-pooling before ("pool_conv") or after ("conv_pool") phi and g.
        embed_bias: Whether theta, phi and g have a bias.
        out_bias: Whether W has a bias.
        temporal_groups: Number of frames in a group, which must divide T; None is one group.

    Raises:
        ValueError: If an argument is out of range or has no meaning beside another one.

    Example:
        >>> block = VideoNonLocalBlock(32, mode="space_only")
        >>> x = torch.randn(1, 32, 4, 8, 8)
        >>> z, weights = block(x, return_nl_map=True)
        >>> z.shape, weights.shape
        (torch.Size([1, 32, 4, 8, 8]), torch.Size([1, 4, 64, 16]))
    """

    def __init__(
        self,
        in_channels: int,
        inter_channels: int | None = None,
        mode: NonLocalMode = "spacetime",
        sub_sample: bool = True,
        bn_layer: bool = True,
        *,
        nonlocal_type: NonLocalType = "embedded_gaussian",
        scale: Scale = None,
        pool_order: PoolOrder = "conv_pool",
        embed_bias: bool = True,
        out_bias: bool = True,
        temporal_groups: int | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            inter_channels,
            3,
            sub_sample,
            bn_layer,
            nonlocal_type,
            scale=scale,
            pool_order=pool_order,
            embed_bias=embed_bias,
            out_bias=out_bias,
        )
        self.config = replace(self.config, mode=mode, temporal_groups=temporal_groups)

    @classmethod
    def from_config(cls, in_channels: int, config: NonLocalConfig) -> VideoNonLocalBlock:
        """Create the block that `config` describes, for features of `in_channels` channels."""
        return cls(
            in_channels,
            config.inter_channels,
            config.mode,
            config.sub_sample,
            config.bn_layer,
            nonlocal_type=config.nonlocal_type,
            scale=config.scale,
            pool_order=config.pool_order,
            embed_bias=config.embed_bias,
            out_bias=config.out_bias,
            temporal_groups=config.temporal_groups,
        )

    @property
    def mode(self) -> NonLocalMode:
        """Positions that attend to each other."""
        return self.config.mode

    def get_block_info(self) -> dict[str, Any]:
        """Return the block's settings and size; `memory_bytes` is the size of its parameters and buffers."""
        return super().get_block_info() | {"mode": self.config.mode, "temporal_groups": self.config.temporal_groups}

    def extra_repr(self) -> str:
        """Return the mode, the kernel, the pooling and the variant for `repr`."""
        return f"{self.config.mode}, {super().extra_repr()}"

    def _pool_kernel(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return (1, 1, 1) if self.config.mode == "time_only" else super()._pool_kernel(size)

    def _fold(self, grid: Tensor) -> Tensor:
        """Reshape (B, D, T, H, W) -> (B S, L, D). Groups (and pixels) become samples."""
        batch, depth, num_frames, height, width = grid.shape
        group = self._frames_per_group(num_frames)
        split = grid.reshape(batch, depth, num_frames // group, group, height * width)
        if self.config.mode == "time_only":
            # (B, D, T/G, G, HW) -> (B, T/G, HW, G, D)
            return split.permute(0, 2, 4, 3, 1).reshape(batch * (num_frames // group) * height * width, group, depth)
        # (B, D, T/G, G, HW) -> (B, T/G, G, HW, D)
        return split.permute(0, 2, 3, 4, 1).reshape(batch * (num_frames // group), group * height * width, depth)

    def _unfold(self, rows: Tensor, x: Tensor) -> Tensor:
        batch, _, num_frames, height, width = x.shape
        group, depth = self._frames_per_group(num_frames), rows.shape[2]
        if self.config.mode == "time_only":
            split = rows.reshape(batch, num_frames // group, height * width, group, depth).permute(0, 4, 1, 3, 2)
        else:
            split = rows.reshape(batch, num_frames // group, group, height * width, depth).permute(0, 4, 1, 2, 3)
        return split.reshape(batch, depth, num_frames, height, width)  # from (B, D, T/G, G, HW)

    def _shape_map(self, weights: Tensor, x: Tensor) -> Tensor:
        undivided = self.config.mode == "spacetime" and self.config.temporal_groups is None
        if undivided:
            return weights
        num_frames, height, width = x.shape[2:]
        sets_per_group = height * width if self.config.mode == "time_only" else 1
        return weights.unflatten(0, (len(x), num_frames // self._frames_per_group(num_frames) * sets_per_group))

    def _frames_per_group(self, num_frames: int) -> int:
        if self.config.mode == "space_only":
            return 1
        group = self.config.temporal_groups or num_frames
        if num_frames % group:
            raise ValueError(
                f"The block works on groups of temporal_groups = {group} frames, which do not divide its input's "
                f"{num_frames}; give it a multiple of {group}."
            )
        return group
