"""`torch.func` and second derivatives through every kernel, against the matrix that the paper writes."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

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
from nonlocal_video.blocks.sorted_prefix_sums import relu_sum
from nonlocal_video.blocks.tiled_softmax import tiled_softmax

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
WEIGHT = torch.tensor([0.7, -0.4, 0.9, 0.5], dtype=torch.float64)


def tiled(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """Compute the softmax in several tiles."""
    return tiled_softmax(theta, phi, g, scale=0.8, tile_entries=25 * len(theta))


KERNELS: dict[str, tuple[Kernel, Kernel]] = {
    "fused": (lambda *x: softmax_kernel(*x, scale=0.8), lambda *x: softmax_reference(*x, scale=0.8)),
    "tiled": (tiled, lambda *x: softmax_reference(*x, scale=0.8)),
    "memory-efficient": (memory_efficient_softmax_kernel, softmax_reference),
    "dot product": (dot_product_kernel, dot_product_reference),
    "concatenation": (
        lambda theta, phi, g: concatenation_kernel(theta, phi, g, WEIGHT),
        lambda theta, phi, g: concatenation_reference(theta, phi, g, WEIGHT),
    ),
}


def rows(num_queries: int = 14, num_keys: int = 17) -> tuple[Tensor, Tensor, Tensor]:
    """There are so many positions and so few channels that no kernel takes its way with the matrix."""
    theta, phi, g = (torch.randn(2, length, 2, dtype=torch.float64) for length in (num_queries, num_keys, num_keys))
    return theta, phi, g


def assert_close(ours: object, expected: object) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


@pytest.fixture(autouse=True)
def _no_advice_on_speed():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        yield


@pytest.mark.parametrize("name", KERNELS)
def test_transforms(name: str) -> None:
    kernel, reference = KERNELS[name]
    inputs, tangents = rows(), rows()

    def loss_of(way: Kernel) -> Callable[..., Tensor]:
        return lambda *x: (way(*x) ** 2).sum()

    for index in range(3):
        ours, expected = (torch.func.grad(loss_of(way), index)(*inputs) for way in (kernel, reference))
        assert_close(ours, expected)
    ours, expected = (torch.func.jvp(way, inputs, tangents) for way in (kernel, reference))
    assert_close(ours, expected)
    for index in range(3):  # the tangent of one alone

        def alone(way: Kernel, index: int = index) -> tuple[Any, ...]:
            def of_one(x: Tensor) -> Tensor:
                return way(*(x if place == index else given for place, given in enumerate(inputs)))

            return torch.func.jvp(of_one, (inputs[index],), (tangents[index],))

        assert_close(alone(kernel), alone(reference))
    many = tuple(torch.stack([tensor, 2 * tensor, -tensor], dim=1) for tensor in inputs)
    assert_close(torch.func.vmap(kernel, 1)(*many), torch.stack([kernel(*(x[:, i] for x in many)) for i in range(3)]))
    in_dims = (1, None, None)
    assert_close(
        torch.func.vmap(kernel, in_dims)(many[0], *inputs[1:]),
        torch.stack([kernel(many[0][:, i], *inputs[1:]) for i in range(3)]),
    )
    ours, expected = (
        torch.func.vmap(torch.func.grad(loss_of(way), (0, 1, 2)), 1)(*many) for way in (kernel, reference)
    )
    assert_close(ours, expected)

    def twice(way: Kernel) -> object:
        def norm(*x: Tensor) -> Tensor:
            return sum((grad**2).sum() for grad in torch.func.grad(loss_of(way), (0, 1, 2))(*x))

        return torch.func.grad(norm, (0, 1, 2))(*inputs)

    assert_close(twice(kernel), twice(reference))
    ours, expected = (torch.func.hessian(loss_of(way), 1)(*(x[:1, :5] for x in inputs)) for way in (kernel, reference))
    assert_close(ours, expected)


@pytest.mark.parametrize("name", [name for name in KERNELS if name != "fused"])
@pytest.mark.slow
def test_second_derivatives(name: str) -> None:
    kernel, _ = KERNELS[name]
    inputs = tuple(tensor.requires_grad_() for tensor in rows(9, 11))
    assert torch.autograd.gradcheck(kernel, inputs)
    assert torch.autograd.gradgradcheck(kernel, inputs)


def test_the_fused_kernel_says_what_to_take_instead() -> None:
    inputs = tuple(tensor.requires_grad_() for tensor in rows())
    gradients = torch.autograd.grad(softmax_kernel(*inputs).sum(), inputs, create_graph=True)  # is no trouble yet
    expected = torch.autograd.grad(softmax_reference(*inputs).sum(), inputs)
    assert_close([grad.detach() for grad in gradients], list(expected))
    with pytest.raises(RuntimeError, match=r"no second derivative; memory_efficient\(block\)"):
        torch.autograd.grad(gradients[0].sum(), inputs[1])


def test_the_tiled_backward_keeps_no_matrix_unless_it_is_differentiated_again() -> None:
    theta, phi, g = (tensor.requires_grad_() for tensor in rows(300, 300))
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        y = tiled(theta, phi, g)
        torch.autograd.grad(y.sum(), theta, retain_graph=True)
        assert max(saved) <= 2 * 300 * 2
        torch.autograd.grad(y.sum(), theta, create_graph=True)
        assert sum(saved) >= 2 * 300 * 300


def block_of(nonlocal_type: str, variant: str, *, video: bool) -> NonLocalBlock:
    make = VideoNonLocalBlock if video else NonLocalBlock
    block = make(4, 2, nonlocal_type=nonlocal_type).double().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.5)
    changed = {
        "full": lambda: block,
        "memory-efficient": lambda: memory_efficient(block),
        "sparse": lambda: sparse_attention(block, 3),
        "factorised": lambda: factorized_attention(block, 1),
    }
    return changed[variant]()


@pytest.mark.parametrize("video", [False, True])
@pytest.mark.parametrize(
    ("nonlocal_type", "variant"),
    [
        *itertools.product(
            ("gaussian", "embedded_gaussian", "dot_product", "concatenation"), ("full", "memory-efficient", "sparse")
        ),
        ("embedded_gaussian", "factorised"),  # the others have no theta and phi whose product could be factorised
        ("dot_product", "factorised"),
    ],
)
def test_every_block(nonlocal_type: str, variant: str, video: bool) -> None:
    """Against the block's own map, times g: operations that PyTorch differentiates any number of times."""
    block = block_of(nonlocal_type, variant, video=video)
    x = torch.randn(2, 4, *((2,) if video else ()), 8, 10, dtype=torch.float64)

    def by_the_map(x: Tensor) -> Tensor:
        source = block._key_source(x)
        theta, phi, g = (block._fold(part) for part in (block._queries(x), block._keys(source), block._values(source)))
        return x + block.bn(block.W(block._unfold(block._rows(theta, phi) @ g, x)))

    def loss(way: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: (way(x) ** 2).sum()

    assert_close(torch.func.grad(loss(block))(x), torch.func.grad(loss(by_the_map))(x))
    assert_close(torch.func.jvp(block, (x,), (x,)), torch.func.jvp(by_the_map, (x,), (x,)))
    clips = torch.stack([x, -x])
    assert_close(torch.func.vmap(block)(clips), torch.stack([block(x), block(-x)]))

    def twice(way: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return torch.func.grad(lambda x: (torch.func.grad(loss(way))(x) ** 2).sum())

    assert_close(twice(block)(x), twice(by_the_map)(x))

    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(block)(leaf), leaf, create_graph=True)
    if variant == "sparse" or (variant != "memory-efficient" and "gaussian" in nonlocal_type):
        with pytest.raises(RuntimeError, match="has no second derivative"):
            (grad**2).sum().backward()
    else:
        (grad**2).sum().backward()
        assert_close(leaf.grad, twice(by_the_map)(x))


def test_ramp_sums_of_no_sets() -> None:
    queries, keys, values = torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0, 4, 2)
    assert relu_sum(queries, keys, values).shape == (0, 3, 2)
