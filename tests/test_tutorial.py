"""The tutorial's four demos access by access: every name, argument, attribute and key, with right numbers.

docs/tutorial.md answers its claims. Its own statements that cannot run, as `tensor.max(dim=(1, 2))`, are left out.
"""

from __future__ import annotations

import copy
import math
import multiprocessing
import pickle
import subprocess
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import nonlocal_video as nlv
from nonlocal_video.models import resnet2d, resnet3d
from nonlocal_video.models.folding import fold_batch_norms

KERNELS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
SIZES = {1: (6,), 2: (4, 6), 3: (2, 4, 6)}


@pytest.fixture(scope="module")
def net() -> nlv.NonLocalNet:
    torch.manual_seed(0)
    return nlv.NonLocalNet(num_classes=10, nonlocal_stages=[2, 3], nonlocal_type="embedded_gaussian").eval()


@pytest.fixture(scope="module")
def video_net() -> nlv.Video3DResNet:
    torch.manual_seed(0)
    return nlv.Video3DResNet(num_classes=5, nonlocal_stages=[3, 4], nonlocal_mode="spacetime").eval()


# ---- 1. The block.


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_the_block(kernel: Any, dimension: Any) -> None:
    block = nlv.NonLocalBlock(8, 4, dimension, True, True, kernel)
    assert (block.in_channels, block.inter_channels, block.dimension) == (8, 4, dimension)
    assert (block.sub_sample, block.nonlocal_type) == (True, kernel)
    assert (block.theta is None) == (block.phi is None) == (kernel == "gaussian")
    assert (block.concat_project is None) == (kernel != "concatenation")
    assert block.g.kernel_size == (1,) * dimension
    conv, norm = block.W[0], block.W[1]
    assert conv is block.W
    assert conv.weight.shape[:2] == (8, 4)
    assert not norm.weight.any()  # the identity when new
    assert len(list(block.W)) == 2
    x = torch.randn(2, 8, *SIZES[dimension])
    z, attention = block(x, return_nl_map=True)
    assert torch.equal(z, x)
    assert attention.shape[:2] == (2, math.prod(SIZES[dimension]))
    assert torch.equal(block(x), block(x=x, return_nl_map=False))


