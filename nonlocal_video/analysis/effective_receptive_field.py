"""Effective receptive fields: which frames and pixels influence a unit, by its gradients (Luo et al., NIPS 2016)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nonlocal_video.analysis.networks import nonlocal_blocks, without_blocks
from nonlocal_video.analysis.receptive_field import LayerField, theoretical_fields
from nonlocal_video.attention.capture import forward_and_capture

TWO_SIGMA = 1 - 0.9545
"""Luo et al., section 3: the field is where the gradient is above 1 - 95.45% of its peak. Two standard deviations of a
Gaussian would be exp(-2) = 13.5%; the paper's threshold is kept so that figures can be compared with its own."""


@dataclass(frozen=True, repr=False)
class EffectiveField:
    """Gradient map of the middle unit of a layer, on the axes (T, H, W) or (H, W) of the network's input."""

    theoretical: LayerField
    """Theoretical field of the same unit."""
    gradient: NDArray[np.float64]
    """Absolute gradient of the unit's summed channels, summed over the input's channels, averaged over inputs and
    scaled to a sum of 1."""
    num_inputs: int
    """Number of inputs."""

    def __post_init__(self) -> None:
        if self.gradient.shape != self.theoretical.input_size:
            raise ValueError(f"gradient has shape {self.gradient.shape}; the input is {self.theoretical.input_size}.")
        if not np.isclose(self.gradient.sum(), 1) or self.gradient.min() < 0:
            raise ValueError("gradient should be non-negative and sum to 1.")

    def __repr__(self) -> str:
        return f"EffectiveField({self.theoretical.layer!r}, input={self.gradient.shape}, extent={self.extent})"

    def profile(self, axis: int) -> NDArray[np.float64]:
        """Sum the gradient over all other axes."""
        return self.gradient.sum(axis=tuple(other for other in range(self.gradient.ndim) if other != axis))

    @property
    def extent(self) -> tuple[int, ...]:
        """Number of frames or pixels along each axis where the profile is above `TWO_SIGMA` of its peak."""
        profiles = (self.profile(axis) for axis in range(self.gradient.ndim))
        return tuple(int((profile > TWO_SIGMA * profile.max()).sum()) for profile in profiles)

    @property
    def deviation(self) -> tuple[float, ...]:
        """Standard deviation of the gradient's position along each axis, in frames and pixels, weak parts included."""
        return tuple(_deviation(self.profile(axis)) for axis in range(self.gradient.ndim))

    @property
    def area_side(self) -> float:
        """Side of the field as in Luo et al.: the square root of the number of pixels above `TWO_SIGMA` of the peak."""
        picture = self.gradient.sum(axis=tuple(range(self.gradient.ndim - 2)))
        return float(np.sqrt((picture > TWO_SIGMA * picture.max()).sum()))

    def share_outside(self, field: LayerField) -> float:
        """Return the share of the gradient outside a theoretical field.

        For the field of the same layer in the network without its blocks, this is the share that the blocks contribute.
        """
        inside = tuple(
            slice(first, last + 1)
            for first, last in (field.span(axis, index) for axis, index in enumerate(field.centre))
        )
        return float(1 - min(self.gradient[inside].sum(), 1.0))

    def to_row(self) -> dict[str, Any]:
        """Return the figures as column -> plain value, without the map."""
        return {
            **self.theoretical.to_row(),
            "effective_extent": list(self.extent),
            "effective_deviation": list(self.deviation),
            "effective_area_side": self.area_side,
            "num_inputs": self.num_inputs,
        }


