"""The kernels and the default on a CUDA device, against the paper's formulas in float64 on the CPU."""

from __future__ import annotations

import pytest
import torch

from nonlocal_video.blocks import NonLocalBlock, VideoNonLocalBlock
from nonlocal_video.zoo.catalogue import load_network

pytestmark = pytest.mark.cuda
PRECISIONS = [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)]
KINDS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


def trained(kind: str, mode: str = "spacetime") -> NonLocalBlock:
    torch.manual_seed(0)
    block = VideoNonLocalBlock(32, 16, mode, nonlocal_type=kind)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return block.double()


@pytest.mark.parametrize("mode", ["spacetime", "space_only", "time_only"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_forward_and_gradients_are_those_of_float64_on_the_cpu(
    kind: str, mode: str, dtype: torch.dtype, tolerance: float
) -> None:
    block = trained(kind, mode)
    x = torch.randn(2, 32, 8, 14, 14, dtype=torch.float64)
    weight = torch.randn_like(x)

    def result(dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        moved = trained(kind, mode).to(device, dtype).eval()
        moved.load_state_dict(block.state_dict())
        inputs = x.to(device, dtype).requires_grad_()
        z = moved(inputs)
        (z * weight.to(device, dtype)).sum().backward()
        assert inputs.grad is not None
        return z.detach().cpu().double(), inputs.grad.cpu().double()

    previous = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        for ours, wanted in zip(result(dtype, "cuda"), result(torch.float64, "cpu"), strict=True):
            assert (ours - wanted).norm() <= tolerance * wanted.norm()
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = previous


@pytest.mark.parametrize("kind", KINDS)
def test_the_matrix_is_never_held(kind: str) -> None:
    block = trained(kind).float().cuda()
    x = torch.randn(1, 32, 16, 56, 56, device="cuda", requires_grad=True)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    block(x).sum().backward()
    matrix = 50176 * 12544 * 4
    assert torch.cuda.max_memory_allocated() - before < 0.5 * matrix


@pytest.mark.parametrize(("tf32", "tolerance"), [(False, 1e-4), (True, 1e-2)])
def test_the_default_gives_the_logits_of_the_cpu(tf32: bool, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)  # PyTorch's own default is True
    network, _ = load_network("default")
    clip = torch.randn(1, 3, 16, 128, 128)
    with torch.inference_mode():
        wanted = network(clip)
        ours = network.cuda()(clip.cuda()).cpu()
        again = network(clip.cuda()).cpu()
    assert (ours - wanted).abs().max() <= tolerance * wanted.abs().max()
    assert torch.equal(ours, again)
