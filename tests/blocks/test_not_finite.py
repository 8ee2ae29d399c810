"""NaN and infinities spread through every kernel as in the paper's formula; an empty batch gives an empty result."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nonlocal_video.blocks import (
    NonLocalBlock,
    VideoNonLocalBlock,
    factorized_attention,
    memory_efficient,
    sparse_attention,
)
from nonlocal_video.blocks.kernels import (
    concatenation_kernel,
    dot_product_kernel,
    memory_efficient_softmax_kernel,
    softmax_kernel,
)
from nonlocal_video.blocks.reference import concatenation_reference, dot_product_reference, softmax_reference
from nonlocal_video.blocks.tiled_softmax import tiled_softmax

TYPES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
WEIGHT = torch.tensor([0.7, -0.4, 0.9, 0.5], dtype=torch.float64)
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
KERNELS: dict[str, tuple[Kernel, Kernel]] = {
    "fused": (softmax_kernel, softmax_reference),
    "tiled": (lambda *x: tiled_softmax(*x, scale=1.0, tile_entries=2 * 25), softmax_reference),
    "memory-efficient": (memory_efficient_softmax_kernel, softmax_reference),
    "dot product": (dot_product_kernel, dot_product_reference),
    "concatenation": (
        lambda theta, phi, g: concatenation_kernel(theta, phi, g, WEIGHT.to(g.dtype)),
        lambda theta, phi, g: concatenation_reference(theta, phi, g, WEIGHT.to(g.dtype)),
    ),
}


def pattern(tensor: Tensor) -> Tensor:
    """0 for finite, 1 for NaN, 2 and 3 for the infinities."""
    return tensor.isnan().int() + 2 * (tensor == math.inf).int() + 3 * (tensor == -math.inf).int()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels(name: str, value: float, with_gradient: bool, dtype: torch.dtype) -> None:
    kernel, reference = KERNELS[name]
    for where in range(3):  # theta, phi or g
        for positions in ([(0, 3, 0)], [(0, 0, 1), (0, 9, 0)], [(0, i, 0) for i in range(8)], [(0, 5, 0), (0, 5, 1)]):
            inputs = [torch.randn(2, length, 2, dtype=dtype) for length in (23, 19, 19)]
            for position in positions:
                inputs[where][position] = value
            expected = reference(*inputs)
            # ReLU makes 0 of -inf; everything else shows.
            assert not expected.isfinite().all() or (name, value) == ("concatenation", -math.inf)
            assert expected[1].isfinite().all()
            if with_gradient:
                inputs = [tensor.requires_grad_() for tensor in inputs]
            ours = kernel(*inputs)
            if name == "dot product" and math.isinf(value):
                # theta (phi^T g) adds in another order: inf where the formula meets inf - inf, never a finite number.
                assert torch.equal(ours.isfinite(), expected.isfinite())
                ours, expected = (tensor.masked_fill(~tensor.isfinite(), 0) for tensor in (ours, expected))
            assert torch.equal(pattern(ours), pattern(expected)), (where, positions)
            torch.testing.assert_close(ours, expected, equal_nan=True, rtol=1e-4, atol=1e-5)


def test_a_key_that_is_not_a_number_reaches_every_query() -> None:
    """The case that sorting hid: it came last, where no query looked."""
    theta, phi, g = (torch.randn(1, 40, 2) for _ in range(3))
    phi[0, 7] = math.nan
    assert concatenation_kernel(theta, phi, g, WEIGHT.float()).isnan().all()


def test_nothing_is_hidden_in_an_exported_block() -> None:
    """NaN spreads as in the formula and infinities become NaN where no branch may hang on a number."""
    block = NonLocalBlock(4, 2, 2, nonlocal_type="concatenation", sub_sample=False).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
    x = torch.randn(2, 4, 30, 30)
    exported = torch.export.export(block, (x,)).module()
    torch.testing.assert_close(exported(x), block(x))
    x[0, 2, 5, 6] = math.nan
    assert torch.equal(exported(x).isnan(), block(x).isnan())


@pytest.mark.parametrize("nonlocal_type", TYPES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_blocks(nonlocal_type: str, value: float) -> None:
    block = NonLocalBlock(4, 2, nonlocal_type=nonlocal_type).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
    x = torch.randn(2, 4, 12, 12)
    x[0, 2, 5, 6] = value
    for variant in (
        block,
        sparse_attention(block, 4),
        *([memory_efficient(block)] if "gauss" in nonlocal_type else []),
    ):
        z, weights = variant(x, return_nl_map=True)
        source = block._key_source(x)
        rows, g = weights, block._fold(block._values(source))
        expected = x + block.bn(block.W(block._unfold(rows @ g, x)))
        if variant is block:
            assert torch.equal(z.isfinite(), expected.isfinite())
        # A sparse block leaves keys of weight 0 out, infinite values too.
        assert not (z[0].isfinite().any() if math.isnan(value) else z[0].isfinite().all())
        assert z[1].isfinite().all()


def everything(block: NonLocalBlock) -> list[NonLocalBlock]:
    blocks = [block, sparse_attention(block, 2)]
    if "gaussian" in block.config.nonlocal_type:
        blocks.append(memory_efficient(block))
    if block.config.nonlocal_type in ("embedded_gaussian", "dot_product"):
        blocks.append(factorized_attention(block, 1))
    return blocks


@pytest.mark.parametrize("nonlocal_type", TYPES)
@pytest.mark.parametrize("size", [(6,), (6, 8), (4, 6, 8), (30, 40)])
def test_an_empty_batch(nonlocal_type: str, size: tuple[int, ...]) -> None:
    for block in everything(NonLocalBlock(4, 2, len(size), nonlocal_type=nonlocal_type)):
        assert_empty(block.eval(), size)


@pytest.mark.parametrize("nonlocal_type", TYPES)
@pytest.mark.parametrize(
    ("mode", "groups"),
    [("spacetime", None), ("spacetime", 2), ("space_only", None), ("time_only", None), ("time_only", 2)],
)
def test_an_empty_batch_of_video(nonlocal_type: str, mode: str, groups: int | None) -> None:
    block = VideoNonLocalBlock(4, 2, mode=mode, nonlocal_type=nonlocal_type, temporal_groups=groups)
    for variant in everything(block):
        assert_empty(variant.eval(), (4, 6, 8))


def assert_empty(block: NonLocalBlock, size: tuple[int, ...]) -> None:
    """Shapes are those of one sample, but for the batch."""
    one, none = torch.randn(1, 4, *size), torch.randn(0, 4, *size)
    for keep in (False, True):
        for x in (one, none):
            x.requires_grad_(keep)
        of_one, of_none = block(one, return_nl_map=True), block(none, return_nl_map=True)
        assert [tensor.shape[1:] for tensor in of_one] == [tensor.shape[1:] for tensor in of_none]
        assert [len(tensor) for tensor in of_none] == [0, 0]
    of_none[0].sum().backward()
    assert none.grad is not None
    assert block.attention_received(none).shape == (0, block.attention_received(one).shape[1])
    assert block.attention(none, torch.tensor([1, 3])).shape == (
        0,
        *block.attention(one, torch.tensor([1, 3])).shape[1:],
    )


def test_a_factorised_block_says_so() -> None:
    block = VideoNonLocalBlock(8, 6, sub_sample=False)
    plain, factorised = block.get_block_info(), factorized_attention(block, 2).get_block_info()
    assert (plain["variant"], plain["embedding_channels"]) == (None, 6)
    assert factorised["variant"] == "factorized_attention(rank=2)"
    assert (factorised["inter_channels"], factorised["embedding_channels"]) == (6, 2)
    assert factorised["parameters"] == sum(p.numel() for p in factorized_attention(block, 2).parameters())
    both = sparse_attention(factorized_attention(block, 2), 5)
    assert both.get_block_info()["variant"] == "factorized_attention(rank=2), sparse_attention(top_k=5)"
    assert "factorized_attention(rank=2)" in repr(both)
    assert NonLocalBlock(8, 6, nonlocal_type="gaussian").get_block_info()["embedding_channels"] == 8
