"""A cell's position, against receptive fields found by gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocal_video.attention.geometry import CellGrid, layer_grids
from nonlocal_video.errors import ModelError


class SymmetricNet(nn.Module):
    """Symmetric padding, a residual branch and a downsampling shortcut, as in ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 2, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3))
        self.pool = nn.AvgPool3d((1, 3, 3), (1, 2, 2), padding=(0, 1, 1))
        self.conv = nn.Conv3d(2, 2, 3, stride=2, padding=1)
        self.shortcut = nn.Conv3d(2, 2, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.pool(self.stem(x)))
        return self.shortcut(x) + self.conv(x)


class SameNet(nn.Module):
    """Asymmetric padding before strided layers, branches that are concatenated, a dilated convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 2, 7, stride=2)
        self.pool = nn.AvgPool3d(kernel_size=2)
        self.dilated = nn.Conv3d(4, 2, (1, 3, 3), dilation=(1, 2, 2), padding="same")

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.pad(x, (2, 3, 2, 3, 2, 3)))
        x = self.pool(x)
        return self.dilated(torch.cat([x, x], dim=1)).relu()


class UnusualNet(nn.Module):
    """Padding that is not zeros, an even kernel, channels mixed by an einsum, and an upsampled branch."""

    def __init__(self) -> None:
        super().__init__()
        self.reflect = nn.Conv3d(3, 2, 5, stride=2, padding=2, padding_mode="reflect")
        self.circular = nn.Conv3d(2, 2, (3, 4, 4), padding="same", padding_mode="circular")
        self.mix = nn.Linear(2, 2, bias=False)
        self.coarse = nn.MaxPool3d((1, 2, 2))
        self.after = nn.Conv3d(2, 2, (1, 3, 3), padding=(0, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.circular(self.reflect(x))
        x = torch.einsum("ncthw,cd->ndthw", x, self.mix.weight)
        return self.after(x + 0 * F.interpolate(self.coarse(x), size=x.shape[2:]))


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        (SymmetricNet(), "stem"),
        (SymmetricNet(), "pool"),
        (SymmetricNet(), "conv"),
        (SymmetricNet(), "shortcut"),
        (SameNet(), "conv"),
        (SameNet(), "pool"),
        (SameNet(), "dilated"),
        (UnusualNet(), "reflect"),
        (UnusualNet(), "circular"),
        (UnusualNet(), "after"),
    ],
)
def test_centres_are_the_centres_of_receptive_fields(network: nn.Module, layer: str) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)  # so that no gradient cancels and no ReLU closes
    kept: list[Tensor] = []
    network.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(output))
    clip = torch.ones(1, 3, 16, 48, 64, requires_grad=True)
    network(clip)
    grid = layer_grids(network, (16, 48, 64), [layer])[layer]
    assert grid.size == tuple(kept[0].shape[2:])
    cell = tuple(size // 2 for size in grid.size)  # an inner one: at the border the field is cut off
    (gradient,) = torch.autograd.grad(kept[0][0, :, cell[0], cell[1], cell[2]].sum(), clip)
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        touched = gradient[0].abs().sum(dim=[0, *(other + 1 for other in others)]).nonzero().flatten()
        middle = (touched.min() + touched.max()).item() / 2
        assert grid.centre(axis, cell[axis]) == middle


def test_grids_are_the_same_in_inference_mode() -> None:
    expected = layer_grids(UnusualNet(), (16, 48, 64), ["circular", "after"])
    with torch.inference_mode():
        network = UnusualNet()
        assert layer_grids(network, (16, 48, 64), ["circular", "after"]) == expected
    assert layer_grids(network, (16, 48, 64), ["circular", "after"]) == expected


def test_unknown_layer_and_layer_without_a_map_are_named() -> None:
    with pytest.raises(ModelError, match="no layer nowhere"):
        layer_grids(SameNet(), (16, 48, 64), ["nowhere"])
    pooled = nn.Sequential(nn.Conv3d(3, 2, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(2, 2))
    with pytest.raises(ModelError, match="'3' does not give"):
        layer_grids(pooled, (4, 8, 8), ["3"])


def test_network_is_left_on_its_device_and_unhooked() -> None:
    network = SameNet()
    layer_grids(network, (16, 48, 64), ["conv"])
    assert network.conv.weight.device.type == "cpu"
    assert not network.conv._forward_hooks


def test_interpolation_hits_centres_and_holds_beyond_them() -> None:
    grid = CellGrid(size=(3, 1, 1), stride=(4.0, 1.0, 1.0), offset=(1.5, 0.0, 0.0))
    weights = grid.interpolation(0, np.array([-3.0, 1.5, 2.5, 5.5, 9.5, 40.0]))
    expected = [[1, 0, 0], [1, 0, 0], [0.75, 0.25, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    np.testing.assert_allclose(weights, expected)
    np.testing.assert_allclose(grid.interpolation(1, np.array([-1.0, 0.0, 7.0])), [[1], [1], [1]])


def test_nearest_is_the_inverse_of_centre() -> None:
    grid = CellGrid(size=(8, 14, 14), stride=(4.0, 16.0, 16.0), offset=(3.0, 15.0, 15.0))
    assert [grid.nearest(1, grid.centre(1, index)) for index in range(14)] == list(range(14))
    assert grid.nearest(1, -50) == 0
    assert grid.nearest(1, 500) == 13


@pytest.mark.parametrize(
    ("size", "window"), [((4, 14, 14), (1, 2, 2)), ((4, 15, 13), (1, 2, 2)), ((4, 3, 3), (1, 2, 2))]
)
def test_pooled_keys_lie_in_the_middle_of_their_window(
    size: tuple[int, int, int], window: tuple[int, int, int]
) -> None:
    grid = CellGrid(size=size, stride=(4.0, 16.0, 16.0), offset=(3.0, 15.0, 15.0))
    coordinates = torch.arange(size[1], dtype=torch.float64) * 16 + 15
    pooled_size = (size[0], size[1] // window[1], size[2] // window[2])
    expected = F.avg_pool1d(coordinates[None], window[1])[0]
    keys = grid.pooled(pooled_size)
    assert [keys.centre(1, index) for index in range(pooled_size[1])] == expected.tolist()
    assert keys.centre(0, 2) == grid.centre(0, 2)
