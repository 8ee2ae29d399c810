"""Theoretical fields against what a not-a-number reaches, effective ones against networks that can be worked out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_networks import tiny_network
from torch import Tensor, nn
from torchvision.models import resnet50

from nonlocal_video.analysis import (
    compare_fields,
    effective_field,
    theoretical_fields,
    without_blocks,
)
from nonlocal_video.analysis.pictures import draw_fields
from nonlocal_video.attention.capture import forward_and_capture
from nonlocal_video.attention.geometry import layer_grids
from nonlocal_video.blocks import NonLocalBlock, NonLocalConfig, VideoNonLocalBlock
from nonlocal_video.errors import ModelError
from nonlocal_video.models.inception3d import InceptionI3D, InceptionI3DConfig
from nonlocal_video.models.resnet2d import NonLocalNet
from nonlocal_video.models.resnet3d import MaxPool


def reached(network: nn.Module, input_size: tuple[int, ...], layer: str, axis: int, index: int) -> bool:
    """Whether the layer's middle unit changes to not-a-number with one slice of the input.

    NaN passes through everything: 0 * NaN, a maximum, a sum, a softmax. So it reaches what a unit is connected to,
    whatever the weights. In float64, because fast float32 convolutions mix neighbouring outputs.
    """
    clip = torch.zeros(1, 3, *input_size, dtype=torch.float64)
    clip.select(2 + axis, index).fill_(math.nan)
    with torch.no_grad():
        _, kept = forward_and_capture(network, clip, capture_outputs=[layer])
    unit = kept.outputs[layer][0]
    for cells in reversed(kept.outputs[layer].shape[2:]):
        unit = unit[..., cells // 2]
    return bool(unit.isnan().any())


VIDEO_NETWORKS = {
    "plain": (tiny_network(None), (12, 48, 48), ("stem_pool", "layer2")),
    "spacetime": (tiny_network(trained=True, place="layer2.0"), (12, 48, 48), ("layer1", "layer2.nonlocal0")),
    "space_only": (
        tiny_network(NonLocalConfig(mode="space_only"), trained=True, place="layer1.0"),
        (24, 24, 24),
        ("layer1.nonlocal0", "layer2"),
    ),
    "time_only": (
        tiny_network(NonLocalConfig(mode="time_only"), trained=True, place="layer1.0"),
        (24, 64, 24),
        ("layer1.nonlocal0",),
    ),
    "temporal stem, bottlenecks": (
        tiny_network(
            None,
            block="bottleneck",
            temporal_conv="first",
            temporal_kernels=((3,), (1,), (1,), (1,)),
            stem_kernel=(5, 7, 7),
            stem_stride=(2, 2, 2),
            stem_pool=MaxPool((2, 3, 3), (2, 2, 2), (0, 0, 0)),
            temporal_pool=2,
        ),
        (48, 32, 48),
        ("layer2",),
    ),
    "SAME padding, branches": (InceptionI3D(), (16, 48, 40), ("Mixed_3b",)),
}


@pytest.mark.parametrize("name", VIDEO_NETWORKS)
def test_against_what_a_nan_reaches(name: str) -> None:
    network, size, layers = VIDEO_NETWORKS[name]
    doubled = network.eval().double()
    for field in theoretical_fields(network, size, layers):
        for axis in range(3):
            first, last = field.span(axis, field.centre[axis])
            inside = {first, last}
            outside = {first - 1, last + 1} & set(range(size[axis]))
            assert all(reached(doubled, size, field.layer, axis, index) for index in inside), (field, axis)
            assert not any(reached(doubled, size, field.layer, axis, index) for index in outside), (field, axis)


def test_centres_and_strides_are_those_of_the_drawing() -> None:
    for network, size in ((InceptionI3D(), (32, 64, 64)), (tiny_network(None), (16, 64, 64))):
        fields = theoretical_fields(network, size)
        grids = layer_grids(network, size, [field.layer for field in fields])
        assert len(fields) > 5
        for field in fields:
            grid = grids[field.layer]
            centre = tuple(first + (extent - 1) / 2 for first, extent in zip(field.first, field.extent, strict=True))
            assert (field.cells, field.stride, centre) == (grid.size, grid.stride, grid.offset)


@pytest.mark.parametrize(
    ("network", "layer", "extent"),
    [
        (resnet50(), "layer4", 427),  # with the stride in the 3x3 convolution, as torchvision has it
        (NonLocalNet(nonlocal_stages=()), "layer4", 899),  # ResNet-34
        (NonLocalNet(nonlocal_stages=(2,)), "layer2", 179),
        (NonLocalNet(nonlocal_stages=(2,)), "layer3", math.inf),
    ],
)
def test_known_fields_of_image_networks(network: nn.Module, layer: str, extent: float) -> None:
    (field,) = theoretical_fields(network, (224, 224), [layer])
    assert field.extent == (extent, extent)
    assert field.seen == (min(extent, 224),) * 2


def test_default_layers_and_rows() -> None:
    fields = theoretical_fields(tiny_network(), (8, 32, 32))
    names = [field.layer for field in fields]
    assert names == ["stem", "stem_pool", "layer1", "temporal_pool", "layer2", "layer3.nonlocal0", "layer3", "layer4"]
    rows = json.loads(json.dumps([field.to_row() for field in fields]))
    assert rows[0]["extent"] == [3, 7, 7]
    assert rows[-1]["extent"] == [None, None, None]
    assert rows[-1]["seen"] == [8, 32, 32]


class _Gate(nn.Module):
    """A channel gate from global pooling, and a padding of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3)
        self.gate = nn.Conv3d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(nn.functional.pad(x, (2, 0, 1, 1)))
        return x * torch.sigmoid(self.gate(x.mean(dim=(2, 3, 4), keepdim=True)))


