"""InceptionI3D: SAME padding, endpoints, head and class activation maps, non-local blocks by name."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from nonlocal_video.blocks.config import NonLocalConfig
from nonlocal_video.errors import UsageError
from nonlocal_video.models.inception3d import (
    ENDPOINTS,
    ConvUnit,
    InceptionI3D,
    InceptionI3DConfig,
    MaxPoolSame,
    pad_same,
    same_padding,
)

BLOCK = NonLocalConfig(inter_channels=4, sub_sample=False, bn_layer=False)


@pytest.fixture(scope="module")
def network() -> InceptionI3D:
    """A network with random weights and statistics and blocks in three places."""
    torch.manual_seed(0)
    config = InceptionI3DConfig(
        num_classes=11, nonlocal_blocks={"Mixed_3c": NonLocalConfig(4), "Mixed_4f": BLOCK, "Mixed_5c": BLOCK}
    )
    network = InceptionI3D(config)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm3d) and not name.startswith("nonlocal_"):  # whose gain of 0 is the identity
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.05, 0.2)
    return network.eval()


def clip(num_frames: int = 9, height: int = 33, width: int = 47) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand((2, 3, num_frames, height, width), generator=generator) * 2 - 1


# --- padding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 7, 2, (2, 3)),
        (223, 7, 2, (3, 3)),
        (112, 3, 2, (0, 1)),
        (113, 3, 2, (1, 1)),
        (14, 2, 2, (0, 0)),
        (7, 2, 2, (0, 1)),
        (1, 7, 2, (3, 3)),
        (5, 1, 2, (0, 0)),
        (6, 3, 1, (1, 1)),
    ],
)
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


def windows(size: int, kernel: int, stride: int) -> list[list[int | None]]:
    """Per output cell the input cells of its window, None outside: TensorFlow's definition, one axis."""
    num_outputs = math.ceil(size / stride)
    # TensorFlow: the windows reach as little as possible over the edges, and as far over the first as over the last,
    # or one cell less.
    before = max((num_outputs - 1) * stride + kernel - size, 0) // 2
    places = [[output * stride - before + i for i in range(kernel)] for output in range(num_outputs)]
    return [[place if 0 <= place < size else None for place in window] for window in places]


@pytest.mark.parametrize("size", [(1, 1, 1), (4, 5, 6), (3, 8, 7), (5, 2, 9)])
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [
        ((7, 7, 7), (2, 2, 2)),
        ((3, 3, 3), (1, 1, 1)),
        ((1, 3, 3), (1, 2, 2)),
        ((3, 3, 3), (2, 2, 2)),
        ((2, 2, 2), (2, 2, 2)),
    ],
)
def test_convolution_and_pooling_equal_loops_over_windows(size, kernel, stride) -> None:
    torch.manual_seed(0)
    x = torch.randn((1, 2, *size), dtype=torch.float64) - 3  # mostly negative: padding with zeros would win
    axes = [windows(*axis) for axis in zip(size, kernel, stride, strict=True)]
    shape = tuple(len(axis) for axis in axes)
    weight = torch.randn((3, 2, *kernel), dtype=torch.float64)
    convolved = torch.zeros((3, *shape), dtype=torch.float64)
    pooled = torch.full((2, *shape), -torch.inf, dtype=torch.float64)
    for cell in itertools.product(*map(range, shape)):
        for offset in itertools.product(*map(range, kernel)):
            place = [axis[i][k] for axis, i, k in zip(axes, cell, offset, strict=True)]
            if None not in place:
                value = x[(0, slice(None), *place)]
                convolved[(slice(None), *cell)] += weight[(slice(None), slice(None), *offset)] @ value
                pooled[(slice(None), *cell)] = torch.maximum(pooled[(slice(None), *cell)], value)

    torch.testing.assert_close(MaxPoolSame(kernel, stride)(x)[0], pooled, rtol=0, atol=0)
    if kernel != (2, 2, 2):  # I3D has no even convolution, whose SAME padding at stride 1 is not symmetric
        unit = ConvUnit(2, 3, kernel, stride).double().eval()
        unit.conv.weight.data.copy_(weight)
        torch.testing.assert_close(unit(x)[0], (convolved / math.sqrt(1 + 1e-3)).relu(), rtol=1e-12, atol=1e-12)


