"""Every kernel, mode and setting of the blocks against loops over positions written from the paper, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nonlocal_video.blocks import NonLocalBlock, VideoNonLocalBlock

Position = tuple[int, ...]
Grid = dict[Position, Tensor]

KERNELS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


def positions(size: tuple[int, ...]) -> list[Position]:
    return list(itertools.product(*map(range, size)))


def project(conv: nn.Module | None, grid: Grid) -> Grid:
    if conv is None:
        return grid
    return {p: conv.weight.flatten(1) @ v + (0 if conv.bias is None else conv.bias) for p, v in grid.items()}


def pool(grid: Grid, window: tuple[int, ...]) -> Grid:
    size = [max(p[axis] for p in grid) + 1 for axis in range(len(window))]
    pooled = {}
    for cell in positions(tuple(side // w for side, w in zip(size, window, strict=True))):
        inside = [
            tuple(c * w + o for c, w, o in zip(cell, window, offset, strict=True)) for offset in positions(window)
        ]
        pooled[cell] = torch.stack([grid[p] for p in inside]).amax(0)
    return pooled


def loop_block(
    block: NonLocalBlock, sample: Tensor, window: tuple[int, ...], sees: Callable[[Position, Position], bool]
) -> tuple[Tensor, Tensor]:
    """One sample (C, *size) -> z, (C, *size), and the map over the whole grids, (N, M)."""
    size = tuple(sample.shape[1:])
    x = {p: sample[(slice(None), *p)] for p in positions(size)}
    theta = project(block.theta, x)
    if block.config.pool_order == "pool_conv":
        phi, g = project(block.phi, pool(x, window)), project(block.g, pool(x, window))
    else:
        phi, g = pool(project(block.phi, x), window), pool(project(block.g, x), window)

    def f(i: Position, j: Position) -> Tensor:
        if block.config.nonlocal_type == "concatenation":
            return torch.relu(block.concat_project.weight[0] @ torch.cat([theta[i], phi[j]]))  # eq. 5
        if block.config.nonlocal_type == "dot_product":
            return theta[i] @ phi[j]  # eq. 4
        return torch.exp(block.scale * (theta[i] @ phi[j]))  # eq. 2 and 3

    z, rows = torch.empty_like(sample), []
    for i in x:
        weights = {j: f(i, j) for j in phi if sees(i, j)}
        exponential = block.config.nonlocal_type in ("gaussian", "embedded_gaussian")
        factor = sum(weights.values()) if exponential else len(weights)  # C(x)
        y = torch.stack([weight * g[j] for j, weight in weights.items()]).sum(dim=0) / factor  # eq. 1
        out = project(block.W, {i: y})[i]
        if isinstance(block.bn, nn.Identity):
            normed = out
        else:
            bn = block.bn
            normed = bn.weight * (out - bn.running_mean) / torch.sqrt(bn.running_var + bn.eps) + bn.bias
        z[(slice(None), *i)] = x[i] + normed
        rows.append(torch.stack([weights[j] / factor if j in weights else sample.new_zeros(()) for j in phi]))
    return z, torch.stack(rows)


def randomise(block: NonLocalBlock) -> NonLocalBlock:
    """A block that does something: every parameter and statistic random, eval mode, float64."""
    block = block.double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.7)
    if not isinstance(block.bn, nn.Identity):
        nn.init.normal_(block.bn.running_mean)
        nn.init.uniform_(block.bn.running_var, 0.5, 2)
    return block


def assert_same(
    block: NonLocalBlock, x: Tensor, window: tuple[int, ...], sees: Callable[[Position, Position], bool]
) -> Tensor:
    """Same result, same gradients of everything; gives the reference's maps (B, N, M)."""
    x.requires_grad_()
    z, maps = map(torch.stack, zip(*(loop_block(block, sample, window, sees) for sample in x), strict=True))
    ours = block(x)
    torch.testing.assert_close(ours, z)
    leaves = [x, *block.parameters()]
    direction = torch.randn_like(z)
    expected = torch.autograd.grad((z * direction).sum(), leaves, allow_unused=True, materialize_grads=True)
    actual = torch.autograd.grad((ours * direction).sum(), leaves, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(actual, expected)
    return maps


def everything(query: Position, key: Position) -> bool:
    return True


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("order", ["conv_pool", "pool_conv"])
@pytest.mark.parametrize(
    ("size", "sub_sample", "window"),
    [
        ((7,), True, (2,)),  # odd: the last position is no key
        ((6,), False, (1,)),
        ((5, 4), True, (2, 2)),
        ((3, 4), False, (1, 1)),
        ((1, 1), True, (1, 1)),  # nothing to pool
        ((1, 6), True, (1, 2)),
        ((3, 2, 5), True, (1, 2, 2)),
        ((2, 3, 1), False, (1, 1, 1)),
    ],
)
def test_block_equals_loops(
    kernel: str, order: str, size: tuple[int, ...], sub_sample: bool, window: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    block = randomise(NonLocalBlock(4, 3, len(size), sub_sample, nonlocal_type=kernel, pool_order=order))
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    maps = assert_same(block, x, window, everything)
    z, nl_map = block(x, return_nl_map=True)
    torch.testing.assert_close(nl_map, maps)
    assert torch.equal(z, block(x))
    torch.testing.assert_close(block.attention(x, torch.arange(maps.shape[1])), maps)
    torch.testing.assert_close(block.attention_received(x), maps.mean(1))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "options",
    [{"inter_channels": 12}, {"bn_layer": False}, {"embed_bias": False, "out_bias": False}],
    ids=["wide", "no batch norm", "no bias"],
)
def test_block_options_equal_loops(kernel: str, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    block = randomise(NonLocalBlock(4, nonlocal_type=kernel, **options))
    assert_same(block, torch.randn(1, 4, 3, 4, dtype=torch.float64), (2, 2), everything)


@pytest.mark.parametrize(("scale", "factor"), [(None, 1.0), ("inverse_sqrt", 9**-0.5), (0.25, 0.25)])
def test_scale_acts_before_the_softmax(scale: float | str | None, factor: float) -> None:
    torch.manual_seed(0)
    block = randomise(NonLocalBlock(4, 9, scale=scale))
    assert block.scale == pytest.approx(factor)
    assert_same(block, torch.randn(1, 4, 3, 4, dtype=torch.float64), (2, 2), everything)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sub_sample", [True, False])
@pytest.mark.parametrize(
    ("mode", "groups", "sees"),
    [
        ("spacetime", None, everything),
        ("spacetime", 2, lambda query, key: query[0] // 2 == key[0] // 2),
        ("space_only", None, lambda query, key: query[0] == key[0]),
        ("time_only", None, lambda query, key: query[1:] == key[1:]),
        ("time_only", 2, lambda query, key: query[1:] == key[1:] and query[0] // 2 == key[0] // 2),
    ],
    ids=["spacetime", "spacetime groups", "space_only", "time_only", "time_only groups"],
)
def test_video_modes_equal_loops(
    kernel: str, sub_sample: bool, mode: str, groups: int | None, sees: Callable[[Position, Position], bool]
) -> None:
    torch.manual_seed(0)
    block = randomise(VideoNonLocalBlock(4, 3, mode, sub_sample, nonlocal_type=kernel, temporal_groups=groups))
    window = (1, 2, 2) if sub_sample and mode != "time_only" else (1, 1, 1)
    x = torch.randn(2, 4, 4, 3, 2, dtype=torch.float64)
    maps = assert_same(block, x, window, sees)
    assert block.key_size((4, 3, 2)) == tuple(side // w for side, w in zip((4, 3, 2), window, strict=True))

    queries = torch.tensor([23, 0, 7, 7])  # any order, any number of times
    attention = block.attention(x, queries)
    torch.testing.assert_close(attention, maps[:, queries])
    assert torch.equal(attention == 0, maps[:, queries] == 0)  # out of sight is exactly 0
    torch.testing.assert_close(block.attention_received(x), maps.mean(1))

    nl_map = block(x, return_nl_map=True)[1]
    if mode == "spacetime" and groups is None:
        torch.testing.assert_close(nl_map, maps)
    else:  # (B, S, N', M'): the S blocks of the map that are not zero, in the order of frames, then places
        visible = torch.tensor(
            [[sees(i, j) for j in positions(block.key_size((4, 3, 2)))] for i in positions((4, 3, 2))]
        )
        first_seen = visible.int().argmax(1)
        sets = [first_seen == key for key in first_seen.unique()]
        expected = torch.stack([maps[:, queries][:, :, visible[queries].any(0)] for queries in sets], dim=1)
        torch.testing.assert_close(nl_map, expected)