def test_a_channel_gate_sees_everything() -> None:
    network = nn.Sequential(_Gate())
    fields = {field.layer: field for field in theoretical_fields(network, (6, 8, 8), ["0.conv", "0"])}
    assert fields["0.conv"].extent == (3, 3, 3)
    assert fields["0.conv"].first == (0, -1, -2)
    assert fields["0"].extent == (math.inf,) * 3
    with pytest.raises(ModelError, match=r"0\.gate makes no feature map"):
        theoretical_fields(network, (6, 8, 8), ["0.gate"])
    with pytest.raises(ModelError, match="no layer nothing"):
        theoretical_fields(network, (6, 8, 8), ["nothing"])
    with pytest.raises(ValueError, match="should be"):
        theoretical_fields(network, (8,))


def test_some_maps_have_a_grid_and_no_field() -> None:
    """A group norm mixes all positions, so only what also goes round it has a field; centres stay as they are."""
    norm = nn.Sequential(nn.Conv3d(3, 4, 3, stride=2, padding=1), nn.GroupNorm(2, 4), nn.Conv3d(4, 4, 3))
    assert layer_grids(norm, (9, 16, 16), ["2"])["2"].offset == (2, 2, 2)
    assert [field.layer for field in theoretical_fields(norm, (9, 16, 16))] == ["0"]
    with pytest.raises(ModelError, match="2 makes no feature map"):
        theoretical_fields(norm, (9, 16, 16), ["2"])
    transposed = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.ConvTranspose3d(4, 4, 2, stride=2))
    assert layer_grids(transposed, (8, 8, 8), ["0"])["0"].stride == (1, 1, 1)
    with pytest.raises(ModelError, match="transposed convolution"):
        theoretical_fields(transposed, (8, 8, 8), ["0"])