def test_padding_that_is_not_needed_copies_nothing() -> None:
    x = torch.zeros(1, 1, 4, 4, 4)
    assert pad_same(x, (2, 2, 2), (2, 2, 2), value=0.0) is x


# --- endpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1, 1), (8, 32, 32), (9, 33, 47), (17, 64, 96)])
def test_features_have_the_ceiling_of_size_over_stride(network: InceptionI3D, size: tuple[int, int, int]) -> None:
    with torch.inference_mode():
        features = network.extract_features(clip(*size), ENDPOINTS)
    assert list(features) == list(ENDPOINTS)
    strides = {"Conv3d_1a_7x7": (2, 2), "Conv3d_2c_3x3": (2, 4), "Mixed_3c": (2, 8), "Mixed_4f": (4, 16)}
    channels = {"Conv3d_1a_7x7": 64, "Conv3d_2c_3x3": 192, "Mixed_3c": 480, "Mixed_4f": 832, "Mixed_5c": 1024}
    for name, (time, space) in (strides | {"Mixed_5c": (8, 32)}).items():
        expected = (channels[name], *(math.ceil(n / s) for n, s in zip(size, (time, space, space), strict=True)))
        assert features[name].shape[1:] == expected, name


def test_features_are_those_that_a_run_of_the_network_passes_through(network: InceptionI3D) -> None:
    seen: dict[str, torch.Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name in network.layer_names
    ]
    with torch.inference_mode():
        logits = network(clip())
        for handle in handles:
            handle.remove()
        features = network.extract_features(clip(), network.layer_names)
    assert list(features) == network.layer_names == list(seen)
    assert all(torch.equal(features[name], seen[name]) for name in seen)
    assert torch.equal(network.head(features[network.feature_layer]), logits)


def test_nothing_after_the_last_wanted_endpoint_is_computed(network: InceptionI3D) -> None:
    ran: list[str] = []
    handles = [
        network.get_submodule(name).register_forward_hook(lambda _m, _i, _o, name=name: ran.append(name))
        for name in network.layer_names
    ]
    with torch.inference_mode():
        features = network.extract_features(clip(), ["Mixed_3b", "Conv3d_1a_7x7", "Mixed_3b"])
        assert network.extract_features(clip(), []) == {}
    for handle in handles:
        handle.remove()
    assert list(features) == ["Conv3d_1a_7x7", "Mixed_3b"]
    assert ran == list(ENDPOINTS[: ENDPOINTS.index("Mixed_3b") + 1])


def test_a_block_has_an_endpoint_of_its_own(network: InceptionI3D) -> None:
    with torch.inference_mode():
        features = network.extract_features(clip(), ["Mixed_4f", "nonlocal_Mixed_4f"])
    assert torch.equal(features["Mixed_4f"], features["nonlocal_Mixed_4f"])  # untrained: the identity
    assert list(network.nonlocal_layers()) == ["nonlocal_Mixed_3c", "nonlocal_Mixed_4f", "nonlocal_Mixed_5c"]
    assert network.get_submodule(network.feature_layer) is network.nonlocal_layers()["nonlocal_Mixed_5c"]
    assert InceptionI3D().feature_layer == "Mixed_5c"


