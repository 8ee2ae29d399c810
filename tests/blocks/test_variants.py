"""The variants: equal to the full block where they say so, in all dimensions and modes, and with no matrix held."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensor_watch import TensorWatch
from torch import Tensor, nn

from nonlocal_video.blocks import (
    NonLocalBlock,
    VideoNonLocalBlock,
    factorized_attention,
    kernels,
    memory_efficient,
    sparse_attention,
)

KERNELS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
BLOCKS: tuple[tuple[Callable[..., NonLocalBlock], dict[str, Any], tuple[int, ...]], ...] = (
    (NonLocalBlock, {"dimension": 1}, (9,)),
    (NonLocalBlock, {"dimension": 2}, (5, 4)),
    (NonLocalBlock, {"dimension": 3}, (3, 4, 5)),
    (VideoNonLocalBlock, {"mode": "spacetime"}, (4, 4, 3)),
    (VideoNonLocalBlock, {"mode": "spacetime", "temporal_groups": 2}, (4, 4, 3)),
    (VideoNonLocalBlock, {"mode": "space_only"}, (3, 4, 5)),
    (VideoNonLocalBlock, {"mode": "time_only"}, (5, 2, 3)),
)
EVERY_BLOCK = pytest.mark.parametrize(
    ("kind", "options", "size"), BLOCKS, ids=["1D", "2D", "3D", "spacetime", "groups", "space_only", "time_only"]
)


def trained(kind: Callable[..., NonLocalBlock], options: dict[str, Any], **more: Any) -> NonLocalBlock:
    torch.manual_seed(0)
    block = kind(6, **options, **more).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def sample(size: tuple[int, ...]) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)


def grads(block: NonLocalBlock, x: Tensor) -> tuple[Tensor, ...]:
    torch.manual_seed(2)
    direction = torch.randn_like(x)
    leaves = [x, *block.parameters()]
    return torch.autograd.grad((block(x) * direction).sum(), leaves, allow_unused=True, materialize_grads=True)


@EVERY_BLOCK
@pytest.mark.parametrize("kernel", KERNELS)
def test_memory_efficient_is_the_full_block(kind: Any, options: Any, size: Any, kernel: str) -> None:
    full, x = trained(kind, options, nonlocal_type=kernel), sample(size)
    variant = memory_efficient(full)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "CHUNK_ENTRIES", 30)
        torch.testing.assert_close(variant(x), full(x))
        torch.testing.assert_close(grads(variant, x), grads(full, x))
    assert torch.equal(variant(x, return_nl_map=True)[1], full(x, return_nl_map=True)[1])


@EVERY_BLOCK
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("top_k", [1, 3, 1000])
def test_sparse_attention_keeps_the_largest(kind: Any, options: Any, size: Any, kernel: str, top_k: int) -> None:
    full, x = trained(kind, options, nonlocal_type=kernel), sample(size)
    variant = sparse_attention(full, top_k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "CHUNK_ENTRIES", 30)
        z, sparse_map = variant(x, return_nl_map=True)
    full_map = full(x, return_nl_map=True)[1]
    num_keys = full_map.shape[-1]
    kept = min(top_k, num_keys)
    for sparse_row, row in zip(sparse_map.reshape(-1, num_keys), full_map.reshape(-1, num_keys), strict=True):
        largest = row.abs().argsort(descending=True)[:kept]
        expected = torch.zeros_like(row)
        expected[largest] = row[largest] / (row[largest].sum() if kernel.endswith("gaussian") else 1)
        torch.testing.assert_close(sparse_row, expected)
        assert int((sparse_row != 0).sum()) <= kept  # dropped keys are exactly 0
    if kept == num_keys:
        torch.testing.assert_close(z, full(x))
        torch.testing.assert_close(grads(variant, x), grads(full, x))
    else:  # z uses the map that is shown
        as_map = copy.deepcopy(full)
        as_map.variant = _MatrixOf(variant)
        torch.testing.assert_close(z, as_map(x))
        torch.testing.assert_close(grads(variant, x), grads(as_map, x))
    queries = torch.tensor([0, 2])
    visible = variant.attention(x, queries) != 0
    assert int(visible.sum(-1).max()) <= kept


class _MatrixOf:
    """A block's own weights, as a matrix, times the values."""

    def __init__(self, block: NonLocalBlock) -> None:
        self.block = block

    def kernel(self, rows: Any, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return self.rows(rows, theta, phi) @ g

    def rows(self, rows: Any, theta: Tensor, phi: Tensor) -> Tensor:
        assert self.block.variant is not None
        return self.block.variant.rows(rows, theta, phi)


@EVERY_BLOCK
@pytest.mark.parametrize("kernel", ["embedded_gaussian", "dot_product"])
@pytest.mark.parametrize("embed_bias", [True, False])
@pytest.mark.parametrize("pooling", [{"pool_order": "pool_conv"}, {"sub_sample": False}])
def test_factorized_at_full_rank_is_the_full_block(
    kind: Any, options: Any, size: Any, kernel: str, embed_bias: bool, pooling: Any
) -> None:
    full = trained(kind, options, nonlocal_type=kernel, embed_bias=embed_bias, inter_channels=4, **pooling)
    variant, x = factorized_attention(full, 4), sample(size)
    torch.testing.assert_close(variant(x), full(x))
    torch.testing.assert_close(variant.attention_received(x), full.attention_received(x))
    assert (variant.theta.bias is not None) == embed_bias


def test_factorized_is_the_best_of_its_rank() -> None:
    """Eckart and Young: the error of the products' matrix is the norm of the singular values left out."""
    full = trained(NonLocalBlock, {}, inter_channels=5)

    def matrix(block: NonLocalBlock) -> Tensor:
        theta, phi = (
            torch.cat([conv.weight.flatten(1), conv.bias[:, None]], dim=1).detach() for conv in (block.theta, block.phi)
        )
        return theta.T @ phi

    values = torch.linalg.svdvals(matrix(full))
    for rank in range(1, 6):
        variant = factorized_attention(full, rank)
        assert variant.theta.weight.shape == (rank, 6, 1, 1)
        difference = torch.linalg.matrix_norm(matrix(variant) - matrix(full))
        torch.testing.assert_close(difference, values[rank:].square().sum().sqrt(), atol=1e-9, rtol=1e-9)


def test_factorized_more_channels_than_features() -> None:
    full = trained(NonLocalBlock, {}, inter_channels=12, sub_sample=False)
    x = sample((3, 4))
    for rank in (7, 12):  # the products' matrix has rank 7 at most
        torch.testing.assert_close(factorized_attention(full, rank)(x), full(x))


@EVERY_BLOCK
@pytest.mark.parametrize(
    "make", [memory_efficient, lambda b: sparse_attention(b, 2), lambda b: factorized_attention(b, 2)]
)
def test_variants_are_blocks(
    kind: Any, options: Any, size: Any, make: Callable[[NonLocalBlock], NonLocalBlock]
) -> None:
    """New ones are the identity, save and load, copy and pickle, and leave the block they are made from alone."""
    new = kind(6, **options).eval()
    before = copy.deepcopy(new.state_dict())
    variant, x = make(new), sample(size).detach().float()
    assert type(variant) is type(new)
    assert torch.equal(variant(x), x)
    assert new.variant is None
    assert new.state_dict().keys() == before.keys() == variant.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in new.state_dict().items())
    other = make(kind(6, **options).eval())
    other.load_state_dict(variant.state_dict())
    for block in (variant, other):
        nn.init.ones_(block.bn.weight)
    expected = variant(x)
    assert not torch.equal(expected, x)
    assert torch.equal(other(x), expected)
    assert torch.equal(copy.deepcopy(variant)(x), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sparse_attention_in_16_bits(dtype: torch.dtype) -> None:
    block = trained(NonLocalBlock, {}, bn_layer=False).to(dtype)
    x = sample((6, 6)).detach().to(dtype)
    z = sparse_attention(block, 4)(x)
    exact = sparse_attention(block, 4).double()(x.double())
    assert z.dtype == dtype
    assert float(((z - exact).abs().max() / exact.abs().max()).detach()) < 5e-2
    sparse_attention(block, 4)(x.requires_grad_()).sum().backward()


def test_sparse_attention_holds_no_matrix_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither makes one, nor keeps all chunks for the backward pass."""
    watch = TensorWatch()
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    monkeypatch.setattr(kernels, "CHUNK_ENTRIES", 2**16)
    block = sparse_attention(NonLocalBlock(4, sub_sample=False), 8)
    with watch, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        z = block(torch.randn(1, 4, 32, 32))  # N = M = 1024
        kept_forward = kept
        z.sum().backward()
    assert watch.largest <= 2**16
    assert kept_forward <= 2**17


def test_variants_say_what_they_are() -> None:
    block = NonLocalBlock(4)
    assert block.get_block_info()["variant"] is None
    assert sparse_attention(block, 7).get_block_info()["variant"] == "sparse_attention(top_k=7)"
    assert "memory_efficient" in repr(memory_efficient(block))


def test_variants_of_variants() -> None:
    sparse = sparse_attention(NonLocalBlock(4), 7)
    assert str(factorized_attention(sparse, 1).variant) == "sparse_attention(top_k=7)"
    for make in (memory_efficient, lambda block: sparse_attention(block, 3)):
        with pytest.raises(ValueError, match=r"The block is sparse_attention\(top_k=7\) already"):
            make(sparse)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="top_k = 0 should be a whole number of at least 1, or a share"):
        sparse_attention(NonLocalBlock(4), 0)
    for rank in (0, 3):
        with pytest.raises(ValueError, match=f"rank = {rank} should be from 1 to 2"):
            factorized_attention(NonLocalBlock(4), rank)
    for kernel in ("gaussian", "concatenation"):
        with pytest.raises(ValueError, match="no product of theta and phi to factorise"):
            factorized_attention(NonLocalBlock(4, nonlocal_type=kernel), 1)
