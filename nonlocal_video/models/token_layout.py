"""Networks whose layers give tokens: where in the clip each token lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from nonlocal_video.errors import ModelError

Axes = tuple[int, int, int]


@dataclass(frozen=True)
class TokenLayout:
    """Places of a layer's tokens: a grid of patches, perhaps with tokens before it that have no place.

    Raises:
        ValueError: A size or stride is not positive.

    Example:
        >>> layout = TokenLayout(size=(8, 14, 14), patch=(2, 16, 16))
        >>> layout.as_map(torch.zeros(1, 8 * 14 * 14, 768)).shape
        torch.Size([1, 768, 8, 14, 14])
    """

    size: Axes
    """Number of patches along time, height and width."""
    patch: Axes
    """Frames, rows and columns from one patch to the next, in the network's input."""
    num_before: int = 0
    """Tokens before the patches, such as a class token."""
    first: tuple[float, float, float] | None = None
    """Centre of the first patch where patches overlap, in frames and pixels; None is the middle of the patch."""
    time_last: bool = False
    """Whether tokens run through time fastest (height, width, time), instead of (time, height, width)."""

    def __post_init__(self) -> None:
        if min(self.size) < 1 or min(self.patch) < 1 or self.num_before < 0:
            raise ValueError(
                f"{self.size = } and {self.patch = } should be above 0, and {self.num_before = } at least 0."
            )

    @property
    def num_patches(self) -> int:
        """Number of patches."""
        return self.size[0] * self.size[1] * self.size[2]

    @property
    def offset(self) -> tuple[float, float, float]:
        """Centre of the first patch, 0 being the centre of the first frame or pixel."""
        time, height, width = self.patch
        if self.first is not None:
            return self.first
        return (time - 1) / 2, (height - 1) / 2, (width - 1) / 2

    def token_of_cell(self, device: torch.device | None = None) -> Tensor:
        """Return the index of the token of each cell, (T' * H' * W',) with cells in the order time, height, width."""
        time, height, width = self.size
        tokens = torch.arange(self.num_patches, device=device)
        if self.time_last:
            tokens = tokens.reshape(height, width, time).permute(2, 0, 1).flatten()
        return tokens + self.num_before

    def as_map(self, tokens: Tensor) -> Tensor:
        """Arrange tokens (B, N, C) or (B, T', H', W', C) as a feature map (B, C, T', H', W'), which stays as it is.

        Raises:
            ModelError: The layer gives another number of tokens.
        """
        if tokens.ndim == 5 and tokens.shape[2:] == self.size:
            return tokens
        if tokens.ndim == 5 and tokens.shape[1:4] == self.size:
            return tokens.permute(0, 4, 1, 2, 3)
        if tokens.ndim != 3 or tokens.shape[1] != self.num_before + self.num_patches:
            raise ModelError(
                f"A layer with an output of {tuple(tokens.shape)} does not give a token for each of the {self.size} "
                f"patches. Name a layer of the network's encoder."
            )
        cells = tokens[:, self.token_of_cell(tokens.device)]  # (B, T' H' W', C)
        return cells.transpose(1, 2).unflatten(2, self.size)


@runtime_checkable
class TokenNetwork(Protocol):
    """A network that says where its tokens lie; what else networks may say is in docs/own_network.md."""

    def token_layout(self, layer: str) -> TokenLayout | None:
        """Return the layout of a layer's output, by its dotted name; None if it is a feature map."""
        ...


def layout_of(network: nn.Module, layer: str) -> TokenLayout | None:
    """Return the layout of the tokens that a layer gives; None if it gives a feature map (B, C, T', H', W')."""
    return network.token_layout(layer) if isinstance(network, TokenNetwork) else None


def first_tensor(output: object) -> Tensor:
    """Return a layer's output; of a tuple the first element, which is the hidden state in all libraries known here."""
    found = output[0] if isinstance(output, tuple) else output
    if not isinstance(found, Tensor):
        raise ModelError(f"A layer that gives {type(found).__name__} has no map. Name another layer.")
    return found
