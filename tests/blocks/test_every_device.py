"""The kernels on the CPU and on a GPU, against loops in NumPy's float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from nonlocal_video.blocks import kernels

Array = NDArray[np.float64]
NAMES = ("softmax", "tiled softmax", "dot_product", "concatenation")
SIZES = [(2, 33, 17, 8, 8), (1, 90, 70, 3, 5), (3, 7, 40, 16, 1)]
"""Batch, queries, keys, their depth and the values'."""


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12), (torch.bfloat16, 2e-2)]
)
@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_gives_what_loops_give(
    name: str, dtype: torch.dtype, tolerance: float, size: tuple[int, ...], all_devices: str
) -> None:
    batch, queries, keys, depth, width = size
    random = np.random.default_rng(queries)
    # What the type can hold: only the arithmetic is compared.
    theta, phi, g, weight = (
        torch.from_numpy(random.normal(size=shape)).to(dtype).double()
        for shape in ((batch, queries, depth), (batch, keys, depth), (batch, keys, width), (2 * depth,))
    )
    wanted = np.stack(
        [_loops(name, theta[i].numpy(), phi[i].numpy(), g[i].numpy(), weight.numpy()) for i in range(batch)]
    )
    found = _kernel(name)(*(tensor.to(all_devices, dtype) for tensor in (theta, phi, g, weight)))
    assert found.device.type == all_devices
    assert found.dtype == dtype
    difference = np.abs(found.cpu().double().numpy() - wanted).max()
    assert difference <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_has_the_slopes_of_differences(name: str, all_devices: str) -> None:
    """Float64 on each device, by `gradcheck`: each derivative against a difference quotient."""
    random = torch.Generator().manual_seed(3)
    shapes = (2, 6, 3), (2, 5, 3), (2, 5, 2), (6,)
    given = [
        torch.randn(shape, dtype=torch.float64, generator=random).to(all_devices).requires_grad_() for shape in shapes
    ]
    used = given if name == "concatenation" else given[:3]
    kernel = _kernel(name)
    torch.autograd.gradcheck(lambda *tensors: kernel(*tensors, *given[len(tensors) :]), used)


def _kernel(name: str) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    if name == "softmax":
        return lambda theta, phi, g, _: kernels.softmax_kernel(theta, phi, g)
    if name == "tiled softmax":
        return lambda theta, phi, g, _: kernels.memory_efficient_softmax_kernel(theta, phi, g)
    if name == "dot_product":
        return lambda theta, phi, g, _: kernels.dot_product_kernel(theta, phi, g)
    return kernels.concatenation_kernel


def _loops(name: str, theta: Array, phi: Array, g: Array, weight: Array) -> Array:
    """The paper's eq. 2, 4 and 5, one query at a time."""
    rows = []
    for query in theta:
        if name == "concatenation":
            weights = [max(0.0, float(weight @ np.concatenate([query, key]))) / len(phi) for key in phi]
        elif name == "dot_product":
            weights = [float(query @ key) / len(phi) for key in phi]
        else:
            scores = [float(query @ key) for key in phi]
            exponentials = [np.exp(score - max(scores)) for score in scores]
            weights = [one / sum(exponentials) for one in exponentials]
        rows.append(sum(one * value for one, value in zip(weights, g, strict=True)))
    return np.array(rows)
