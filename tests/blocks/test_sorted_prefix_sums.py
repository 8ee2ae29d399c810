"""Concatenation by sorting: against the matrix in float64, its gradients, ties, offsets and many keys."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_watch import TensorWatch
from torch import Tensor

from nonlocal_video.blocks import kernels
from nonlocal_video.blocks import sorted_prefix_sums as threshold_sums
from nonlocal_video.blocks.reference import concatenation_reference
from nonlocal_video.blocks.sorted_prefix_sums import relu_sum


def matrix_sums(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.relu(queries[:, :, None] + keys[:, None]) @ values


def double(*size: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64, requires_grad=True)


def relative_error(actual: Tensor, exact: Tensor) -> float:
    return float((actual - exact).abs().max() / exact.abs().max())


@given(
    batch=st.integers(1, 3),
    num_queries=st.integers(1, 70),
    num_keys=st.integers(1, 70),
    depth=st.integers(1, 7),
    whole=st.booleans(),
    block=st.sampled_from([2, 3, 32]),
    channels=st.sampled_from([1, 3, 32]),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_equals_the_matrix_and_so_do_the_gradients(
    batch: int, num_queries: int, num_keys: int, depth: int, whole: bool, block: int, channels: int
) -> None:
    """Whole numbers give ties among keys and zeros of a_i + b_j, where ReLU has derivative 0 by convention."""
    torch.manual_seed(0)
    queries, keys, values = double(batch, num_queries), double(batch, num_keys), double(batch, num_keys, depth)
    if whole:
        queries, keys = ((2 * tensor).round().detach().requires_grad_() for tensor in (queries, keys))
    direction = torch.randn(batch, num_queries, depth, dtype=torch.float64)
    expected = matrix_sums(queries, keys, values)
    expected_grads = torch.autograd.grad((expected * direction).sum(), (queries, keys, values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threshold_sums, "_BLOCK", block)  # several levels of blocks
        patch.setattr(threshold_sums, "_CHANNELS", channels)
        actual = relu_sum(queries, keys, values)
        actual_grads = torch.autograd.grad((actual * direction).sum(), (queries, keys, values))
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(actual_grads, expected_grads)


def test_gradients_of_first_and_second_order() -> None:
    torch.manual_seed(0)
    inputs = (double(2, 7), double(2, 5), double(2, 5, 3))
    assert torch.autograd.gradcheck(relu_sum, inputs)
    assert torch.autograd.gradgradcheck(relu_sum, inputs)


@pytest.mark.parametrize("pick", [0, 1, 2])
def test_gradient_of_one_input_alone(pick: int) -> None:
    torch.manual_seed(0)
    inputs = [double(1, 7).detach(), double(1, 5).detach(), double(1, 5, 3).detach()]
    inputs[pick].requires_grad_()
    assert torch.autograd.gradcheck(relu_sum, inputs)


def test_none_and_all_of_the_keys() -> None:
    keys, values = torch.tensor([[1.0, 2.0]]), torch.ones(1, 2, 1)
    assert relu_sum(torch.tensor([[-5.0, -2.0, -1.0, 5.0]]), keys, values).flatten().tolist() == [0, 0, 1, 13]


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_float32_at_a_hundred_thousand_keys(offset: float) -> None:
    """Whatever the common offset of a and -b, and with values of one sign, whose sums grow with the number of keys."""
    torch.manual_seed(0)
    queries, keys = torch.randn(1, 500) + offset, torch.randn(1, 100_000) - offset
    values = torch.rand(1, 100_000, 4)
    exact = matrix_sums(queries.double(), keys.double(), values.double())
    assert relative_error(relu_sum(queries, keys, values), exact) < 1e-6


def test_float32_where_the_device_adds_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's CPU adds cumulative sums of float32 in float64; here every one is added one by one in float32."""

    def cumsum_(rows: Tensor, dim: int) -> Tensor:
        for index in range(1, rows.shape[dim]):
            rows.select(dim, index).add_(rows.select(dim, index - 1))
        return rows

    torch.manual_seed(0)
    queries, keys, values = torch.randn(1, 200), torch.randn(1, 100_000), torch.rand(1, 100_000, 1)
    exact = matrix_sums(queries.double(), keys.double(), values.double())
    monkeypatch.setattr(Tensor, "cumsum_", cumsum_)
    assert relative_error(relu_sum(queries, keys, values), exact) < 3e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("min_products", [0, 10**9], ids=["sorted", "matrix"])
def test_kernel_in_lower_precision(dtype: torch.dtype, min_products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_SORTING_COSTS", min_products)
    torch.manual_seed(0)
    theta, phi, g, weight = (torch.randn(size).to(dtype) for size in ((2, 90, 8), (2, 75, 8), (2, 75, 8), (16,)))
    exact = concatenation_reference(*(tensor.double() for tensor in (theta, phi, g, weight)))
    actual = kernels.concatenation_kernel(theta, phi, g, weight)
    assert actual.dtype == dtype
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    assert relative_error(actual, exact) < tolerance


def test_kernel_sorts_when_there_are_many_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    theta, phi, g, weight = double(1, 60, 3), double(1, 50, 3), double(1, 50, 2), double(6)
    monkeypatch.setattr(kernels, "concatenation_rows", None)  # not called
    actual = kernels.concatenation_kernel(theta, phi, g, weight)
    torch.testing.assert_close(actual, concatenation_reference(theta, phi, g, weight))
    assert torch.autograd.gradcheck(kernels.concatenation_kernel, (theta, phi, g, weight))


def test_nothing_as_large_as_the_matrix_in_the_backward_pass() -> None:
    watch = TensorWatch()
    inputs = double(1, 1000), double(1, 900), double(1, 900, 8)
    with watch:
        relu_sum(*inputs).sum().backward()
    assert watch.largest <= 2 * 1000 * 8
