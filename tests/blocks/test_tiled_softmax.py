"""The online softmax in tiles: against the reference in float64, its gradients, and what it and the fused one hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_watch import TensorWatch
from torch import Tensor

from nonlocal_video.blocks import kernels
from nonlocal_video.blocks.reference import dot_product_reference, softmax_reference
from nonlocal_video.blocks.tiled_softmax import tiled_softmax


def double(*size: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64, requires_grad=True)


@given(size=st.tuples(*[st.integers(1, 9)] * 4), batch=st.integers(1, 3), tile_entries=st.integers(1, 60))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_equals_the_reference_and_so_do_the_gradients(
    size: tuple[int, int, int, int], batch: int, tile_entries: int
) -> None:
    torch.manual_seed(0)
    num_queries, num_keys, depth, value_depth = size
    inputs = double(batch, num_queries, depth), double(batch, num_keys, depth), double(batch, num_keys, value_depth)
    direction = torch.randn(batch, num_queries, value_depth, dtype=torch.float64)
    expected = softmax_reference(*inputs, scale=0.7)
    actual = tiled_softmax(*inputs, scale=0.7, tile_entries=tile_entries)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(
        torch.autograd.grad((actual * direction).sum(), inputs),
        torch.autograd.grad((expected * direction).sum(), inputs),
    )


def test_gradcheck() -> None:
    torch.manual_seed(0)
    inputs = double(2, 5, 3), double(2, 7, 3), double(2, 7, 4)
    assert torch.autograd.gradcheck(lambda *some: tiled_softmax(*some, scale=0.5, tile_entries=18), inputs)


def test_large_scores_do_not_overflow() -> None:
    theta, phi = torch.full((1, 3, 1), 100.0), torch.tensor([[[-100.0], [100.0], [99.0]]])
    g = torch.arange(3.0).view(1, 3, 1)
    assert tiled_softmax(theta, phi, g, scale=1.0, tile_entries=1).flatten().tolist() == [1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_lower_precision(dtype: torch.dtype, autocast: bool) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, length, 8).to(dtype).requires_grad_() for length in (50, 70, 70)]
    exact = softmax_reference(*(tensor.double() for tensor in inputs))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        actual = tiled_softmax(*inputs, scale=1.0, tile_entries=500)
    assert actual.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    assert float(((actual - exact).abs().max() / exact.abs().max()).detach()) < tolerance
    actual.sum().backward()
    assert all(tensor.grad.dtype == dtype and tensor.grad.isfinite().all() for tensor in inputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("depth", [3, 64, 300])
@pytest.mark.parametrize("training", [True, False])
def test_the_fused_cpu_kernel_serves_what_it_is_given(
    dtype: torch.dtype, depth: int, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of PyTorch itself: 0 is the matrix, 1 is flash. Transposed views, as the blocks' grids give them."""
    choices = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def watched(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
        choices.append(torch._fused_sdp_choice(query, key, value, scale=scale))
        return fused(query, key, value, scale=scale)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    length = 4 * depth + 1  # beyond which a matrix would be larger than the inputs
    theta, phi, g = (torch.randn(1, depth, length).to(dtype).mT.requires_grad_(training) for _ in range(3))
    kernels.softmax_kernel(theta, phi, g[..., :-1])
    assert choices == [1]


@pytest.mark.parametrize("kernel", [kernels.softmax_kernel, kernels.memory_efficient_softmax_kernel])
def test_no_tensor_is_as_large_as_the_matrix_in_training(kernel: object, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = TensorWatch()
    length = 1024
    monkeypatch.setattr(kernels, "CHUNK_ENTRIES", length * length // 16)
    inputs = [torch.randn(1, length, 4, requires_grad=True) for _ in range(3)]
    with watch:
        kernel(*inputs).sum().backward()
    assert watch.largest <= length * length // 16


def test_rows_of_16_bits_have_scores_of_32() -> None:
    """A score of 300 in bfloat16 is off by up to 1, a factor of e in the weight."""
    torch.manual_seed(0)
    theta, phi = (4 * torch.randn(1, 40, 16)).bfloat16(), (4 * torch.randn(1, 40, 16)).bfloat16()
    rows = kernels.softmax_rows(theta, phi)
    exact = kernels.softmax_rows(theta.double(), phi.double())
    assert float((rows - exact).abs().max()) < 4e-3
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(kernels.softmax_rows(theta, phi), rows)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_queries", [4, 400])
def test_dot_product_of_many_keys_in_16_bits(dtype: torch.dtype, num_queries: int) -> None:
    """phi / M would underflow in float16, phi^T g overflow. 4 queries: the matrix's way; 400: the other."""
    torch.manual_seed(0)
    theta, phi, g = (torch.rand(1, length, 16).to(dtype) for length in (num_queries, 100_000, 100_000))
    exact = dot_product_reference(theta.double(), phi.double(), g.double())
    actual = kernels.dot_product_kernel(theta, phi, g)
    assert float((actual - exact).abs().max() / exact.abs().max()) < {torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
