"""Recommendations: settings that keep a user's limits, from counted operations and rates measured on this machine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from nonlocal_video.analysis.complexity import with_kernel
from nonlocal_video.analysis.counting import count_run
from nonlocal_video.analysis.networks import nonlocal_blocks
from nonlocal_video.analysis.rates import Rates, Size, input_bytes
from nonlocal_video.blocks import NonLocalConfig
from nonlocal_video.models.inception3d import InceptionI3D
from nonlocal_video.models.meta import meta_copy
from nonlocal_video.models.resnet3d import Video3DResNet

CROP_STEP = 32
"""Crops are multiples of the networks' total spatial stride."""
FRAMES_STEP = 8
"""Numbers of frames are multiples of the largest total temporal stride."""


@dataclass(frozen=True)
class Limits:
    """Limits on the cost of one forward pass of one clip.

    Raises:
        ValueError: If neither limit is given, or one is not above 0.
    """

    memory_bytes: float | None = None
    """Memory for weights, input and everything that the pass allocates."""
    seconds_per_clip: float | None = None
    """Time of the pass."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} = {value} should be above 0, or None.")
        if self.memory_bytes is None and self.seconds_per_clip is None:
            raise ValueError("give a limit: memory_bytes, seconds_per_clip, or both.")

    def excess(self, setting: Recommendation) -> float:
        """Return the larger of predicted memory and time as shares of their limits; up to 1 the limits are kept."""
        return _excess(self, setting.predicted_bytes, setting.predicted_seconds)


@dataclass(frozen=True)
class Recommendation:
    """A setting with its predicted cost."""

    change: str
    """Change in words; "nothing" for none."""
    keeps_weights: bool
    """Whether the trained weights still fit; if not, the blocks need training."""
    input_size: Size
    """Size (T, H, W) of the input."""
    nonlocal_blocks: Mapping[str, NonLocalConfig] | None
    """Non-local blocks of the configuration; None if the network is not built from one."""
    macs: int
    """Number of multiply-accumulates."""
    predicted_seconds: float
    """Predicted time of a forward pass of one clip."""
    predicted_bytes: float
    """Predicted memory for weights, input, activations and scratch space of one clip."""
    meets_limits: bool
    """Whether the prediction keeps the limits with the margin."""

    def __post_init__(self) -> None:
        if min(self.input_size) < 1 or self.predicted_seconds <= 0 or self.predicted_bytes <= 0:
            raise ValueError(f"{self} should have positive sizes and figures.")

    def to_row(self) -> dict[str, Any]:
        """Return the recommendation as column -> plain value."""
        blocks = self.nonlocal_blocks
        return {
            **{name: getattr(self, name) for name in ("change", "keeps_weights", "macs")},
            "input_size": list(self.input_size),
            "nonlocal_blocks": None if blocks is None else {name: asdict(config) for name, config in blocks.items()},
            "predicted_seconds": self.predicted_seconds,
            "predicted_clips_per_second": 1 / self.predicted_seconds,
            "predicted_bytes": round(self.predicted_bytes),
            "meets_limits": self.meets_limits,
        }


def recommend(
    network: nn.Module, input_size: Size, limits: Limits, rates: Rates, *, margin: float = 0.2
) -> list[Recommendation]:
    """Find settings that keep the limits, the smallest change first.

    Candidates are the network as it is; smaller inputs, which keep the trained weights; cheaper blocks (another kernel,
    pooled keys, half the inner channels, only the last block, none), which need training; and both together. For each
    kind the candidate with the most operations is returned.

    Args:
        network: A module that takes (1, 3, T, H, W).
        input_size: Intended size (T, H, W) of the input.
        limits: Limits to keep.
        rates: Result of `measure_rates` for the same network on the machine that will run it.
        margin: Share by which predictions have to stay below the limits.

    Returns:
        One recommendation for each kind that keeps the limits with at least half as much more of the clip than those
        before; if no candidate keeps them, the one that comes closest, with `meets_limits` False.

    Raises:
        ValueError: If the margin is not from 0 to below 1.
    """
    if not 0 <= margin < 1:
        raise ValueError(f"{margin = } should be at least 0 and below 1.")
    strict = replace(
        limits,
        **{name: value * (1 - margin) for name, value in asdict(limits).items() if value is not None},
    )
    sizes = _smaller_sizes(network, input_size)
    variants = _variants(network)
    chosen: list[Recommendation] = []
    tried: list[Recommendation] = []
    # No change; a smaller input; other blocks; both.
    for other_blocks, smaller in itertools.product((False, True), repeat=2):
        settings = [
            _predicted(variant, description, size, input_size, blocks, rates, strict)
            for description, variant, blocks in variants
            for size in sizes
            if bool(description) == other_blocks and (size != input_size) == smaller
        ]
        tried += settings
        fitting = [setting for setting in settings if setting.meets_limits]
        best = max(fitting, key=lambda setting: setting.macs, default=None)
        # A larger change has to be worth it.
        if best and all(math.prod(best.input_size) >= 1.5 * math.prod(other.input_size) for other in chosen):
            chosen.append(best)
        if best and not (other_blocks or smaller):
            break
    return chosen or [min(tried, key=strict.excess)]


def build_setting(network: nn.Module, setting: Recommendation) -> nn.Module:
    """Build the recommended network, newly initialised; return `network` itself if its blocks do not change."""
    if setting.nonlocal_blocks is None or setting.keeps_weights:
        return network
    return _with_blocks(network, setting.nonlocal_blocks)


def _predicted(
    variant: nn.Module,
    description: str,
    size: Size,
    input_size: Size,
    blocks: Mapping[str, NonLocalConfig] | None,
    rates: Rates,
    limits: Limits,
) -> Recommendation:
    count = count_run(variant, (1, 3, *size))
    weights = sum(tensor.numel() * tensor.itemsize for tensor in [*variant.parameters(), *variant.buffers()])
    seconds = rates.seconds(count.macs)
    memory = weights + input_bytes(size) + rates.peak_bytes(count.peak_bytes - input_bytes(size))
    changes = [description] if description else []
    changes += [] if size == input_size else [f"{size[0]} frames of {size[1]}x{size[2]} pixels"]
    return Recommendation(
        change=", ".join(changes) or "nothing",
        keeps_weights=not description,
        input_size=size,
        nonlocal_blocks=blocks,
        macs=count.macs,
        predicted_seconds=seconds,
        predicted_bytes=memory,
        meets_limits=_excess(limits, memory, seconds) <= 1,
    )


def _smaller_sizes(network: nn.Module, input_size: Size) -> list[Size]:
    """Return the size itself and smaller ones of the same aspect ratio, down to a quarter of the frames."""
    groups = [block.config.temporal_groups or 1 for block in nonlocal_blocks(network).values()]
    step = math.lcm(FRAMES_STEP, *groups)
    frames = {input_size[0], *(n // step * step for n in (input_size[0] // 2, input_size[0] // 4) if n >= step)}
    side = min(input_size[1:])
    sides = {side, *range(CROP_STEP * max(2, side // 2 // CROP_STEP), side, CROP_STEP)}
    scaled = {(round(input_size[1] * s / side), round(input_size[2] * s / side)) for s in sides}
    return sorted(((t, h, w) for t in frames for h, w in scaled), reverse=True)


def _variants(network: nn.Module) -> list[tuple[str, nn.Module, Mapping[str, NonLocalConfig] | None]]:
    """Return the description, network (on the meta device) and blocks of each variant, the unchanged one first."""
    unchanged = meta_copy(network)
    if not isinstance(network, (InceptionI3D, Video3DResNet)):
        return [("", unchanged, None)]
    blocks = dict(network.config.nonlocal_blocks)
    variants: list[tuple[str, nn.Module, Mapping[str, NonLocalConfig] | None]] = [("", unchanged, blocks)]
    changes = {
        "keys pooled": {name: replace(config, sub_sample=True) for name, config in blocks.items()},
        "dot-product kernel": {name: with_kernel(config, "dot_product") for name, config in blocks.items()},
        "half the inner channels": _half_inner(network, blocks),
        "dot-product kernel, half the inner channels": {
            name: with_kernel(config, "dot_product") for name, config in _half_inner(network, blocks).items()
        },
        "only the last block": _last(network, blocks),
        "no non-local blocks": {},
    }
    for description, changed in changes.items():
        if changed != blocks:
            with torch.device("meta"):
                variants.append((description, _with_blocks(network, changed), changed))
    return variants


def _with_blocks(network: nn.Module, blocks: Mapping[str, NonLocalConfig]) -> nn.Module:
    if isinstance(network, InceptionI3D):
        return InceptionI3D(replace(network.config, nonlocal_blocks=dict(blocks))).eval()
    assert isinstance(network, Video3DResNet)  # `_variants` gives blocks for no other network
    return Video3DResNet.from_config(replace(network.config, nonlocal_blocks=dict(blocks))).eval()


def _half_inner(network: nn.Module, blocks: Mapping[str, NonLocalConfig]) -> dict[str, NonLocalConfig]:
    """Halve the inner channels of each block, whether they are configured or the default."""
    modules = nonlocal_blocks(network)
    return {
        key: replace(config, inter_channels=max(1, modules[_module_name(network, key)].inter_channels // 2))
        for key, config in blocks.items()
    }


def _last(network: nn.Module, blocks: Mapping[str, NonLocalConfig]) -> dict[str, NonLocalConfig]:
    """Keep only the block that runs last; a configuration may list blocks in any order."""
    running = list(nonlocal_blocks(network))
    key = max(blocks, key=lambda key: running.index(_module_name(network, key)), default=None)
    return {} if key is None else {key: blocks[key]}


def _module_name(network: nn.Module, key: str) -> str:
    """Return the module name of the block with this key in a configuration."""
    if isinstance(network, InceptionI3D):
        return f"nonlocal_{key}"
    stage, _, index = key.partition(".")
    return f"{stage}.nonlocal{index}"


def _excess(limits: Limits, memory_bytes: float, seconds: float) -> float:
    pairs = ((memory_bytes, limits.memory_bytes), (seconds, limits.seconds_per_clip))
    return max(cost / limit for cost, limit in pairs if limit is not None)