class _OneSided(nn.Module):
    """Two paths with other centres."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.late = nn.Conv3d(3, 4, 3), nn.Conv3d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        early = self.early(nn.functional.pad(x, (2, 0) * 3))
        return early + self.late(nn.functional.pad(x, (0, 2) * 3))


def test_joined_paths_have_the_first_ones_centre_and_the_field_of_all() -> None:
    network = nn.Sequential(_OneSided())
    (field,) = theoretical_fields(network, (8, 8, 8), ["0"])
    assert (field.first, field.extent) == ((-2,) * 3, (5,) * 3)
    assert layer_grids(network, (8, 8, 8), ["0"])["0"].offset == (-1,) * 3


def test_groups_of_frames() -> None:
    block = NonLocalConfig(temporal_groups=4)
    (field,) = theoretical_fields(tiny_network(block, place="layer1.0"), (16, 16, 16), ["layer1.nonlocal0"])
    assert field.extent == (7 + 2 * 3, math.inf, math.inf)  # 7 frames of the convolutions; 3 to either side


def test_without_blocks() -> None:
    network = tiny_network(trained=True)
    plain = without_blocks(network)
    clip = torch.randn(1, 3, 8, 32, 32)
    assert not any(isinstance(module, NonLocalBlock) for module in plain.modules())
    assert isinstance(network.get_submodule("layer3.nonlocal0"), VideoNonLocalBlock)
    with torch.no_grad():
        assert not torch.equal(plain(clip), network(clip))
        torch.testing.assert_close(plain(clip), without_blocks(plain)(clip))


def test_effective_field_of_repeated_averages() -> None:
    """n averages of 3 pixels, one after the other: a binomial-like bell with variance n * 2 / 3."""
    convolutions = [nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(12)]
    for convolution in convolutions:
        nn.init.constant_(convolution.weight, 1 / 9)
    field = effective_field(nn.Sequential(*convolutions), (41, 41), "11", in_channels=1, num_inputs=1)
    assert field.theoretical.extent == (25, 25)
    sigma = math.sqrt(12 * 2 / 3)
    assert field.deviation == pytest.approx((sigma, sigma), rel=1e-3)
    # A Gaussian falls to 1 - 95.45% of its peak at 2.486 standard deviations.
    assert field.extent == pytest.approx((2 * 2.486 * sigma,) * 2, abs=2)
    assert field.area_side == pytest.approx(math.sqrt(math.pi) * 2.486 * sigma, abs=1.5)
    np.testing.assert_allclose(field.gradient, np.outer(field.profile(0), field.profile(1)), atol=1e-6)


def test_effective_field_against_finite_differences() -> None:
    network = tiny_network(trained=True).double()
    clip = torch.randn(1, 3, 4, 16, 16, dtype=torch.float64)
    field = effective_field(network, (4, 16, 16), "layer3", inputs=clip)

    def unit(x: Tensor) -> float:
        with torch.no_grad():
            features = network.extract_features(x, ["stage3"])["stage3"]
        return float(features[(0, slice(None), *(cells // 2 for cells in features.shape[2:]))].sum())

    moved = np.zeros((4, 16, 16))
    places = [(0, 0, 0), (2, 8, 8), (1, 5, 11)]
    for place in places:
        for channel in range(3):
            step = torch.zeros_like(clip)
            step[(0, channel, *place)] = 1e-5
            moved[place] += abs(unit(clip + step) - unit(clip - step)) / 2e-5
    ratios = [moved[place] / field.gradient[place] for place in places]
    assert ratios[0] > 0
    assert ratios == pytest.approx([ratios[0]] * 3, rel=1e-4)  # the map is the gradient, up to its scale


def test_blocks_bring_what_convolutions_cannot_see(tmp_path: Path) -> None:
    network, size = tiny_network(trained=True, place="layer1.0"), (16, 48, 48)
    compared = compare_fields(network, size, "layer1", num_inputs=2)
    assert compared.without_blocks.theoretical.seen == (7, 27, 27)
    assert compared.without_blocks.share_outside(compared.without_blocks.theoretical) == pytest.approx(0, abs=1e-12)
    # The same by hand: all but the 7 x 27 x 27 voxels about the centre of unit (8, 6, 6), at 8, 24, 24.
    box = compared.with_blocks.gradient[5:12, 11:38, 11:38].sum()
    assert compared.share_beyond == pytest.approx(1 - box, abs=1e-9)
    assert compared.share_beyond > 0.001
    assert compared.with_blocks.deviation[0] > compared.without_blocks.deviation[0]
    assert compared.identity_blocks == ()
    row = json.loads(json.dumps(compared.to_row()))
    assert row["share_beyond"] == compared.share_beyond
    with Image.open(draw_fields(compared, tmp_path / "fields.png")) as picture:
        assert picture.width > 800


def test_a_new_block_changes_no_effective_field() -> None:
    compared = compare_fields(tiny_network(), (8, 32, 32), "layer3", num_inputs=1)
    assert compared.identity_blocks == ("layer3.nonlocal0",)
    np.testing.assert_array_equal(compared.with_blocks.gradient, compared.without_blocks.gradient)


def test_wrong_inputs() -> None:
    with pytest.raises(ValueError, match="it should be"):
        effective_field(tiny_network(), (8, 32, 32), "layer1", inputs=torch.zeros(3, 8, 32, 32))
    dead = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU())
    nn.init.constant_(dead[0].bias, -1e3)
    with pytest.raises(ValueError, match="gradient of layer '1' is zero"):
        effective_field(dead, (8, 8), "1")


def test_inception_config_with_block() -> None:
    config = InceptionI3DConfig(nonlocal_blocks={"Mixed_3b": NonLocalConfig(mode="time_only")})
    (field,) = theoretical_fields(InceptionI3D(config), (16, 48, 48), ["nonlocal_Mixed_3b"])
    assert field.extent == (math.inf, 43, 43)
