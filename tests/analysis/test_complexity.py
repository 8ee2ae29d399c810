"""Counts against fvcore, published figures and arithmetic written out by hand."""

from __future__ import annotations

import bisect
import json
import math
import resource
import warnings
from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from tiny_networks import tiny_network
from torch import Tensor, nn

from nonlocal_video.analysis import (
    BlockLimits,
    NonLocalOptimizer,
    advise_blocks,
    block_complexity,
    block_operations,
    compare_blocks,
    kernel_operations,
    network_complexity,
)
from nonlocal_video.analysis.counting import count_run
from nonlocal_video.analysis.formulas import EVALUATIONS, block_parameters, position_sets
from nonlocal_video.blocks import NonLocalBlock, NonLocalConfig, NonLocalType, VideoNonLocalBlock, kernels
from nonlocal_video.models.resnet2d import NonLocalNet
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.zoo.catalogue import entry

TYPES: tuple[NonLocalType, ...] = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


@pytest.mark.parametrize(
    ("name", "size", "gmacs", "parameters"),
    [
        # What the authors' projects state, CHECKPOINTS of PySlowFast, pytorchvideo, mmaction2 and torchvision.
        ("i3d-r50-8x8-k400-pyslowfast", (8, 224, 224), 28.4, 28_043_472),
        ("i3d-r50-8x8-k400-pyslowfast", (8, 256, 256), 37.1, 28_043_472),
        ("i3d-nl-r50-8x8-k400-pyslowfast", (8, 224, 224), 36.5, 35_401_936),
        ("i3d-nl-r50-8x8-k400-pyslowfast", (8, 256, 256), 48.9, 35_401_936),
        ("slow-r50-8x8-k400-pyslowfast", (8, 224, 224), 41.7, 32_454_096),
        ("slow-r50-8x8-k400-pyslowfast", (8, 256, 256), 54.5, 32_454_096),
        ("i3d-r50-32x2-k400-mmaction2", (32, 224, 224), 33.1, 28_043_472),
        ("r3d-18-k400-torchvision", (16, 112, 112), 40.70, 33_371_472),
    ],
)
@pytest.mark.slow
def test_published_networks(name: str, size: tuple[int, ...], gmacs: float, parameters: int) -> None:
    with torch.device("meta"):
        network = Video3DResNet.from_config(entry(name).network_config)
    counted = network_complexity(network, (1, 3, *size))
    assert counted.macs / 1e9 == pytest.approx(gmacs, abs=0.06)
    assert counted.parameters == parameters


def test_against_fvcore() -> None:
    analysis = import_module("fvcore.nn")
    network = NonLocalNet(num_classes=10, nonlocal_stages=(3,), nonlocal_type="dot_product").eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counter = analysis.FlopCountAnalysis(network, torch.randn(1, 3, 64, 64))
        by_module = counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_module_and_operator()
    theirs = {
        name: sum(ops[op] for op in ("conv", "linear", "matmul", "bmm") if op in ops) for name, ops in by_module.items()
    }
    ours = network_complexity(network, (1, 3, 64, 64))
    assert ours.macs == pytest.approx(theirs[""], rel=0.01)
    assert {layer.name: layer.macs for layer in ours.layers}["layer3"] == theirs["layer3"]


@pytest.mark.parametrize("nonlocal_type", TYPES)
@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ((1, 64, 4, 14, 14), NonLocalConfig()),
        ((2, 32, 8, 8, 10), NonLocalConfig(pool_order="pool_conv", inter_channels=8)),
        ((1, 32, 4, 9, 7), NonLocalConfig(sub_sample=False, mode="space_only")),
        ((1, 32, 8, 6, 6), NonLocalConfig(mode="time_only")),
        ((1, 32, 8, 12, 12), NonLocalConfig(temporal_groups=4)),
        ((1, 32, 40, 40), NonLocalConfig(embed_bias=False)),
        ((1, 16, 900), NonLocalConfig(bn_layer=False, out_bias=False)),
    ],
)
def test_formula_agrees_with_what_runs(
    nonlocal_type: NonLocalType, shape: tuple[int, ...], config: NonLocalConfig
) -> None:
    (block,) = compare_blocks([shape], [nonlocal_type], config=config)
    assert block.formula_macs == pytest.approx(block.counted_macs, rel=0.01)
    assert block.parameters == block_parameters(shape[1], block.config)
    sets = position_sets(block.config, shape[2:])
    assert (block.num_sets, block.num_queries, block.num_keys) == (sets.num_sets, sets.num_queries, sets.num_keys)