def test_the_names_of_the_block_are_views() -> None:
    """State dicts have the keys that they had; copies, pickles and folded blocks have their own norm."""
    block = nlv.NonLocalBlock(in_channels=8, inter_channels=None, dimension=2, sub_sample=False, bn_layer=True)
    assert set(block.state_dict()) == {
        *(f"{conv}.{name}" for conv in ("theta", "phi", "g", "W") for name in ("weight", "bias")),
        *(f"bn.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    }
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert other.W[1] is other.bn
        assert other.W[1] is not block.bn
    nn.init.ones_(block.W[1].weight)
    assert not block.is_identity
    folded = fold_batch_norms(block.eval())
    assert isinstance(folded, nlv.NonLocalBlock)
    assert isinstance(nlv.NonLocalBlock(8, bn_layer=False).W[1], nn.Identity)
    with pytest.raises(IndexError):
        block.W[2]


@pytest.mark.parametrize("kernel", KERNELS)
def test_block_info(kernel: Any) -> None:
    block = nlv.NonLocalBlock(8, nonlocal_type=kernel, sub_sample=False)
    info = block.get_block_info()
    made: list[int] = []
    for conv in (block.theta, block.phi, block.g, block.W):
        if conv is not None:
            conv.register_forward_hook(lambda _module, _inputs, output: made.append(output.nbytes))
    block(torch.randn(1, 8, 4, 6))
    y = 24 * block.inter_channels * 4
    assert info["memory_per_pixel"] == (sum(made) + y) / 24
    assert info["total_parameters"] == sum(parameter.numel() for parameter in block.parameters())
    settings = ("in_channels", "inter_channels", "dimension", "sub_sample", "nonlocal_type")
    assert [info[name] for name in settings] == [8, 4, 2, False, kernel]


def test_self_attention_is_the_embedded_gaussian_with_a_scale_and_not_the_dot_product() -> None:
    x = torch.randn(2, 8, 4, 6, generator=torch.Generator().manual_seed(0))
    blocks = {scale: nlv.NonLocalBlock(8, sub_sample=False, scale=scale) for scale in ("inverse_sqrt", None)}
    dot = nlv.NonLocalBlock(8, sub_sample=False, nonlocal_type="dot_product")
    for block in (*blocks.values(), dot):
        for conv in (block.theta, block.phi):
            nn.init.normal_(conv.weight, generator=torch.Generator().manual_seed(1))
    scaled = blocks["inverse_sqrt"]
    assert scaled.theta is not None
    assert scaled.phi is not None
    theta, phi = (conv(x).flatten(2).transpose(1, 2) for conv in (scaled.theta, scaled.phi))
    keys = torch.eye(24).expand(2, 24, 24)  # as values they show the weights
    weights = functional.scaled_dot_product_attention(theta, phi, keys)
    torch.testing.assert_close(scaled(x, return_nl_map=True)[1], weights)
    assert (blocks[None](x, return_nl_map=True)[1] - weights).abs().max() > 0.01
    assert dot(x, return_nl_map=True)[1].min() < 0


# ---- 2. The network on images.


def test_the_network_on_images(net: nlv.NonLocalNet) -> None:
    assert (net.num_classes, net.nonlocal_stages, net.nonlocal_type) == (10, [2, 3], "embedded_gaussian")
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"):
        assert isinstance(getattr(net, name), nn.Module)
    assert net.nonlocal_blocks["stage3"].in_channels == 256
    images = torch.randn(1, 3, 64, 64)
    logits, maps = net(images, return_nl_maps=True)
    assert logits.shape == (1, 10)
    assert {stage: tuple(found.shape) for stage, found in maps.items()} == {"stage2": (1, 64, 16), "stage3": (1, 16, 4)}
    complexity = net.get_model_complexity()
    blocks = sum(parameter.numel() for name, parameter in net.named_parameters() if "nonlocal" in name)
    total = sum(parameter.numel() for parameter in net.parameters())
    assert complexity["total_parameters"] == total == complexity["backbone_parameters"] + blocks
    assert complexity["nonlocal_parameters"] == blocks
    assert complexity["nonlocal_ratio"] == pytest.approx(blocks / total)
    assert complexity["model_size_mb"] == pytest.approx(sum(t.nbytes for t in net.state_dict().values()) / 1e6)
    assert complexity["nonlocal_stages"] == [2, 3]
    assert complexity["nonlocal_type"] == "embedded_gaussian"


def test_initialising_again_never_touches_a_block() -> None:
    torch.manual_seed(0)
    network = nlv.NonLocalNet(num_classes=3, nonlocal_stages=[2])
    nn.init.normal_(network.nonlocal_blocks["stage2"].bn.weight)
    before = copy.deepcopy(network.state_dict())
    network._initialize_weights()
    for name, value in network.state_dict().items():
        random = not name.startswith("nonlocal_blocks.") and ("conv" in name or name.endswith("downsample.0.weight"))
        assert torch.equal(value, before[name]) != (random or name.startswith("fc.")), name


def test_the_block_that_is_put_in_runs(net: nlv.NonLocalNet) -> None:
    network = copy.deepcopy(net)
    ran: list[str] = []
    other = nlv.NonLocalBlock(256, nonlocal_type="dot_product")
    other.register_forward_hook(lambda *_: ran.append("other"))
    network.nonlocal_blocks["stage3"] = other
    _, maps = network(torch.randn(1, 3, 64, 64), return_nl_maps=True)
    assert ran == ["other"]
    assert list(maps) == ["stage2", "stage3"]


def test_basic_block() -> None:
    assert nlv.BasicBlock is resnet2d.BasicBlock
    for block, size in ((nlv.BasicBlock(8, 16, stride=2), 4), (nlv.BasicBlock(in_channels=8, out_channels=16), 8)):
        x = torch.randn(2, 8, 8, 8)
        assert block.downsample is not None
        inside = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x)))))
        torch.testing.assert_close(block(x), torch.relu(inside + block.downsample(x)))
        assert block(x).shape == (2, 16, size, size)
    assert nlv.BasicBlock(8, 8).downsample is None
    assert len(nlv.NonLocalNet(2, [])._make_layer(nlv.BasicBlock, 64, 2)) == 2


