"""The kernels as functions: both ways to compute each, any sizes, and what they hold in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_watch import TensorWatch
from torch import Tensor

from nonlocal_video.blocks import VideoNonLocalBlock, kernels

Rows = Callable[[Tensor, Tensor], Tensor]
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


def kernel_and_rows(name: str, depth: int) -> tuple[Kernel, Rows]:
    if name == "softmax":
        return partial(kernels.softmax_kernel, scale=0.6), partial(kernels.softmax_rows, scale=0.6)
    if name == "dot_product":
        return kernels.dot_product_kernel, kernels.dot_product_rows
    weight = torch.randn(2 * depth, dtype=torch.float64)
    return (
        lambda theta, phi, g: kernels.concatenation_kernel(theta, phi, g, weight),
        lambda theta, phi: kernels.concatenation_rows(theta, phi, weight),
    )


def double(*size: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64, requires_grad=True)


@given(
    name=st.sampled_from(["softmax", "dot_product", "concatenation"]),
    size=st.tuples(*[st.integers(1, 9)] * 4),
    batch=st.integers(1, 3),
    chunk=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_kernel_is_rows_times_values(name: str, size: tuple[int, int, int, int], batch: int, chunk: int) -> None:
    torch.manual_seed(0)
    num_queries, num_keys, depth, value_depth = size
    theta, phi = double(batch, num_queries, depth), double(batch, num_keys, depth)
    g = double(batch, num_keys, value_depth)
    kernel, rows = kernel_and_rows(name, depth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "CHUNK_ENTRIES", chunk)  # ragged last chunks
        torch.testing.assert_close(kernel(theta, phi, g), rows(theta, phi) @ g)
        mean = kernels.mean_row(lambda some: rows(some, phi), theta, num_keys)
    torch.testing.assert_close(mean, rows(theta, phi).mean(dim=1))


@pytest.mark.parametrize("name", ["softmax", "dot_product", "concatenation"])
@pytest.mark.parametrize(("num_queries", "num_keys", "depth"), [(3, 2, 6), (9, 7, 2)], ids=["wide", "long"])
def test_gradients(name: str, num_queries: int, num_keys: int, depth: int) -> None:
    """Wide and long: each side of the choice that softmax and dot product make by the sizes."""
    torch.manual_seed(0)
    kernel, rows = kernel_and_rows(name, depth)
    theta, phi = double(2, num_queries, depth), double(2, num_keys, depth)
    assert torch.autograd.gradcheck(kernel, (theta, phi, double(2, num_keys, depth)))
    assert torch.autograd.gradcheck(rows, (theta, phi))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["softmax", "dot_product"])
def test_lower_precision_stays_close(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    kernel, _ = kernel_and_rows(name, 8)
    inputs = [torch.randn(1, length, 8) for length in (200, 150, 150)]
    expected = kernel(*(tensor.double() for tensor in inputs))
    actual = kernel(*(tensor.to(dtype) for tensor in inputs))
    assert actual.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}[dtype]
    assert float((actual - expected).abs().max() / expected.abs().max()) < tolerance


def test_dot_product_does_not_overflow_float16_sums() -> None:
    ones = torch.ones(1, 2000, 1, dtype=torch.float16)
    assert float(kernels.dot_product_kernel(8 * ones, 8 * ones, 8 * ones).max()) == pytest.approx(512, rel=1e-2)


def test_softmax_rows_sum_to_one_and_others_divide_by_the_number_of_keys() -> None:
    torch.manual_seed(0)
    theta, phi = torch.randn(2, 5, 4), torch.randn(2, 7, 4)
    torch.testing.assert_close(kernels.softmax_rows(theta, phi).sum(-1), torch.ones(2, 5))
    torch.testing.assert_close(kernels.dot_product_rows(theta, phi) * 7, theta @ phi.mT)
    pairs = torch.cat([theta[:, :, None].expand(-1, -1, 7, -1), phi[:, None].expand(-1, 5, -1, -1)], dim=-1)
    weight = torch.randn(8)
    torch.testing.assert_close(kernels.concatenation_rows(theta, phi, weight) * 7, torch.relu(pairs @ weight))


@pytest.mark.parametrize("kernel", ["gaussian", "embedded_gaussian", "dot_product", "concatenation"])
@pytest.mark.parametrize("size", [(2, 2, 2), (4, 8, 8)], ids=["few positions", "many"])
def test_blocks_can_be_exported(kernel: str, size: tuple[int, ...]) -> None:
    block = VideoNonLocalBlock(4, sub_sample=False, nonlocal_type=kernel).eval()
    torch.nn.init.ones_(block.bn.weight)
    x = torch.randn(1, 4, *size)
    torch.testing.assert_close(torch.export.export(block, (x,)).module()(x), block(x))


@pytest.mark.parametrize("name", ["softmax", "dot_product", "concatenation"])
@pytest.mark.parametrize("value_depth", [2, 4, 6])
def test_no_tensor_is_as_large_as_the_matrix(name: str, value_depth: int) -> None:
    """Every tensor made on the way is watched; N x M would be 16 times the largest allowed."""
    watch = TensorWatch()
    length = 1024
    kernel, _ = kernel_and_rows(name, 4)
    # Transposed views, as the blocks' grids give them.
    inputs = [torch.randn(1, depth, length, dtype=torch.float64).mT for depth in (4, 4, value_depth)]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad(), watch:
        patch.setattr(kernels, "CHUNK_ENTRIES", length * length // 16)
        kernel(*inputs)
    assert watch.largest <= length * length // 16
