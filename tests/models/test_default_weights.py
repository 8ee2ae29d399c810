"""The embedded default: the original code's logits, its card, its block, and how it is made."""

from __future__ import annotations

import hashlib
import io
import json
import runpy
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from absent import absent
from torchvision.models._meta import _KINETICS400_CATEGORIES

from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.models.inception3d import InceptionI3D, InceptionI3DConfig

REPOSITORY = Path(__file__).parents[2]
WEIGHTS = REPOSITORY / "weights"
DATA = Path(__file__).parent / "data"
BLOCK = "nonlocal_Mixed_4f"


@pytest.fixture(scope="module")
def default():
    return load_checkpoint(WEIGHTS / "i3d-nl-k400.safetensors")


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(WEIGHTS / "make_default.py"))


def reference_clip(num_frames: int) -> torch.Tensor:
    frames = runpy.run_path(str(DATA / "make_i3d_reference.py"))["reference_clip"](num_frames)
    return torch.from_numpy(frames).permute(3, 0, 1, 2)[None]  # (T, H, W, 3) -> (1, 3, T, H, W)


# --- the shipped file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_frames", [16, 20])
def test_logits_are_those_of_the_original_code(default, num_frames: int) -> None:
    reference = json.loads((DATA / "i3d_reference_logits.json").read_text(encoding="utf-8"))
    expected = np.array(reference["logits_by_num_frames"][str(num_frames)])
    with torch.inference_mode():
        logits = default[0](reference_clip(num_frames))[0].numpy()
    assert np.abs(logits - expected).max() < 1e-5 * np.ptp(expected)  # measured: 1e-6; asked for: 1e-4


def test_the_labels_are_kinetics_400s_in_its_order(default) -> None:
    labels = (WEIGHTS / "kinetics400.txt").read_text(encoding="utf-8").splitlines()
    assert labels == _KINETICS400_CATEGORIES == sorted(labels)
    assert default[1].labels == tuple(labels)


def test_the_card_says_what_a_user_has_to_know(default) -> None:
    _, card = default
    assert card.name == "i3d-nl-k400"
    spec = card.input
    assert (spec.num_frames, spec.frames_per_second, spec.short_side, spec.crop) == (64, 25, 256, 224)
    assert spec.mean == spec.std == (0.5, 0.5, 0.5)  # pixels to [-1, 1]
    assert card.fast_input is not None
    assert card.fast_input.frames_per_second == 25  # the rate it was trained at
    assert card.explain_layer == BLOCK
    assert card.licence.startswith("Apache-2.0")
    assert any("until it is trained, does not change the scores" in note for note in card.notes)
    assert "/" not in " ".join(card.notes)  # no path of the machine that made it


def test_the_block_changes_no_bit_of_the_scores(default) -> None:
    network, _ = default
    trunk = InceptionI3D(InceptionI3DConfig()).eval()
    trunk.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith(BLOCK)})
    clip = reference_clip(16)[..., :160, :160]
    with torch.inference_mode():
        assert torch.equal(network(clip), trunk(clip))


def test_the_block_is_the_one_that_the_card_describes(default) -> None:
    network, _ = default
    assert list(network.nonlocal_layers()) == [BLOCK]
    block = network.nonlocal_layers()[BLOCK]
    assert block.config.scale == 0.5 * 128**-0.5
    assert (block.config.inter_channels, block.config.sub_sample, block.config.mode) == (128, False, "spacetime")
    for name in ("phi", "g"):
        for ours, theta in zip(getattr(block, name).parameters(), block.theta.parameters(), strict=True):
            assert torch.equal(ours, theta)
    assert all(not parameter.any() for parameter in block.W.parameters())
    # Principal directions are orthogonal, and so are their multiples.
    directions = torch.nn.functional.normalize(block.theta.weight.flatten(1), dim=1)
    torch.testing.assert_close(directions @ directions.T, torch.eye(128), rtol=0, atol=1e-5)


def test_attention_is_neither_flat_nor_on_single_cells(default) -> None:
    network, _ = default
    with torch.inference_mode():
        features = network.extract_features(reference_clip(16), ["Mixed_4f"])["Mixed_4f"]
        _, weights = network.get_submodule(BLOCK)(features, return_nl_map=True)
    entropy = torch.special.entr(weights[0]).sum(1)
    assert 0.5 < entropy.mean() < 0.9 * np.log(len(entropy))


def test_the_class_activation_map_of_the_real_head_is_exact(default) -> None:
    network, _ = default
    with torch.inference_mode():
        features = network.extract_features(reference_clip(20)[..., :128, :160], ["Mixed_5c"])["Mixed_5c"]
        logits = network.head(features)[0]
        classes = logits.topk(3).indices
        evidence = network.class_activation_map(features, classes)
        torch.testing.assert_close(evidence[0].sum((1, 2, 3)) + network.logits.bias[classes], logits[classes])


# --- how it is made ------------------------------------------------------------------------------------------------