# ---- 3. Video.


@pytest.mark.parametrize("mode", ["spacetime", "space_only", "time_only"])
def test_the_video_block(mode: Any) -> None:
    block = nlv.VideoNonLocalBlock(8, 4, mode, True, True)
    assert (block.mode, block.sub_sample, block.in_channels, block.inter_channels) == (mode, True, 8, 4)
    for module in (block.g, block.theta, block.phi, block.W[0], block.W[1]):
        assert isinstance(module, nn.Module)
    x = torch.randn(1, 8, 4, 4, 4)
    assert torch.equal(block(x), x)


def test_the_network_on_video(video_net: nlv.Video3DResNet) -> None:
    network = video_net
    assert (network.num_classes, network.nonlocal_stages, network.nonlocal_mode) == (5, [3, 4], "spacetime")
    conv1 = network.conv1
    assert isinstance(conv1, nn.Conv3d)
    assert (conv1.out_channels, conv1.kernel_size, conv1.stride) == (64, (3, 7, 7), (1, 2, 2))
    clip = torch.randn(1, 3, 4, 32, 32)
    x = network.maxpool(network.relu(network.bn1(network.conv1(clip))))
    seen = []
    for stage, layer in enumerate((network.layer1, network.layer2, network.layer3, network.layer4), 1):
        x = layer(x)
        seen.append(x)
        assert (f"stage{stage}" in network.nonlocal_blocks) == (stage in (3, 4))
    by_hand = network.fc(network.avgpool(x).flatten(1))
    torch.testing.assert_close(network(clip), by_hand)
    features = network.extract_features(clip, return_stages=["stage1", "stage3"])
    assert list(features) == ["stage1", "stage3"]
    torch.testing.assert_close(features["stage3"], seen[2])
    assert network.extract_features(clip) == network.extract_features(clip, return_stages=None) == {}
    assert dict(network.nonlocal_blocks) == {
        f"stage{name[5]}": block for name, block in network.nonlocal_layers().items()
    }
    assert not any(name.startswith(("conv1", "bn1", "nonlocal_blocks")) for name in network.state_dict())


def test_the_video_block_that_is_put_in_runs_and_is_described() -> None:
    config = resnet3d.ResNet3DConfig(3, blocks_per_stage=(1, 1, 2, 1), width=4)
    network = nlv.Video3DResNet.from_config(config).eval()
    assert (network.nonlocal_stages, network.nonlocal_mode, len(network.nonlocal_blocks)) == ([], None, 0)
    clip, ran = torch.randn(1, 3, 2, 32, 32), []
    for kernel in ("gaussian", "dot_product"):  # into an empty place, then in the place of the first
        block = nlv.VideoNonLocalBlock(16, mode="time_only", nonlocal_type=kernel)
        block.register_forward_hook(lambda *_, kernel=kernel: ran.append(kernel))
        network.nonlocal_blocks["stage3"] = block
        assert network.nonlocal_blocks["stage3"] is block
        network(clip)
    assert ran == ["gaussian", "dot_product"]
    assert network.nonlocal_mode == "time_only"
    again = nlv.Video3DResNet.from_config(network.config)
    again.load_state_dict(network.state_dict())
    with pytest.raises(KeyError, match="'stage1' has no non-local block; stage3 has"):
        network.nonlocal_blocks["stage1"]
    with pytest.raises(TypeError, match="should be a VideoNonLocalBlock, not a Identity"):
        network.nonlocal_blocks["stage3"] = nn.Identity()
    del network.nonlocal_blocks["stage3"]
    assert network.config == config
    assert list(network.nonlocal_layers()) == []


