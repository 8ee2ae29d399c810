"""Single blocks of Non-local_pytorch against its definition written out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nonlocal_video.blocks import NonLocalType
from nonlocal_video.errors import ModelError
from nonlocal_video.zoo.names.alexhex7 import read_block

CHANNELS, INNER = 6, 4
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
POOL = {
    1: lambda x: F.max_pool1d(x, 2),
    2: lambda x: F.max_pool2d(x, 2),
    3: lambda x: F.max_pool3d(x, (1, 2, 2)),
}
SIZES = {1: (9,), 2: (6, 5), 3: (3, 4, 5)}


def block_state(nonlocal_type: NonLocalType, dimension: int, *, sub_sample: bool, bn_layer: bool) -> dict[str, Tensor]:
    """A random block under Non-local_pytorch's names."""
    ones = (1,) * dimension
    first = ".0" if sub_sample else ""
    shapes: dict[str, tuple[int, ...]] = {f"g{first}": (INNER, CHANNELS, *ones)}
    if nonlocal_type != "gaussian":
        shapes |= {"theta": (INNER, CHANNELS, *ones), f"phi{first}": (INNER, CHANNELS, *ones)}
    shapes["W.0" if bn_layer else "W"] = (CHANNELS, INNER, *ones)
    state: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        state |= {f"{name}.weight": torch.randn(shape), f"{name}.bias": torch.randn(shape[0])}
    if nonlocal_type == "concatenation":
        state["concat_project.0.weight"] = torch.randn(1, 2 * INNER, 1, 1)
    if bn_layer:
        names = ("weight", "bias", "running_mean", "running_var")
        state |= {f"W.1.{name}": torch.rand(CHANNELS) + 0.5 for name in names}
        state["W.1.num_batches_tracked"] = torch.tensor(3)
    return state


def plain_block(state: dict[str, Tensor], x: Tensor, nonlocal_type: NonLocalType) -> Tensor:
    """z of (B, C, *size), with a loop over the pairs."""
    dimension = x.dim() - 2
    sub_sample, bn_layer = "g.0.weight" in state, "W.1.weight" in state

    def conv(name: str, grid: Tensor, pooled: bool = False) -> Tensor:
        key = f"{name}.0" if (pooled and sub_sample) or (name == "W" and bn_layer) else name
        result = CONV[dimension](grid, state[f"{key}.weight"], state[f"{key}.bias"])
        return POOL[dimension](result) if pooled and sub_sample else result

    g = conv("g", x, pooled=True).flatten(2)
    if nonlocal_type == "gaussian":
        theta, phi = x.flatten(2), (POOL[dimension](x) if sub_sample else x).flatten(2)
    else:
        theta, phi = conv("theta", x).flatten(2), conv("phi", x, pooled=True).flatten(2)
    y = torch.zeros(len(x), INNER, theta.shape[2])
    for b in range(len(x)):
        for i in range(theta.shape[2]):
            if nonlocal_type == "concatenation":
                pairs = [torch.cat([theta[b, :, i], phi[b, :, j]]) for j in range(phi.shape[2])]
                f = (torch.stack(pairs) @ state["concat_project.0.weight"].flatten()).relu()
            else:
                f = phi[b].T @ theta[b, :, i]
            weights = f / len(f) if nonlocal_type in ("dot_product", "concatenation") else f.softmax(0)
            y[b, :, i] = g[b] @ weights
    y = conv("W", y.view(len(x), INNER, *x.shape[2:]))
    if bn_layer:
        statistics = (state[f"W.1.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        y = F.batch_norm(y, *statistics, training=False, eps=1e-5)
    return x + y


@pytest.mark.parametrize("nonlocal_type", ["embedded_gaussian", "dot_product", "gaussian", "concatenation"])
@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize(("sub_sample", "bn_layer"), [(True, True), (False, False), (True, False), (False, True)])
def test_blocks(nonlocal_type: NonLocalType, dimension: int, sub_sample: bool, bn_layer: bool, tmp_path: Path) -> None:
    state = block_state(nonlocal_type, dimension, sub_sample=sub_sample, bn_layer=bn_layer)
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "block.pth")
    block = read_block(tmp_path / "block.pth", nonlocal_type=nonlocal_type)
    x = torch.randn(2, CHANNELS, *SIZES[dimension])
    with torch.inference_mode():
        torch.testing.assert_close(block(x), plain_block(state, x, nonlocal_type), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("W.1.running_var"), r"W\.1\.running_var is missing"),
        (lambda state: state.update(extra=torch.ones(1)), "extra is not part of it"),
        (lambda state: state.update({"theta.weight": torch.ones(5, 6, 1, 1)}), r"theta\.weight is \(5, 6, 1, 1\)"),
        (lambda state: state.pop("g.0.weight"), r"no convolution g\.weight"),
        (lambda state: state.update({"g.0.weight": torch.ones(5)}), r"no convolution g\.weight"),
    ],
)
def test_other_files_are_refused(change, message: str, tmp_path: Path) -> None:
    state = block_state("embedded_gaussian", 2, sub_sample=True, bn_layer=True)
    change(state)
    torch.save(state, tmp_path / "block.pth")
    with pytest.raises(ModelError, match=message):
        read_block(tmp_path / "block.pth", nonlocal_type="embedded_gaussian")


def test_another_kernels_file_is_refused(tmp_path: Path) -> None:
    torch.save(block_state("gaussian", 2, sub_sample=True, bn_layer=True), tmp_path / "block.pth")
    with pytest.raises(ModelError, match=r"not a dot_product block.*theta\.weight is missing"):
        read_block(tmp_path / "block.pth", nonlocal_type="dot_product")
