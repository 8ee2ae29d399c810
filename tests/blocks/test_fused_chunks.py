"""The fused softmax kernel on a CPU is given some queries at a time, with the same result."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nonlocal_video.blocks.kernels import softmax_kernel
from nonlocal_video.blocks.reference import softmax_reference


@pytest.mark.parametrize("num_queries", [2047, 2048, 3136, 3137])
def test_some_queries_at_a_time_give_what_all_at_once_give(num_queries: int) -> None:
    theta, phi, g = (
        torch.randn(2, count, 16).transpose(1, 2).contiguous().transpose(1, 2) for count in (num_queries, 700, 700)
    )
    reference = softmax_reference(theta.double(), phi.double(), g.double(), scale=0.3)
    with torch.no_grad():
        chunked = softmax_kernel(theta, phi, g, scale=0.3)
    at_once = softmax_kernel(theta.requires_grad_(), phi, g, scale=0.3)
    assert chunked.shape == at_once.shape == (2, num_queries, 16)
    assert (chunked.double() - reference).abs().max() < 2e-6
    assert (at_once.double() - reference).abs().max() < 2e-6


@pytest.mark.parametrize(("with_gradient", "sizes"), [(False, [1024, 1024, 1088]), (True, [3136])])
def test_a_gradient_is_worth_one_call(with_gradient: bool, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    fused, seen = F.scaled_dot_product_attention, []

    def counting(query: torch.Tensor, *rest: torch.Tensor, **options: float) -> torch.Tensor:
        assert query.is_contiguous()
        seen.append(query.shape[2])
        return fused(query, *rest, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counting)
    theta, phi, g = (torch.randn(1, 3136, 8, requires_grad=with_gradient) for _ in range(3))
    softmax_kernel(theta, phi, g)
    assert seen == sizes
