"""NonLocalBlock: its interface, its start as the identity, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nonlocal_video.blocks import (
    NonLocalBlock,
    NonLocalConfig,
    VideoNonLocalBlock,
    factorized_attention,
    memory_efficient,
    sparse_attention,
)

KERNELS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


def trained(block: NonLocalBlock) -> NonLocalBlock:
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def test_defaults_and_submodules() -> None:
    block = NonLocalBlock(6)
    assert block.inter_channels == 3
    assert [name for name, _ in block.named_children()] == ["g", "theta", "phi", "W", "bn"]
    assert isinstance(block.W, nn.Conv2d)
    assert block.scale == 1.0
    assert NonLocalBlock(1).inter_channels == 1
    assert NonLocalBlock(4, dimension=1).g.weight.shape == (2, 4, 1)
    assert NonLocalBlock(4, dimension=3).g.weight.shape == (2, 4, 1, 1, 1)


def test_gaussian_has_neither_theta_nor_phi_and_concatenation_a_projection() -> None:
    assert set(NonLocalBlock(4, nonlocal_type="gaussian", bn_layer=False).state_dict()) == {
        "g.weight",
        "g.bias",
        "W.weight",
        "W.bias",
    }
    block = NonLocalBlock(8, nonlocal_type="concatenation", embed_bias=False, out_bias=False, bn_layer=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in block.state_dict().items()}
    assert shapes == {
        "g.weight": (4, 8, 1, 1),
        "theta.weight": (4, 8, 1, 1),
        "phi.weight": (4, 8, 1, 1),
        "concat_project.weight": (1, 8),
        "W.weight": (8, 4, 1, 1),
    }


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bn_layer", [True, False])
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_new_block_is_the_identity_and_a_changed_one_is_not(kernel: str, bn_layer: bool, dimension: int) -> None:
    torch.manual_seed(0)
    block = NonLocalBlock(4, None, dimension, bn_layer=bn_layer, nonlocal_type=kernel)
    x = torch.randn(2, 4, *(4, 3, 5)[:dimension])
    assert torch.equal(block(x), x)  # in training mode
    assert torch.equal(block.eval()(x), x)
    assert block.is_identity
    assert not torch.equal(trained(block)(x), x)
    assert not block.is_identity


@pytest.mark.parametrize("bn_layer", [True, False])
def test_identity_survives_a_network_that_initialises_its_convolutions(bn_layer: bool) -> None:
    block = NonLocalBlock(4, bn_layer=bn_layer)
    trained(block)
    block.zero_init()
    x = torch.randn(1, 4, 3, 3)
    assert torch.equal(block(x), x)
    trained(block)
    block.reset_parameters()
    assert torch.equal(block(x), x)
    assert float(block.theta.weight.detach().std()) < 0.02


def test_is_identity_sees_a_shift_that_batch_norm_makes_of_zero() -> None:
    block = NonLocalBlock(4).eval()
    nn.init.zeros_(block.W.weight)
    nn.init.zeros_(block.W.bias)
    nn.init.ones_(block.bn.weight)
    assert block.is_identity
    nn.init.ones_(block.bn.running_mean)  # (0 - 1) * gain / std
    assert not block.is_identity


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bn_layer", [True, False])
def test_gradient_flows_at_once_and_reaches_everything_after_one_step(kernel: str, bn_layer: bool) -> None:
    torch.manual_seed(0)
    block = NonLocalBlock(4, bn_layer=bn_layer, nonlocal_type=kernel).double()
    x, direction = torch.randn(2, 2, 4, 4, 4, dtype=torch.float64)
    optimiser = torch.optim.SGD(block.parameters(), lr=1.0)

    (block(x) * direction).sum().backward()
    start = block.bn.weight if bn_layer else block.W.weight
    assert start.grad.abs().min() > 0
    optimiser.step()
    assert not block.is_identity

    optimiser.zero_grad()
    (block(x) * direction).sum().backward()
    # A constant added to all keys does not change a softmax, and one added before a batch norm vanishes in it.
    without = {"phi.bias"} if kernel == "embedded_gaussian" else set()
    without |= {"W.bias"} | ({"g.bias"} if kernel.endswith("gaussian") else set()) if bn_layer else set()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None
        if name not in without:
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kernel", KERNELS)
def test_keys_are_pooled_alike_and_queries_never(kernel: str) -> None:
    block = trained(NonLocalBlock(4, nonlocal_type=kernel)).eval()
    z, nl_map = block(torch.randn(2, 4, 5, 6), return_nl_map=True)
    assert z.shape == (2, 4, 5, 6)
    assert nl_map.shape == (2, 30, 6)
    if kernel.endswith("gaussian"):
        torch.testing.assert_close(nl_map.sum(-1), torch.ones(2, 30))


def test_each_position_gets_its_own_answer() -> None:
    """y is not made on the pooled grid and enlarged: a position that is no key changes its own z and no other."""
    torch.manual_seed(0)
    block = trained(NonLocalBlock(4)).eval()
    x = torch.randn(1, 4, 5, 5)
    moved = x.clone()
    moved[..., 4, 4] += 1  # the last row and column of an odd grid are never keys
    changed = (block(moved) - block(x)).abs().amax((0, 1)) > 1e-6
    assert changed.nonzero().tolist() == [[4, 4]]


def test_pool_orders_differ() -> None:
    torch.manual_seed(0)
    first = trained(NonLocalBlock(4, pool_order="conv_pool")).eval()
    second = NonLocalBlock(4, pool_order="pool_conv").eval()
    second.load_state_dict(first.state_dict())
    x = torch.randn(1, 4, 6, 6)
    assert not torch.allclose(first(x), second(x), atol=1e-3)


@pytest.mark.parametrize(
    ("dimension", "size", "keys"),
    [(1, (7,), (3,)), (2, (1, 1), (1, 1)), (2, (5, 4), (2, 2)), (3, (4, 6, 1), (4, 3, 1)), (3, (1, 7, 9), (1, 3, 4))],
)
def test_key_size(dimension: int, size: tuple[int, ...], keys: tuple[int, ...]) -> None:
    assert NonLocalBlock(2, dimension=dimension).key_size(size) == keys
    assert NonLocalBlock(2, dimension=dimension, sub_sample=False).key_size(size) == size


def test_channels_last_gives_the_same() -> None:
    torch.manual_seed(0)
    block = trained(NonLocalBlock(4, dimension=3)).eval()
    x = torch.randn(2, 4, 3, 4, 5)
    expected = block(x)
    block = block.to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(block(x.to(memory_format=torch.channels_last_3d)), expected)


def test_autocast_and_maps_agree_in_type() -> None:
    block = trained(NonLocalBlock(4)).eval()
    x = torch.randn(1, 4, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        z = block(x)
        rows = block.attention(x, torch.tensor([3]))
    torch.testing.assert_close(z.float(), block(x), atol=0.5, rtol=0.1)
    assert rows.shape == (1, 1, 4)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("mode", ["spacetime", "space_only", "time_only"])
def test_an_empty_batch_passes_as_it_does_through_a_convolution(kernel: str, mode: str) -> None:
    block = VideoNonLocalBlock(8, nonlocal_type=kernel, mode=mode)
    variants = [block, memory_efficient(block), sparse_attention(block, top_k=2)]
    if kernel in ("embedded_gaussian", "dot_product"):
        variants.append(factorized_attention(block, rank=2))
    for variant in variants:
        x = torch.randn(0, 8, 4, 24, 24, requires_grad=True)
        z = variant(x)
        assert z.shape == x.shape
        if z.requires_grad:
            z.sum().backward()
            assert x.grad is not None


def test_block_info() -> None:
    block = NonLocalBlock(8, dimension=3, nonlocal_type="dot_product")
    info = block.get_block_info()
    assert info["parameters"] == 4 * 8 * 4 + 3 * 4 + 8 + 2 * 8
    assert info["memory_bytes"] == 4 * (info["parameters"] + 2 * 8) + 8  # running statistics and their int64 counter
    assert {key: info[key] for key in ("nonlocal_type", "dimension", "in_channels", "inter_channels")} == {
        "nonlocal_type": "dot_product",
        "dimension": 3,
        "in_channels": 8,
        "inter_channels": 4,
    }
    assert VideoNonLocalBlock(8, mode="time_only").get_block_info()["mode"] == "time_only"


def test_copies_and_pickles_compute_the_same() -> None:
    block = trained(NonLocalBlock(4)).eval()
    x = torch.randn(1, 4, 4, 4)
    assert torch.equal(copy.deepcopy(block)(x), block(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels = 0 should be at least 1"),
        ({"inter_channels": 0}, "inter_channels = 0 should be at least 1, or None"),
        ({"dimension": 4}, "dimension = 4 should be 1, 2 or 3"),
        ({"nonlocal_type": "softmax"}, "nonlocal_type = 'softmax' should be one of"),
        ({"pool_order": "conv"}, "pool_order = 'conv' should be one of"),
        ({"scale": "sqrt"}, "scale = 'sqrt' should be a number, 'inverse_sqrt' or None"),
        ({"scale": 0.5, "nonlocal_type": "gaussian"}, "only acts on nonlocal_type='embedded_gaussian'"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NonLocalBlock(**({"in_channels": 4} | arguments))


def test_config_refuses_groups_that_mean_nothing() -> None:
    with pytest.raises(ValueError, match="a frame attends to itself only"):
        NonLocalConfig(mode="space_only", temporal_groups=4)


@pytest.mark.parametrize("shape", [(4, 3, 3), (1, 5, 3, 3), (1, 4, 2, 3, 3)])
def test_bad_input_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"it takes \(B, 4, \*size\) with 2 sides"):
        NonLocalBlock(4)(torch.randn(shape))


def test_bad_queries() -> None:
    block, x = NonLocalBlock(4), torch.randn(1, 4, 3, 3)
    with pytest.raises(IndexError, match=r"from 2 to 9 should lie in \[0, 9\)"):
        block.attention(x, torch.tensor([2, 9]))
    with pytest.raises(IndexError, match="from -1"):
        block.attention(x, torch.tensor([-1]))
    for queries in (torch.tensor([[0]]), torch.tensor([0.5])):
        with pytest.raises(ValueError, match=r"should be integers of shape \(Q,\)"):
            block.attention(x, queries)
    assert block.attention(x, torch.empty(0, dtype=torch.long)).shape == (1, 0, 1)