def source_archive(folder: Path, name: str, setup: str) -> Path:
    path = folder / f"{name}-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for member, text in (
            ("PKG-INFO", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"),
            ("setup.py", setup),
        ):
            info = tarfile.TarInfo(f"{name}-1.0/{member}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def test_the_archive_is_fetched_without_running_it(script, tmp_path: Path) -> None:
    if find_spec("pip") is None:
        absent("no pip, with which the script fetches")
    (tmp_path / "index").mkdir()
    (tmp_path / "work").mkdir()
    sentinel = tmp_path / "ran"
    setup = f"open({str(sentinel)!r}, 'w').close()\nraise SystemExit('setup.py was run')\n"
    original = source_archive(tmp_path / "index", "nlvfetchtest", setup)
    sha256 = hashlib.sha256(original.read_bytes()).hexdigest()
    options = ["--no-index", "--find-links", str(tmp_path / "index")]
    archive = script["fetch_archive"]("nlvfetchtest==1.0", sha256, tmp_path / "work", options)
    assert archive.read_bytes() == original.read_bytes()
    assert not sentinel.exists()


def test_an_archive_with_another_hash_is_not_taken(script, tmp_path: Path) -> None:
    if find_spec("pip") is None:
        absent("no pip, with which the script fetches")
    (tmp_path / "work").mkdir()
    source_archive(tmp_path, "nlvfetchtest", "")
    options = ["--no-index", "--find-links", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"could not download nlvfetchtest==1\.0.*--archive"):
        script["fetch_archive"]("nlvfetchtest==1.0", "0" * 64, tmp_path / "work", options)


def test_another_file_than_the_pinned_archive_is_refused(script, tmp_path: Path) -> None:
    (tmp_path / "other.tar.gz").write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"other\.tar\.gz has the SHA-256 .* instead of 2e8e4b79"):
        script["read_trunk"](tmp_path / "other.tar.gz")


def flax_unit(out_channels: int, in_channels: int, kernel: int) -> tuple[dict, dict]:
    generator = np.random.default_rng(out_channels)
    shape = (kernel, kernel, kernel, in_channels, out_channels)
    vector = (1, 1, 1, 1, out_channels)
    params = {
        "Conv_0": {"kernel": generator.random(shape, np.float32)},
        "BatchNorm_0": {"bias": generator.random(vector, np.float32)},
    }
    stats = {"BatchNorm_0": {"mean": generator.random(vector, np.float32), "var": generator.random(vector, np.float32)}}
    return params, stats


def test_conversion_names_and_transposes(script) -> None:
    params, stats = flax_unit(4, 2, 3)
    bias = np.arange(5, dtype=np.float32)
    head = {"Conv_0": {"kernel": np.ones((1, 1, 1, 4, 5), np.float32), "bias": bias}}
    variables = {
        "params": {"Mixed_3b": {"Branch_1": {"Conv3d_0b_3x3": params}}, "Logits": {"Conv3d_0c_1x1": head}},
        "batch_stats": {"Mixed_3b": {"Branch_1": {"Conv3d_0b_3x3": stats}}},
    }
    state = script["convert"](variables)
    unit = "Mixed_3b.branch_1.1"
    assert set(state) == {
        "logits.weight",
        "logits.bias",
        f"{unit}.conv.weight",
        *(f"{unit}.bn.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    }
    kernel = params["Conv_0"]["kernel"]
    assert state[f"{unit}.conv.weight"].shape == (4, 2, 3, 3, 3)
    assert state[f"{unit}.conv.weight"][3, 1, 0, 1, 2] == kernel[0, 1, 2, 1, 3]
    assert state[f"{unit}.bn.weight"].tolist() == [1] * 4
    np.testing.assert_array_equal(state[f"{unit}.bn.running_var"], stats["BatchNorm_0"]["var"].ravel())
    np.testing.assert_array_equal(state["logits.bias"], bias)


def test_conversion_leaves_nothing_out(script) -> None:
    params, stats = flax_unit(4, 2, 1)
    params["Conv_0"]["bias"] = np.zeros(4, np.float32)
    with pytest.raises(SystemExit, match=r"does not know: \['params/Conv3d_2b_1x1/Conv_0/bias'\]"):
        script["convert"]({"params": {"Conv3d_2b_1x1": params}, "batch_stats": {"Conv3d_2b_1x1": stats}})


def test_whitened_directions_have_mean_zero_and_unit_covariance(script) -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn((12, 12), generator=generator, dtype=torch.float64)
    rows = torch.randn((5000, 12), generator=generator, dtype=torch.float64) @ mixing + 3
    mean, covariance = rows.mean(0), torch.cov(rows.T, correction=0)
    weight, bias = script["whitening"](mean, covariance, 5)
    projected = rows @ weight.T + bias
    torch.testing.assert_close(projected.mean(0), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.cov(projected.T, correction=0), torch.eye(5, dtype=torch.float64))
    assert all(row[row.abs().argmax()] > 0 for row in weight)
    leading = torch.linalg.eigvalsh(covariance).flip(0)[:5]
    torch.testing.assert_close(weight.norm(dim=1), leading.rsqrt())


def test_feature_moments_are_those_of_all_cells_of_all_clips(script) -> None:
    torch.manual_seed(0)
    network = InceptionI3D(InceptionI3DConfig(num_classes=2)).eval()
    clips = [torch.rand(1, 3, 8, 32, 32), torch.rand(1, 3, 4, 48, 32)]
    with torch.inference_mode():
        rows = [network.extract_features(clip, ["Mixed_4f"])["Mixed_4f"].flatten(2)[0].T.double() for clip in clips]
    mean, covariance = script["feature_moments"](network, clips)
    torch.testing.assert_close(mean, torch.cat(rows).mean(0))
    torch.testing.assert_close(covariance, torch.cov(torch.cat(rows).T, correction=0))
