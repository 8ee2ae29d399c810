"""VideoNonLocalBlock: who sees whom."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch import nn

from nonlocal_video.blocks import NonLocalConfig, VideoNonLocalBlock


def trained(**options: object) -> VideoNonLocalBlock:
    torch.manual_seed(0)
    block = VideoNonLocalBlock(4, **options).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def reached(block: VideoNonLocalBlock, frame: int, row: int, column: int) -> torch.Tensor:
    """Find the positions whose outputs change with one position's input, (T, H, W)."""
    torch.manual_seed(1)
    x = torch.randn(1, 4, 4, 4, 4)
    moved = x.clone()
    moved[:, :, frame, row, column] += 3
    return (block(moved) - block(x)).abs().amax((0, 1)) > 0


@pytest.mark.parametrize("sub_sample", [True, False])
def test_space_only_stays_in_its_frame(sub_sample: bool) -> None:
    changed = reached(trained(mode="space_only", sub_sample=sub_sample), 2, 1, 1)
    assert changed[2].all()
    assert changed.sum() == 16


def test_time_only_stays_at_its_place() -> None:
    changed = reached(trained(mode="time_only"), 2, 1, 3)
    assert changed[:, 1, 3].all()
    assert changed.sum() == 4


def test_groups_stay_in_their_frames() -> None:
    changed = reached(trained(temporal_groups=2), 2, 1, 1)
    assert changed[2:].all()
    assert not changed[:2].any()


def test_spacetime_reaches_everything() -> None:
    assert reached(trained(sub_sample=False), 0, 0, 0).all()


def test_samples_of_a_batch_do_not_mix() -> None:
    torch.manual_seed(2)
    x = torch.randn(3, 4, 4, 3, 5)
    for mode in ("spacetime", "space_only", "time_only"):
        block = trained(mode=mode)
        torch.testing.assert_close(block(x), torch.cat([block(sample[None]) for sample in x]))


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"mode": "spacetime"}, (2, 4 * 6 * 5, 4 * 3 * 2)),
        ({"mode": "spacetime", "temporal_groups": 2}, (2, 2, 2 * 6 * 5, 2 * 3 * 2)),
        ({"mode": "spacetime", "temporal_groups": 4}, (2, 1, 4 * 6 * 5, 4 * 3 * 2)),
        ({"mode": "space_only"}, (2, 4, 6 * 5, 3 * 2)),
        ({"mode": "space_only", "sub_sample": False}, (2, 4, 6 * 5, 6 * 5)),
        ({"mode": "time_only"}, (2, 6 * 5, 4, 4)),
        ({"mode": "time_only", "temporal_groups": 2}, (2, 2 * 6 * 5, 2, 2)),
    ],
)
def test_map_shapes(options: dict[str, object], shape: tuple[int, ...]) -> None:
    block = trained(**options)
    x = torch.randn(2, 4, 4, 6, 5)
    z, nl_map = block(x, return_nl_map=True)
    assert z.shape == x.shape
    assert nl_map.shape == shape
    torch.testing.assert_close(nl_map.sum(-1), torch.ones(shape[:-1]))
    torch.testing.assert_close(block.attention_received(x).sum(-1), torch.ones(2))


@pytest.mark.parametrize("mode", ["spacetime", "space_only", "time_only"])
def test_single_positions_and_frames(mode: str) -> None:
    block = trained(mode=mode)
    for size in [(1, 1, 1), (4, 1, 1), (1, 3, 1), (1, 4, 4)]:
        x = torch.randn(2, 4, *size)
        assert block(x).shape == x.shape
        assert block.attention(x, torch.tensor([0])).isfinite().all()


@pytest.mark.parametrize("mode", ["spacetime", "space_only", "time_only"])
def test_new_block_is_the_identity(mode: str) -> None:
    block = VideoNonLocalBlock(4, mode=mode)
    x = torch.randn(1, 4, 2, 3, 3)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("instantiation", ["softmax", "dot_product"])
def test_equals_pytorchvideos_block(instantiation: str) -> None:
    """An independent one, and PySlowFast's: keys pooled first, softmax scaled by inter_channels ** -0.5."""
    nonlocal_net = import_module("pytorchvideo.layers.nonlocal_net")
    theirs = nonlocal_net.create_nonlocal(
        dim_in=4, dim_inner=2, instantiation=instantiation, pool_size=(1, 2, 2)
    ).eval()
    softmax = instantiation == "softmax"
    ours = trained(
        nonlocal_type="embedded_gaussian" if softmax else "dot_product",
        scale="inverse_sqrt" if softmax else None,
        pool_order="pool_conv",
    )
    names = {"conv_theta": "theta", "conv_phi": "phi", "conv_g": "g", "conv_out": "W", "norm": "bn"}
    theirs.load_state_dict(
        {
            f"{name}.{key}": value
            for name, own in names.items()
            for key, value in getattr(ours, own).state_dict().items()
        }
    )
    x = torch.randn(2, 4, 3, 6, 5)
    torch.testing.assert_close(ours(x), theirs(x))


def test_from_config_takes_every_field() -> None:
    config = NonLocalConfig(
        inter_channels=3,
        mode="time_only",
        sub_sample=False,
        pool_order="pool_conv",
        scale="inverse_sqrt",
        bn_layer=False,
        embed_bias=False,
        out_bias=False,
        temporal_groups=2,
    )
    block = VideoNonLocalBlock.from_config(8, config)
    assert block.config == config
    assert set(block.state_dict()) == {"g.weight", "theta.weight", "phi.weight", "W.weight"}
    gaussian = NonLocalConfig(nonlocal_type="gaussian")
    assert VideoNonLocalBlock.from_config(8, gaussian).config == gaussian


def test_frames_that_groups_do_not_divide() -> None:
    with pytest.raises(ValueError, match=r"temporal_groups = 4 frames, which do not divide its input's 6"):
        trained(temporal_groups=4)(torch.randn(1, 4, 6, 2, 2))


def test_bad_mode() -> None:
    with pytest.raises(ValueError, match="mode = 'time' should be one of"):
        VideoNonLocalBlock(4, mode="time")
