"""A bright square must light up where and when it was planted, through resize, crop, strides and padding.

The networks have positive constant weights and a linear head, so the more light a cell sees the more it speaks for
class 0: whatever shift the maps show would be a mistake of the way from cells back to pixels and seconds.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import nonlocal_video as nlv
from nonlocal_video.attention.maps import AttentionMaps, QueryPoint
from nonlocal_video.blocks.config import NonLocalConfig
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.inception3d import InceptionI3D, InceptionI3DConfig
from nonlocal_video.models.resnet3d import ResNet3DConfig, Video3DResNet

NUM_FRAMES, RATE = 32, 10.0
INPUT = InputSpec(
    num_frames=NUM_FRAMES,
    frames_per_second=RATE,
    short_side=128,
    crop=112,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
SQUARE = 40  # pixels of the frame, larger than a cell of any layer here
HEIGHT, WIDTH = 240, 360


def light_meter(network: nn.Module) -> nn.Module:
    """The same network with every weight positive and no normalisation that could turn or shift anything."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv3d):
                module.weight.fill_(1.0 / module.weight[0].numel())
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.Linear):
                module.weight.fill_(1.0)
                module.bias.zero_()
    return network


def recognizer(network: nn.Module) -> nlv.Recognizer:
    card = ModelCard(name="light-meter", architecture="none", config={}, input=INPUT, labels=("light", "other"))
    return nlv.Recognizer(light_meter(network), card, device="cpu")


def clip_with_squares(*squares: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Dark frames; each square is (first frame, frames, centre row, centre column)."""
    frames = np.zeros((NUM_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    for first, count, row, column in squares:
        top, left = row - SQUARE // 2, column - SQUARE // 2
        frames[first : first + count, top : top + SQUARE, left : left + SQUARE] = 255
    return frames


def centre_of_mass(maps: AttentionMaps) -> tuple[float, ...]:
    """(frame, row, column) of the map's weight."""
    volume = np.nan_to_num(np.stack(list(maps.maps())))
    volume = np.where(volume > 0.5 * volume.max(), volume, 0)  # the peak, not the receptive field's wide skirt
    axes = np.meshgrid(*(np.arange(size) for size in volume.shape), indexing="ij")
    return tuple(float((axis * volume).sum() / volume.sum()) for axis in axes)


RESNET = ResNet3DConfig(num_classes=2, width=4, blocks_per_stage=(1, 1, 1, 1))
RESNET_WITHOUT_LAST_STRIDES = ResNet3DConfig(
    num_classes=2, width=4, blocks_per_stage=(1, 1, 1, 1), stage_strides=((1, 1, 1), (1, 2, 2), (2, 1, 1), (1, 1, 1))
)


@pytest.mark.parametrize(("row", "column"), [(95, 130), (120, 180), (145, 220)])
@pytest.mark.parametrize(
    ("make", "layer", "tolerance"),
    [
        # Stride 8, where cells divided evenly would be 6 or 7 frame pixels off; stride 16, where they would be 14 off.
        (lambda: Video3DResNet.from_config(RESNET_WITHOUT_LAST_STRIDES), "layer4", 1.0),
        (lambda: Video3DResNet.from_config(RESNET), "layer2", 1.0),
        (lambda: InceptionI3D(InceptionI3DConfig(num_classes=2)), "Mixed_3c", 1.0),
        (lambda: InceptionI3D(InceptionI3DConfig(num_classes=2)), "Mixed_4b", 6.0),
    ],
)
@pytest.mark.slow
def test_class_evidence_lights_up_where_the_square_is(make, layer, tolerance, row, column) -> None:
    first, count = 8, 12
    with recognizer(make()) as light:
        maps = light.explain(
            clip_with_squares((first, count, row, column)), frames_per_second=RATE, label="light", layer=layer
        )
    time, at_row, at_column = centre_of_mass(maps)
    assert abs(at_row - (row - 0.5)) < tolerance
    assert abs(at_column - (column - 0.5)) < tolerance
    assert abs(time - (first + (count - 1) / 2)) < 0.5  # frames, of 2 to 4 a cell


@pytest.mark.parametrize("sub_sample", [False, True])
def test_attention_goes_to_both_squares_from_every_point_alike(sub_sample: bool) -> None:
    here, there = (4, 6, 80, 130), (20, 6, 160, 240)
    block = NonLocalConfig(
        inter_channels=4, sub_sample=sub_sample, bn_layer=False, nonlocal_type="dot_product", embed_bias=False
    )
    config = ResNet3DConfig(
        num_classes=2,
        width=4,
        blocks_per_stage=(1, 1, 1, 1),
        stage_strides=((1, 1, 1), (1, 2, 2), (2, 1, 1), (1, 1, 1)),
        nonlocal_blocks={"layer3.0": block},
    )
    with recognizer(Video3DResNet.from_config(config)) as light:
        explanation = light.explain_all(clip_with_squares(here, there), frames_per_second=RATE)
        first, count, row, column = here
        maps = explanation.maps(query=point_at(first + count // 2, row, column))
    assert maps.query_index == first + count // 2
    # All channels of a light meter are alike, so all points attend to the same places, and none to others beyond that.
    assert not maps.cells.any()
    volume = np.nan_to_num(np.stack(list(explanation.attention_received().maps())))
    for square in (here, there):
        first, count, row, column = square
        inside = volume[first + 2 : first + count - 2, row - 12 : row + 12, column - 12 : column + 12]
        assert inside.min() > 0.5 * volume.max()
    dark = volume[:, 140:180, 60:100]  # far from both
    assert dark.max() < 0.1 * volume.max()


def point_at(frame: int, row: int, column: int) -> QueryPoint:
    return QueryPoint((frame + 0.5) / RATE, (column + 0.5) / WIDTH, (row + 0.5) / HEIGHT)


def test_outside_the_crop_there_is_no_value() -> None:
    with recognizer(Video3DResNet.from_config(RESNET)) as light:
        maps = light.explain(clip_with_squares((0, 32, 120, 180)), frames_per_second=RATE, label="light")
    values = maps.frame_map(0)
    # 240 x 360 becomes 128 x 192; the square of 112 begins at row 8 and column 40: 15 and 75 pixels of the frame.
    assert np.isnan(values[:14]).all()
    assert np.isnan(values[:, :74]).all()
    assert np.isfinite(values[16:224, 76:284]).all()
    assert np.isnan(values[226:]).all()
    assert np.isnan(values[:, 286:]).all()


def test_map_of_the_last_layer_sums_to_the_logit() -> None:
    network = Video3DResNet.from_config(RESNET)
    with torch.no_grad():
        network.fc.bias.copy_(torch.tensor([0.25, -1.0]))
    card = ModelCard(name="random", architecture="none", config={}, input=INPUT, labels=("a", "b"))
    frames = torch.randint(0, 256, (NUM_FRAMES, 64, 96, 3), dtype=torch.uint8).numpy()
    with nlv.Recognizer(network, card, device="cpu") as random:
        explanation = random.explain_all(frames, frames_per_second=RATE)
        with torch.inference_mode():
            logits = network(explanation.network_input)[0]
        for index, label in enumerate(card.labels):
            evidence = explanation.class_evidence(label).cells.sum() + network.fc.bias[index].item()
            assert evidence == pytest.approx(float(logits[index]), rel=1e-4)
