"""A non-local block that compares the principal directions of features, without training."""

from __future__ import annotations

import torch
from torch import Tensor

from nonlocal_video.blocks import VideoNonLocalBlock


def set_principal(block: VideoNonLocalBlock, cells: Tensor) -> None:
    """Set theta, phi and g to the first principal directions of features (cells, C), at mean 0 and variance 1.

    Example:
        >>> block = VideoNonLocalBlock(16, 4, sub_sample=False)
        >>> set_principal(block, torch.randn(100, 16))
        >>> block.theta.weight.shape
        torch.Size([4, 16, 1, 1, 1])
    """
    mean = cells.mean(dim=0, dtype=torch.float64)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=cells.device)
    for part in cells.split(65536):
        centred = part.double() - mean
        covariance += centred.T @ centred
    values, vectors = torch.linalg.eigh((covariance / len(cells)).cpu())  # in ascending order
    depth = block.inter_channels
    directions = (vectors[:, -depth:] / values[-depth:].clamp(min=1e-6).sqrt()).T.flip(0)  # (D, C)
    with torch.no_grad():
        for conv in (block.theta, block.phi, block.g):
            if conv is not None:
                conv.weight.copy_(directions[..., None, None, None])
                if conv.bias is not None:
                    conv.bias.copy_(-directions @ mean.cpu())
