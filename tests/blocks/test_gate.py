"""The gate of a non-local block: what it scales, and how it becomes part of the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nonlocal_video.blocks import NonLocalBlock, VideoNonLocalBlock
from nonlocal_video.models.folding import fold_batch_norms


def awake(*, bn_layer: bool = True, out_bias: bool = True) -> VideoNonLocalBlock:
    """A block that changes something, in eval mode."""
    block = VideoNonLocalBlock(6, bn_layer=bn_layer, out_bias=out_bias)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
        for name, buffer in block.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return block.eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 6, 3, 4, 4)


@pytest.mark.parametrize("bn_layer", [True, False])
@pytest.mark.parametrize("gate", [0.0, 0.25, 0.5, 1.0])
def test_it_scales_what_the_block_adds_and_can_be_absorbed(x: torch.Tensor, gate: float, bn_layer: bool) -> None:
    block = awake(bn_layer=bn_layer)
    change = block(x) - x
    assert change.abs().max() > 0.1
    block.gate = gate
    gated = block(x)
    torch.testing.assert_close(gated, x + gate * change)
    assert torch.equal(gated, x) == (gate == 0)
    block.absorb_gate()
    assert block.gate == 1
    torch.testing.assert_close(block(x), gated)
    assert block.is_identity == (gate == 0)


def test_a_block_without_bias_absorbs_too(x: torch.Tensor) -> None:
    block = awake(bn_layer=False, out_bias=False)
    block.gate = 0.5
    gated = block(x)
    block.absorb_gate()
    torch.testing.assert_close(block(x), gated)


def test_a_closed_gate_makes_the_identity_and_an_open_one_does_not(x: torch.Tensor) -> None:
    block = awake()
    assert not block.is_identity
    block.gate = 0.0
    assert block.is_identity
    assert torch.equal(block(x), x)
    block.gate = 0.01
    assert not block.is_identity


def test_it_survives_a_copy_and_folding_and_is_not_in_the_state(x: torch.Tensor) -> None:
    block = awake()
    block.gate = 0.3
    gated = block(x)
    assert torch.equal(copy.deepcopy(block)(x), gated)
    network = nn.Sequential(block).eval()
    torch.testing.assert_close(fold_batch_norms(network)(x), gated)
    assert not any("gate" in name for name in block.state_dict())
    block.gate = 0.0
    assert isinstance(fold_batch_norms(network)[0], nn.Identity)


def test_gradients_of_a_closed_gate_are_those_without_a_block(x: torch.Tensor) -> None:
    block = awake()
    block.gate = 0.0
    x.requires_grad_()
    (block(x) ** 2).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 2 * x.detach())
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in block.parameters())


def test_it_works_in_one_and_two_dimensions() -> None:
    for dimension, shape in ((1, (2, 4, 9)), (2, (2, 4, 6, 6))):
        block = NonLocalBlock(4, dimension=dimension, bn_layer=False)
        nn.init.normal_(block.W.weight)
        x = torch.randn(shape)
        change = block(x) - x
        block.gate = 0.5
        torch.testing.assert_close(block(x), x + 0.5 * change)