def test_wrong_arguments_are_explained(network: InceptionI3D) -> None:
    with pytest.raises(UsageError, match=r"\['Mixed_6a'\] do not exist.*'nonlocal_Mixed_4f'"):
        network.extract_features(clip(), ["Mixed_4f", "Mixed_6a"])
    with pytest.raises(UsageError, match=r"shape \(3, 9, 33, 47\); it should be \(batch, 3, frames, height, width\)"):
        network(clip()[0])
    with pytest.raises(UsageError, match=r"shape \(2, 9, 3, 33, 47\)"):
        network(clip().transpose(1, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes = 0 should be at least 1"),
        ({"dropout": 1.0}, r"dropout = 1.0 should be at least 0 and below 1"),
        ({"nonlocal_blocks": {"Mixed_4g": BLOCK}}, r"names \['Mixed_4g'\]; a block can follow any of .*Mixed_4f"),
    ],
)
def test_impossible_configurations_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InceptionI3DConfig(**arguments)


# --- blocks --------------------------------------------------------------------------------------------------------


def test_new_blocks_change_no_bit_of_the_logits_and_trained_ones_do(network: InceptionI3D) -> None:
    plain = InceptionI3D(InceptionI3DConfig(num_classes=11)).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("nonlocal_")})
    with torch.inference_mode():
        assert torch.equal(network(clip()), plain(clip()))
        projection = network.nonlocal_layers()["nonlocal_Mixed_4f"].W
        for parameter in projection.parameters():
            nn.init.normal_(parameter)
        try:
            assert not torch.allclose(network(clip()), plain(clip()))
        finally:
            for parameter in projection.parameters():
                nn.init.zeros_(parameter)


# --- head ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_frames", [2, 3, 8])
def test_the_head_classifies_each_2x7x7_window_and_averages(network: InceptionI3D, num_frames: int) -> None:
    features = torch.rand(2, 1024, num_frames, 7, 7)
    weight, bias = network.logits.weight[:, :, 0, 0, 0], network.logits.bias
    scores = [features[:, :, t : t + 2].mean((2, 3, 4)) @ weight.T + bias for t in range(num_frames - 1)]
    torch.testing.assert_close(network.head(features), torch.stack(scores).mean(0))


def test_a_single_feature_frame_is_classified_by_itself(network: InceptionI3D) -> None:
    features = torch.rand(2, 1024, 1, 3, 2)
    expected = features.mean((2, 3, 4)) @ network.logits.weight[:, :, 0, 0, 0].T + network.logits.bias
    torch.testing.assert_close(network.head(features), expected)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 7, 7), (2, 7, 7), (3, 4, 6), (8, 7, 7), (9, 10, 8)])
def test_a_class_activation_map_and_the_bias_sum_to_the_logit(network: InceptionI3D, size) -> None:
    features = torch.rand(2, 1024, *size)
    classes = torch.tensor([3, 0, 10])
    evidence = network.class_activation_map(features, classes)
    assert evidence.shape == (2, 3, *size)
    total = evidence.double().sum((2, 3, 4)) + network.logits.bias[classes]
    torch.testing.assert_close(total.float(), network.head(features)[:, classes], rtol=1e-5, atol=1e-5)
    assert torch.equal(network.class_activation_map(features, [3, 0, 10]), evidence)


def test_a_cell_adds_what_the_logit_loses_without_it(network: InceptionI3D) -> None:
    features = torch.rand(1, 1024, 4, 3, 3)
    evidence = network.class_activation_map(features, [5])[0, 0]
    for cell in [(0, 1, 2), (2, 0, 0), (3, 2, 1)]:
        without = features.clone()
        without[(0, slice(None), *cell)] = 0
        torch.testing.assert_close(
            evidence[cell], (network.head(features) - network.head(without))[0, 5], rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize("classes", [[-1], [11], [0, 400], [[1]]])
def test_classes_that_do_not_exist_are_refused(network: InceptionI3D, classes: list) -> None:
    with pytest.raises(UsageError, match=r"should be class indices, shape \(K,\), from 0 to 10"):
        network.class_activation_map(torch.rand(1, 1024, 2, 1, 1), classes)


def test_dropout_acts_while_training_only(network: InceptionI3D) -> None:
    features = torch.rand(1, 1024, 2, 1, 1)
    assert torch.equal(network.head(features), network.head(features))
    network.train()
    try:
        assert not torch.equal(network.head(features), network.head(features))
    finally:
        network.eval()