def effective_field(
    network: nn.Module,
    input_size: Sequence[int],
    layer: str,
    *,
    inputs: Tensor | None = None,
    num_inputs: int = 4,
    in_channels: int = 3,
    seed: int = 0,
) -> EffectiveField:
    """Compute the gradient of the middle unit of a layer with respect to the input, in eval mode.

    Args:
        network: A module that takes (B, in_channels, *input_size); it does not change.
        input_size: Size (T, H, W) or (H, W).
        layer: Dotted name of a module with a feature map as output.
        inputs: Real inputs (K, in_channels, *input_size), normalised; None draws standard normal noise, as in the
            paper.
        num_inputs: Number of noise inputs.
        in_channels: Number of channels of the input.
        seed: Random seed of the noise.

    Raises:
        ValueError: If the inputs have another shape, or the gradient is zero or not finite.
    """
    (field,) = theoretical_fields(network, input_size, [layer], in_channels=in_channels)
    # Weights without gradients; otherwise every layer would keep its input for them.
    frozen = copy.deepcopy(network).eval().requires_grad_(False)
    parameter = next(frozen.parameters())
    if inputs is None:
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn((num_inputs, in_channels, *input_size), generator=generator)
    if inputs.shape[1:] != (in_channels, *input_size) or len(inputs) < 1:
        raise ValueError(f"inputs has shape {tuple(inputs.shape)}; it should be (K, {in_channels}, *{input_size}).")
    total = np.zeros(tuple(input_size))
    for sample in inputs:  # one by one, for the memory of one
        clip = sample[None].to(parameter.device, parameter.dtype).requires_grad_()
        with torch.enable_grad():
            _, kept = forward_and_capture(frozen, clip, capture_outputs=[layer])
            unit = _unit(kept.outputs[layer], field.centre).sum()
        (gradient,) = torch.autograd.grad(unit, clip)
        total += gradient[0].abs().sum(dim=0).double().cpu().numpy()
    if not total.sum() > 0 or not np.isfinite(total).all():
        raise ValueError(f"The gradient of layer {layer!r} is zero or not finite; its field cannot be measured.")
    return EffectiveField(theoretical=field, gradient=total / total.sum(), num_inputs=len(inputs))


@dataclass(frozen=True)
class FieldComparison:
    """Effective fields of a layer with and without the network's non-local blocks."""

    with_blocks: EffectiveField
    """Field in the network as it is."""
    without_blocks: EffectiveField
    """Field in the network without its blocks."""
    identity_blocks: tuple[str, ...]
    """Blocks that add exactly zero, as new ones do: these cannot change an effective field."""

    def __post_init__(self) -> None:
        if self.with_blocks.theoretical.layer != self.without_blocks.theoretical.layer:
            raise ValueError("with_blocks and without_blocks should be fields of the same layer.")

    @property
    def share_beyond(self) -> float:
        """Share of the gradient from pixels outside the theoretical field of the network without blocks."""
        return self.with_blocks.share_outside(self.without_blocks.theoretical)

    def to_row(self) -> dict[str, Any]:
        """Return the comparison as column -> plain value."""
        return {
            "with_blocks": self.with_blocks.to_row(),
            "without_blocks": self.without_blocks.to_row(),
            "share_beyond": self.share_beyond,
            "identity_blocks": list(self.identity_blocks),
        }


def compare_fields(
    network: nn.Module,
    input_size: Sequence[int],
    layer: str,
    *,
    inputs: Tensor | None = None,
    num_inputs: int = 4,
    in_channels: int = 3,
) -> FieldComparison:
    """Compute the effective field with and without non-local blocks, from the same inputs.

    Arguments are those of `effective_field`. A layer that is itself a block is the identity in the network without
    blocks.
    """
    fields = [
        effective_field(variant, input_size, layer, inputs=inputs, num_inputs=num_inputs, in_channels=in_channels)
        for variant in (network, without_blocks(network))
    ]
    return FieldComparison(
        with_blocks=fields[0],
        without_blocks=fields[1],
        identity_blocks=tuple(name for name, block in nonlocal_blocks(network).items() if block.is_identity),
    )


def _unit(features: Tensor, cell: Sequence[int]) -> Tensor:
    """Return the channels (C,) at one cell of (1, C, *cells)."""
    unit = features[0]
    for index in cell:
        unit = unit[:, index]
    return unit


def _deviation(profile: NDArray[np.float64]) -> float:
    places = np.arange(len(profile))
    mean = (profile * places).sum()
    return float(np.sqrt((profile * (places - mean) ** 2).sum()))