def test_a_block_by_hand() -> None:
    # C = 8, D = 4, 2 x 4 x 4 positions, keys pooled after phi and g to 2 x 2 x 2: N = 32, M = 8.
    (block,) = compare_blocks([(1, 8, 2, 4, 4)], ["embedded_gaussian"])
    assert block.counted_macs == 4 * (32 * 8 * 4) + 2 * (32 * 8 * 4)  # theta, phi, g, W; the two products
    assert block.parameters == 3 * (8 * 4 + 4) + (4 * 8 + 8) + 2 * 8
    assert block.map_bytes == 32 * 8 * 4


def _sorted_concatenation(
    a: list[float], b: list[float], g: list[list[float]]
) -> tuple[list[list[float]], dict[str, int]]:
    """The sorted evaluation in plain Python, counting comparisons, and additions and multiplications by channels."""
    done = {"compare": 0, "arithmetic": 0}

    class Number(float):
        def __lt__(self, other: float) -> bool:
            done["compare"] += 1
            return float(self) < float(other)

    order = sorted(range(len(b)), key=lambda j: Number(-b[j]))
    thresholds = [Number(-b[j]) for j in order]
    depth = len(g[0])
    first, ramp = [[0.0] * depth], [[0.0] * depth]
    for place, j in enumerate(order):
        step = float(thresholds[place]) - float(thresholds[place - 1]) if place else 0.0
        ramp.append([r + step * p for r, p in zip(ramp[-1], first[-1], strict=True)])  # 2 a channel
        first.append([p + v for p, v in zip(first[-1], g[j], strict=True)])  # 1 a channel
        done["arithmetic"] += 3 * depth
    results = []
    for value in a:
        n = bisect.bisect_left(thresholds, Number(value))
        beyond = value - float(thresholds[n - 1]) if n else 0.0
        results.append([(r + beyond * p) / len(b) for r, p in zip(ramp[n], first[n], strict=True)])  # 3 a channel
        done["arithmetic"] += 3 * depth
    return results, done


def test_sorted_concatenation_against_counting_loops() -> None:
    n, m, depth = 300, 256, 8
    a, b, g = torch.randn(n), torch.randn(m), torch.randn(m, depth)
    results, done = _sorted_concatenation(a.tolist(), b.tolist(), g.tolist())
    torch.testing.assert_close(
        torch.tensor(results), torch.relu(a[:, None] + b) @ g / m, rtol=1e-4, atol=1e-5
    )  # the loops are the kernel
    formula = kernel_operations("concatenation", "sorted", n, m, depth, depth)
    comparisons = (n + m) * math.ceil(math.log2(m))
    assert formula.elementwise - comparisons == done["arithmetic"]
    assert 0.75 * comparisons < done["compare"] <= comparisons + n  # log2 M is what sorting and searching need at most
    assert formula.macs == (n + m) * depth


class _Kernel(nn.Module):
    """A kernel on rows cut out of one input (1, N + 2 M, D)."""

    def __init__(self, kernel: Callable[[Tensor, Tensor, Tensor], Tensor], num_queries: int, num_keys: int) -> None:
        super().__init__()
        self.kernel, self.sizes = kernel, (num_queries, num_keys, num_keys)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernel(*x.split(self.sizes, dim=1))


@pytest.mark.parametrize(("nonlocal_type", "evaluation"), EVALUATIONS)
def test_kernel_formulas(nonlocal_type: NonLocalType, evaluation: str) -> None:
    """Operations exactly, working memory within half of what the kernels were seen to hold."""
    # So small that the kernels write the matrix out, or so large that they do not.
    n, m, depth = (40, 24, 32) if evaluation == "matrix" else (4000, 1500, 32)
    weight = torch.empty(2 * depth, device="meta")
    run: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
        "dot_product": kernels.dot_product_kernel,
        "concatenation": lambda theta, phi, g: kernels.concatenation_kernel(theta, phi, g, weight),
    }
    kernel = _Kernel(run.get(nonlocal_type, kernels.softmax_kernel), n, m).eval()
    x = (1, n + 2 * m, depth)
    counted = count_run(kernel, x)
    formula = kernel_operations(nonlocal_type, evaluation, n, m, depth, depth)
    assert formula.macs == pytest.approx(counted.macs, rel=0.01)
    beyond = counted.peak_bytes - 4 * (math.prod(x) + n * depth)
    # The contiguous copies of queries, keys and values that the fused kernel asks for are extra.
    copies = 4 * math.prod(x) if evaluation == "fused" else 0
    assert beyond <= 1.5 * (4 * formula.working_entries + copies) + 4096
    assert formula.flops == 2 * formula.macs + formula.elementwise


