"""Attention patterns against naive loops over the whole map."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_networks import tiny_network
from torch import Tensor

from nonlocal_video.analysis import block_pattern, network_patterns
from nonlocal_video.analysis import patterns as patterns_module
from nonlocal_video.analysis.patterns import pattern_table, summary_rows
from nonlocal_video.analysis.pictures import draw_patterns
from nonlocal_video.blocks import NonLocalBlock, NonLocalConfig, NonLocalMode, NonLocalType, VideoNonLocalBlock
from nonlocal_video.errors import ModelError
from nonlocal_video.models.resnet2d import NonLocalNet


def random_block(config: NonLocalConfig, channels: int = 6) -> VideoNonLocalBlock:
    block = VideoNonLocalBlock.from_config(channels, config).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.6)
    return block


def naive(block: VideoNonLocalBlock, x: Tensor) -> dict[str, float | list[float]]:
    """The same figures by loops over every query and key, from the block's whole attention."""
    frames, height, width = x.shape[2:]
    _, key_height, key_width = block.key_size((frames, height, width))
    with torch.no_grad():
        rows = block.attention(x, torch.arange(frames * height * width))[0].double()
        added = block(x) - x
    config = block.config
    entropy, positions, on_itself, largest, spread, left_out, filled = [], [], [], [], [], [], 0
    distance_share = [0.0] * frames
    for query, row in enumerate(rows):
        t, place = divmod(query, height * width)
        y, column = divmod(place, width)
        if float(row.abs().sum()) == 0:
            continue
        filled += 1
        weights = [abs(float(weight)) / float(row.abs().sum()) for weight in row]
        seen = []
        for key, weight in enumerate(weights):
            kt, key_place = divmod(key, key_height * key_width)
            ky, kx = divmod(key_place, key_width)
            distance_share[abs(kt - t)] += weight
            same_group = config.temporal_groups is None or kt // config.temporal_groups == t // config.temporal_groups
            visible = {"spacetime": same_group, "space_only": kt == t, "time_only": (ky, kx) == (y, column)}[
                config.mode
            ]
            if visible:
                seen.append(weight)
            pool = 1 if config.mode == "time_only" or not config.sub_sample else 2
            if (kt, ky, kx) == (t, y // pool, column // pool):
                on_itself.append(weight)
        mean = 1 / len(seen)
        entropy.append(-sum(weight * math.log(weight) for weight in weights if weight > 0))
        positions.append(math.exp(entropy[-1]))
        largest.append(max(seen))
        spread.append(sum((weight - mean) ** 2 for weight in seen) / len(seen))
        left_out.append(sum(weight < 0.1 * mean for weight in seen) / len(seen))
    return {
        "num_visible": len(seen),
        "entropy_nats": sum(entropy) / filled,
        "effective_positions": sum(positions) / filled,
        "self_share": sum(on_itself) / len(on_itself),
        "share_by_distance": [share / filled for share in distance_share],
        "own_frame_share": distance_share[0] / filled,
        "maximum": sum(largest) / filled,
        "variance": sum(spread) / filled,
        "sparsity": sum(left_out) / filled,
        "empty_share": 1 - filled / len(rows),
        "residual_share": float(added.norm() / x.norm()),
    }


@pytest.mark.parametrize("nonlocal_type", ["gaussian", "embedded_gaussian", "dot_product", "concatenation"])
@pytest.mark.parametrize(
    ("mode", "sub_sample", "groups"),
    [("spacetime", True, None), ("spacetime", False, 2), ("space_only", True, None), ("time_only", True, None)],
)
def test_against_loops(
    nonlocal_type: NonLocalType,
    mode: NonLocalMode,
    sub_sample: bool,
    groups: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = NonLocalConfig(nonlocal_type=nonlocal_type, mode=mode, sub_sample=sub_sample, temporal_groups=groups)
    block, x = random_block(config), torch.randn(1, 6, 4, 5, 6)
    monkeypatch.setattr(patterns_module, "CHUNK_ENTRIES", 700)  # several chunks, the last one ragged
    pattern = block_pattern(block, x, block_name="b", clip="c")
    for name, expected in naive(block, x).items():
        assert getattr(pattern, name) == pytest.approx(expected, rel=1e-4, abs=1e-6), name
    assert pattern.maximum_entropy_nats == math.log(pattern.num_visible)
    assert sum(pattern.equal_share_by_distance) == pytest.approx(1)
    if mode == "space_only":
        assert pattern.own_frame_share == pytest.approx(1)
        assert pattern.equal_share_by_distance[0] == 1
    if mode == "spacetime" and groups is None:
        # 4 frames: a frame sees itself, and on average 6, 4 and 2 of 16 ordered pairs are 1, 2 and 3 apart.
        assert pattern.equal_share_by_distance == pytest.approx([4 / 16, 6 / 16, 4 / 16, 2 / 16])


def test_even_and_one_hot_attention() -> None:
    even = VideoNonLocalBlock(4, nonlocal_type="embedded_gaussian", sub_sample=False).eval()
    for conv in (even.theta, even.phi):
        assert conv is not None
        torch.nn.init.zeros_(conv.weight)
    pattern = block_pattern(even, torch.randn(1, 4, 3, 4, 4))
    assert pattern.entropy_nats == pytest.approx(math.log(48))
    assert pattern.effective_positions == pytest.approx(48, rel=1e-4)
    assert pattern.self_share == pytest.approx(1 / 48)
    assert pattern.share_by_distance == pytest.approx(pattern.equal_share_by_distance)
    assert pattern.variance == pytest.approx(0, abs=1e-12)

    sharp = VideoNonLocalBlock(12, nonlocal_type="gaussian", sub_sample=False).eval()
    one_hot = torch.eye(12).view(1, 12, 3, 2, 2) * 40
    pattern = block_pattern(sharp, one_hot)
    assert pattern.self_share == pytest.approx(1)
    assert pattern.entropy_nats == pytest.approx(0, abs=1e-6)
    assert pattern.sparsity == pytest.approx(11 / 12)


def test_new_block_is_said_to_be_one() -> None:
    (new,) = network_patterns(tiny_network(), torch.randn(1, 3, 8, 32, 32))
    (trained,) = network_patterns(tiny_network(trained=True), torch.randn(1, 3, 8, 32, 32))
    assert (new.is_identity, new.residual_share, new.out_weight_norm) == (True, 0.0, 0.0)
    assert not trained.is_identity
    assert trained.residual_share > 0
    assert trained.out_weight_norm > 0


def test_norm_of_w_with_its_batch_norm() -> None:
    block = random_block(NonLocalConfig())
    bn = block.bn
    gain = (bn.weight / torch.sqrt(bn.running_var + bn.eps)).detach()
    expected = float((block.W.weight.detach().flatten(1) * gain[:, None]).norm())
    assert block_pattern(block, torch.randn(1, 6, 2, 4, 4)).out_weight_norm == pytest.approx(expected, rel=1e-5)


def test_rows_without_attention() -> None:
    block = random_block(NonLocalConfig(nonlocal_type="concatenation"))
    for conv in (block.theta, block.phi):
        assert conv is not None
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    pattern = block_pattern(block, torch.randn(1, 6, 2, 4, 4))
    assert pattern.empty_share == 1
    assert math.isnan(pattern.entropy_nats)
    assert json.loads(json.dumps(pattern.to_row()))["entropy_nats"] is None
    assert summary_rows([pattern])[0]["entropy_nats"] is None


def test_batch_summary_table_and_picture(tmp_path: Path) -> None:
    network, clips = tiny_network(trained=True), torch.randn(3, 3, 8, 32, 32)
    found = network_patterns(network, clips, names=["a", "b", "c"])
    alone = network_patterns(network, clips[1:2], names=["b"])[0]
    assert [pattern.clip for pattern in found] == ["a", "b", "c"]
    assert found[1].entropy_nats == pytest.approx(alone.entropy_nats, rel=1e-4)
    (summary,) = summary_rows(found)
    assert summary["entropy_nats"] == pytest.approx(sum(pattern.entropy_nats for pattern in found) / 3)
    json.loads(json.dumps([pattern.to_row() for pattern in found]))
    rows = pattern_table(found)
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with (tmp_path / "table.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert float(read[2]["share_at_distance_0"]) == pytest.approx(found[2].own_frame_share)
    assert float(read[0]["entropy_decile_10"]) == pytest.approx(found[0].entropies.max())
    with Image.open(draw_patterns(found, tmp_path / "patterns.png")) as picture:
        assert picture.width > 800
    with pytest.raises(ValueError, match="no patterns"):
        draw_patterns([], tmp_path / "none.png")


def test_patterns_of_images() -> None:
    network = NonLocalNet(num_classes=4, nonlocal_stages=(2, 3)).train()
    found = network_patterns(network, torch.randn(2, 3, 64, 64))
    assert [pattern.block for pattern in found] == ["nonlocal_blocks.stage2", "nonlocal_blocks.stage3"] * 2
    assert found[0].size == (1, 8, 8)
    assert found[0].num_visible == 16
    assert 0 < found[0].entropy_nats <= math.log(16) + 1e-6
    assert network.training
    assert int(network.bn1.num_batches_tracked) == 0


def test_a_sequence() -> None:
    pattern = block_pattern(NonLocalBlock(4, dimension=1), torch.randn(1, 4, 9))
    assert pattern.size == (1, 1, 9)
    assert pattern.num_visible == 4


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="give one"):
        block_pattern(NonLocalBlock(4), torch.randn(2, 4, 3, 3))
    with pytest.raises(ValueError, match="names do not fit"):
        network_patterns(tiny_network(), torch.randn(1, 3, 8, 32, 32), names=["a", "b"])
    with pytest.raises(ModelError, match="not finite"):
        block_pattern(random_block(NonLocalConfig()), torch.full((1, 6, 2, 4, 4), math.nan))