def test_basic_3d_block() -> None:
    assert nlv.Basic3DBlock is resnet3d.Basic3DBlock
    x = torch.randn(1, 4, 4, 8, 8)
    block = nlv.Basic3DBlock(4, 8, (2, 2, 2)).eval()
    assert block(x).shape == (1, 8, 2, 4, 4)
    assert block.downsample is not None
    inside = block.conv2(block.relu(block.conv1(x)))
    torch.testing.assert_close(block(x), torch.relu(inside + block.downsample(x)))
    assert block.bn1.num_features == block.bn2.num_features == 8
    assert nlv.Basic3DBlock(in_channels=4, out_channels=4, stride=1).downsample is None
    torch.testing.assert_close(nlv.Basic3DBlock(4, 8, 2)(x).shape, block(x).shape)


# ---- 4. The analyser and the optimiser.


def test_complexity() -> None:
    analyzer = nlv.NonLocalAnalyzer()
    assert analyzer.analysis_results == {}
    shapes = [(1, 16, 8, 8), (2, 16, 8, 8), (1, 16, 16, 16)]
    found = analyzer.analyze_computational_complexity(input_shapes=shapes, nonlocal_types=list(KERNELS))
    assert list(found) == [f"{shape}_{kernel}" for shape in shapes for kernel in KERNELS]
    for row in found.values():
        assert {"total_ops", "ops_per_pixel", "attention_memory_mb", "total_memory_mb", "spatial_size"} <= set(row)
        assert row["attention_memory_mb"] <= row["total_memory_mb"]
    first, twice, larger = (found[f"{shape}_dot_product"] for shape in shapes)
    # theta, phi, g and W by hand: 4 x 16 x 8 a position, keys pooled after phi; and the two small products.
    assert first["total_ops"] >= 2 * 4 * 16 * 8 * 64
    assert (first["spatial_size"], larger["spatial_size"]) == (64, 256)
    assert twice["total_ops"] == 2 * first["total_ops"]
    assert twice["ops_per_pixel"] == first["ops_per_pixel"] == first["total_ops"] / 64
    assert analyzer.analysis_results["complexity"] is found


@pytest.mark.slow
def test_receptive_field(net: nlv.NonLocalNet) -> None:
    network = copy.deepcopy(net)
    for block in network.nonlocal_blocks.values():
        nn.init.ones_(block.bn.weight)
    found = nlv.NonLocalAnalyzer().analyze_receptive_field(model=network, input_shape=(1, 3, 32, 32))
    assert list(found) == ["stage2", "stage3"]
    for row in found.values():
        assert row["theoretical_range"] == "Global"
        assert 1 <= row["effective_range"] <= 32
        assert row["coverage_ratio"] == pytest.approx((row["effective_range"] / 32) ** 2)
    plain = nlv.NonLocalAnalyzer().analyze_receptive_field(nlv.NonLocalNet(3, []), (1, 3, 32, 32))
    assert {name: row["theoretical_range"] for name, row in plain.items()} == {"layer4": "32 x 32"}
    with pytest.raises(ValueError, match="input_shape"):
        nlv.NonLocalAnalyzer().analyze_receptive_field(network, (3, 8))


def test_receptive_field_on_video() -> None:
    config = resnet3d.ResNet3DConfig(3, blocks_per_stage=(1, 1, 1, 1), width=4)
    network = nlv.Video3DResNet.from_config(config)
    network.nonlocal_blocks["stage2"] = nlv.VideoNonLocalBlock(8, mode="time_only")
    found = nlv.NonLocalAnalyzer().analyze_receptive_field(network, (1, 3, 8, 32, 32))
    assert list(found) == ["stage2"]
    assert found["stage2"]["theoretical_range"] != "Global"
    assert found["stage2"]["identity_blocks"] == ["layer2.nonlocal0"]


