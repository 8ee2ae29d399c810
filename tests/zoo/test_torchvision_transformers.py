"""torchvision's video transformers: the published preset, its networks' answers, and maps of their tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import video

import nonlocal_video as nlv
from nonlocal_video.inference.preprocessing import ClipLoader
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.zoo.catalogue import entry
from nonlocal_video.zoo.convert import convert_file

NAMES = {
    "mvit-v2-s-k400-torchvision": (video.mvit_v2_s, video.MViT_V2_S_Weights.KINETICS400_V1),
    "swin3d-t-k400-torchvision": (video.swin3d_t, video.Swin3D_T_Weights.KINETICS400_V1),
}


def frames_of(height: int, width: int, count: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(240, 320), (321, 260), (256, 341), (300, 533), (227, 231)])
def test_the_input_is_that_of_the_published_preset(name: str, height: int, width: int) -> None:
    spec = entry(name).input.spec()
    frames = frames_of(height, width, spec.num_frames)
    with nlv.VideoReader() as reader:
        request = ClipRequest.parse(frames_per_second=spec.frames_per_second)
        clip = ClipLoader(reader).load(frames, spec, request, originals=None)
    expected = NAMES[name][1].transforms()(torch.from_numpy(frames).permute(0, 3, 1, 2))
    # The preset interpolates in float32 and rounds to whole levels, ours with PyTorch's kernel for uint8: one level.
    difference = (clip.network_input(0, 0)[0] - expected).abs()
    assert difference.max() < 1.01 / 255 / min(spec.std)
    assert (difference > 1e-5).float().mean() < 0.3


def test_rows_say_what_torchvision_says() -> None:
    for name, (_, weights) in NAMES.items():
        row, meta = entry(name), weights.meta
        assert row.download is not None
        assert row.accuracy is not None
        assert (row.download.url, row.parameters) == (weights.url, meta["num_params"])
        assert (row.accuracy.top1, row.accuracy.top5) == tuple(meta["_metrics"]["Kinetics-400"].values())
        assert row.download.size_mb == pytest.approx(meta["_file_size"] * 2**20 / 1e6, abs=0.06)
        frame_rate = 30 / row.input.frame_stride
        views = row.accuracy.views.partition("x")[0]
        stated = f"`frame_rate={frame_rate:g}`, `clips_per_video={views}`, and `clip_len={row.input.num_frames}`"
        assert stated in meta["_docs"]
        assert [label.lower() for label in row.card.labels] == [label.lower() for label in meta["categories"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_its_checkpoint_gives_its_answers_and_maps_of_its_tokens(name: str, tmp_path: Path) -> None:
    build = NAMES[name][0]
    torch.manual_seed(1)
    theirs = build(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "published.pth")
    conversion = convert_file(tmp_path / "published.pth", tmp_path / "ours.safetensors")  # found by its tensors
    assert conversion.name == name
    assert conversion.tensors_used == len(theirs.state_dict())
    spec = entry(name).input.spec()
    frames = frames_of(240, 320, spec.num_frames)
    with nlv.load(tmp_path / "ours.safetensors", device="cpu") as recognizer:
        explanation = recognizer.explain_all(frames, frames_per_second=spec.frames_per_second)
        maps = explanation.class_evidence(7)
        seen = recognizer.preprocess(frames, frames_per_second=spec.frames_per_second)
    with torch.inference_mode():
        expected = theirs(seen)[0].numpy()
    logits = explanation.prediction.logits
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
    assert maps.cells.shape == entry(name).last_features[1:]
    assert maps.cells.any() or "exact" not in maps.quantity  # Grad-CAM may be 0 everywhere
    if name.startswith("swin"):
        assert "exact" in maps.quantity
        assert maps.cells.sum() + theirs.head.bias[7].item() == pytest.approx(logits[7], abs=1e-4)


def test_a_token_of_mvit_lies_where_its_window_is_centred() -> None:
    """Light from one place reaches the token whose centre the layout puts there more than any other."""
    network = nlv.build("mvit-v2-s-k400-torchvision")
    layout = network.token_layout("model.norm")
    assert (layout.size, layout.patch, layout.offset) == ((8, 7, 7), (2, 32, 32), (0.0, 0.0, 0.0))
    patches = network.model.conv_proj
    centre = [(kernel - 1) / 2 - padding for kernel, padding in zip(patches.kernel_size, patches.padding, strict=True)]
    assert centre == [0, 0, 0]
    for block in network.model.blocks:
        pool = block.attn.pool_q.pool if block.attn.pool_q is not None else None
        if pool is not None:
            assert [(kernel - 1) / 2 - pad for kernel, pad in zip(pool.kernel_size, pool.padding, strict=True)] == [
                0
            ] * 3