def test_memory_that_is_counted() -> None:
    """A chain whose live tensors can be listed: 1 MiB in, 4 MiB, 4 MiB, 2 MiB out."""
    network = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False))
    mebibyte = 2**20
    inference = count_run(network, (1, 1, 512, 512))
    assert inference.peak_bytes == 9 * mebibyte  # the input, the convolution's output, the ReLU's
    assert inference.held_bytes == 3 * mebibyte  # input and output
    training = count_run(network, (1, 1, 512, 512), gradients=True)
    # The input and the ReLU's output are kept for the convolutions; the first convolution's output is kept by nothing.
    assert training.held_bytes == 7 * mebibyte


def test_the_map_is_not_in_the_memory_of_fused_attention() -> None:
    (block,) = compare_blocks([(1, 64, 16, 32, 32)], ["embedded_gaussian"], config=NonLocalConfig(sub_sample=False))
    assert block.evaluation == "fused"
    assert block.map_bytes == (16 * 32 * 32) ** 2 * 4  # 1 GiB
    assert block.training_bytes < block.map_bytes / 20


def test_nothing_large_is_allocated() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (block,) = compare_blocks([(1, 256, 32, 64, 64)], ["embedded_gaussian"], config=NonLocalConfig(sub_sample=False))
    network = network_complexity(tiny_network(width=64), (8, 3, 64, 448, 448))
    assert block.map_bytes == 2**36  # 64 GiB
    assert network.peak_bytes > 10 * 2**30
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert kibibytes < 400 * 2**10  # the network's own weights, 130 MB, and a copy while they move


def test_rows_are_json() -> None:
    network = network_complexity(tiny_network(), (1, 3, 4, 32, 32), dtype=torch.bfloat16)
    row = json.loads(json.dumps(network.to_row()))
    assert row["dtype"] == "bfloat16"
    assert row["parameter_bytes"] == pytest.approx(2 * row["parameters"], rel=0.01)
    assert [block["name"] for block in row["blocks"]] == ["layer3.nonlocal0"]
    assert row["nonlocal_macs"] == sum(block["counted_macs"] for block in row["blocks"])


def test_half_precision_takes_half_the_bytes() -> None:
    block = NonLocalBlock(16, dimension=3)
    full, half = (block_complexity(block, (1, 16, 4, 8, 8), dtype=dtype) for dtype in (torch.float32, torch.float16))
    assert half.map_bytes * 2 == full.map_bytes
    assert half.peak_bytes < full.peak_bytes


def test_the_network_is_not_changed() -> None:
    network = tiny_network().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network_complexity(network, (1, 3, 4, 32, 32))
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_variant_is_counted_as_it_runs() -> None:
    block = VideoNonLocalBlock(32, sub_sample=False)
    full, thin = (
        block_complexity(one, (1, 32, 4, 8, 8)) for one in (block, NonLocalOptimizer().factorized_attention(block, 4))
    )
    positions = 4 * 8 * 8
    # theta, phi: 12 channels fewer each. The products are as before: the fused kernel wants rows of g's depth.
    assert full.counted_macs - thin.counted_macs == 2 * 12 * 32 * positions


def test_advice_keeps_the_limit() -> None:
    shape, plain = (1, 64, 8, 16, 16), NonLocalConfig(sub_sample=False)
    blocks = compare_blocks([shape], TYPES, config=plain)
    limit = BlockLimits(macs=40e6)
    for advice in advise_blocks(blocks, limit):
        assert advice.meets_limits
        counted = block_operations(64, advice.after.config, shape, evaluation=advice.after.evaluation)
        assert counted.macs <= 40e6
        assert (advice.change == "nothing") == (advice.before.counted_macs <= 40e6)
    (impossible,) = advise_blocks(blocks[:1], BlockLimits(memory_bytes=1))
    assert not impossible.meets_limits


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_operations("dot_product", "sorted", 1, 1, 1, 1), "evaluation = 'sorted' should be one of"),
        (lambda: block_operations(8, NonLocalConfig(), (1, 4, 2, 2)), "should be (B, 8, *size)"),
        (lambda: position_sets(NonLocalConfig(temporal_groups=3), (4, 2, 2)), "does not divide"),
        (lambda: compare_blocks([(1, 8)], ["gaussian"]), "should be (B, C, *size)"),
        (lambda: BlockLimits(), "give a limit"),
        (lambda: BlockLimits(macs=0), "should be above 0"),
    ],
)
def test_wrong_arguments(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        call()
    assert message in str(raised.value)