def test_speed() -> None:
    models = {"small": nn.Conv2d(3, 4, 3, padding=1), "large": nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())}
    found = nlv.NonLocalAnalyzer().benchmark_inference_speed(models, (2, 3, 8, 8), device="cpu", num_runs=3)
    assert list(found) == ["small", "large"]
    for name, channels in (("small", 4), ("large", 8)):
        row = found[name]
        assert row["avg_inference_time_ms"] == pytest.approx(1000 * sum(row["seconds"]) / 3)
        assert row["throughput_fps"] == pytest.approx(2 * 3 / sum(row["seconds"]))
        assert row["total_parameters"] == channels * 28
        assert row["estimated_flops"] == 2 * 2 * channels * 27 * 64
        assert row["flops_per_param"] == row["estimated_flops"] / row["total_parameters"]
    clips = nlv.NonLocalAnalyzer().benchmark_inference_speed({"clip": nn.Conv3d(3, 4, 1)}, (2, 3, 5, 8, 8), num_runs=1)
    assert clips["clip"]["throughput_fps"] == pytest.approx(10 / clips["clip"]["seconds"][0])


def test_no_process_is_started_that_would_run_the_callers_script_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    nlv.NonLocalAnalyzer().benchmark_inference_speed({"conv": nn.Conv2d(3, 4, 1)}, (1, 3, 8, 8), num_runs=1)


def test_attention_patterns(net: nlv.NonLocalNet) -> None:
    images = 0.02 * torch.randn(2, 3, 64, 64)  # an untrained network's norms let large ones grow: one key has it all
    as_batch = nlv.NonLocalAnalyzer().compare_attention_patterns(model=net, test_images=images)
    assert list(as_batch) == ["image_0", "image_1"]
    for given in ([images[0], images[1]], [images[:1], images[1:]]):
        assert nlv.NonLocalAnalyzer().compare_attention_patterns(net, given) == as_batch
    _, maps = net(images, return_nl_maps=True)
    for index, rows in enumerate(as_batch.values()):
        assert list(rows) == ["stage2", "stage3"]
        for stage, row in rows.items():
            attention = maps[stage][index].detach().double()
            entropy = torch.special.entr(attention).sum(dim=1).mean()
            assert row["entropy"] == pytest.approx(float(entropy), rel=1e-4)
            assert row["entropy"] <= row["maximum_entropy_nats"] == math.log(attention.shape[1])
            assert row["max_attention"] == pytest.approx(float(attention.max(dim=1).values.mean()), rel=1e-4)
            variance = attention.var(dim=1, correction=0).mean()
            assert row["attention_variance"] == pytest.approx(float(variance), rel=1e-3, abs=1e-12)
            assert 0 <= row["sparsity"] <= 1
            assert row["entropy"] > 0.1


def test_strategies() -> None:
    optimizer = nlv.NonLocalOptimizer()
    names = ["memory_efficient", "sparse_attention", "factorized_attention", "progressive_training"]
    assert list(optimizer.optimization_strategies) == names
    x = torch.randn(1, 32, 8, 8)
    blocks = [
        optimizer._memory_efficient_nonlocal(32, reduction_ratio=8),
        optimizer._sparse_nonlocal(32, sparsity_ratio=0.1),
        optimizer._factorized_nonlocal(32, rank=4),
        *(make(32) for make in list(optimizer.optimization_strategies.values())[:3]),
    ]
    for block in blocks:
        assert torch.equal(block(x), x)
    assert blocks[0].inter_channels == 4
    assert blocks[2].theta is not None
    assert blocks[2].theta.out_channels == 4


@pytest.mark.parametrize(("ratio", "num_kept"), [(0.1, 1), (0.5, 8), (0.99, 15)])
def test_a_share_of_the_keys_is_kept(ratio: float, num_kept: int) -> None:
    """16 keys, of 8 x 8 positions pooled: the others weigh exactly 0, the rest sum to 1."""
    block = nlv.NonLocalOptimizer()._sparse_nonlocal(32, ratio)
    attention = block.attention(torch.randn(1, 32, 8, 8), torch.arange(64))
    assert ((attention > 0).sum(dim=2) == num_kept).all()
    torch.testing.assert_close(attention.sum(dim=2), torch.ones(1, 64))


def test_progressive_training(net: nlv.NonLocalNet) -> None:
    strategy = nlv.NonLocalOptimizer()._progressive_training_strategy()
    schedule = strategy(total_epochs=50, warmup_epochs=10)
    assert (schedule.total_epochs, schedule.warmup_epochs, schedule.current_epoch) == (50, 10, 0)
    blocks = {stage: copy.deepcopy(net.nonlocal_blocks[f"stage{stage}"]) for stage in (2, 3)}
    nn.init.ones_(blocks[3].bn.weight)
    x = torch.randn(1, 256, 4, 4)
    added, weights, joined = [], [], []
    for _ in range(51):
        schedule.set_gates(blocks)
        with torch.no_grad():
            added.append(float((blocks[3](x) - x).norm()))
        weights.append(schedule.get_nonlocal_weight())
        joined.append([stage for stage in (4, 3, 2, 1) if schedule.should_enable_nonlocal(stage)])
        schedule.step()
    assert [joined[epoch] for epoch in (9, 10, 19, 20, 30, 40)] == [
        [],
        [4],
        [4],
        [4, 3],
        [4, 3, 2],
        [4, 3, 2, 1],
    ]
    assert weights == pytest.approx([min(max(0, (epoch - 10) / 40), 1) for epoch in range(51)])
    # Stage 3 joins at 20: what its block adds grows from 0 to all of it.
    assert added[20] == 0 < added[25] < added[30] == added[50]
    assert added[25] == pytest.approx(added[30] / 2, rel=1e-5)
    again = nlv.NonLocalOptimizer().progressive_training(total_epochs=50, warmup_epochs=10)
    again.load_state_dict(schedule.state_dict())
    assert again.gates() == schedule.gates()
    assert nlv.NonLocalOptimizer().progressive_training().total_epochs == 100


def test_recommendations(net: nlv.NonLocalNet) -> None:
    complexity = net.get_model_complexity()
    optimizer = nlv.NonLocalOptimizer()
    found = optimizer.generate_optimization_recommendations(
        model_complexity=complexity, target_constraints={"max_memory_mb": 50, "min_fps": 25}
    )
    assert [row["category"] for row in found] == ["memory", "speed"]
    for row in found:
        assert set(row) == {"category", "issue", "suggestions"}
        assert all(isinstance(suggestion, str) for suggestion in row["suggestions"])
    assert f"{complexity['model_size_mb']:.1f} MB of at most 50 MB" in found[0]["issue"]
    assert "do not tell" in found[1]["issue"]
    kept = {"max_memory_mb": 500, "min_fps": 25}
    assert optimizer.generate_optimization_recommendations({**complexity, "throughput_fps": 30.0}, kept) == []
    (slow,) = optimizer.generate_optimization_recommendations({**complexity, "throughput_fps": 20.0}, kept)
    assert slow["issue"] == "20.0 frames a second are fewer than 25."


def test_every_public_name_is_there() -> None:
    names = ["NonLocalBlock", "VideoNonLocalBlock", "NonLocalNet", "Video3DResNet", "BasicBlock", "Basic3DBlock"]
    for name in (*names, "NonLocalAnalyzer", "NonLocalOptimizer"):
        assert name in nlv.__all__
        assert isinstance(getattr(nlv, name), type)
