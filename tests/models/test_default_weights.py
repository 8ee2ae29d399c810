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
BLOCK = "nonlocal_Mixed_5c"


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
@pytest.mark.slow
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
    assert network.feature_layer == BLOCK  # nothing lies between the block and the head
    block = network.nonlocal_layers()[BLOCK]
    config = block.config
    assert (config.nonlocal_type, config.inter_channels, config.sub_sample) == ("dot_product", 128, False)
    assert (config.mode, config.embed_bias, config.out_bias) == ("spacetime", False, False)
    assert not any(parameter.any() for parameter in block.W.parameters())
    theta, phi, g = (getattr(block, name).weight.flatten(1).double() for name in ("theta", "phi", "g"))
    # Principal directions are orthogonal; theta and g are multiples of them.
    for weight in (theta, g):
        gram = weight @ weight.T
        torch.testing.assert_close(gram / gram[0, 0], torch.eye(128, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(g / g.norm(), theta / theta.norm())
    # The keys have lost a few directions, the same for all of them.
    lost = torch.linalg.svdvals(theta - phi) / theta[0].norm()
    assert (lost > 1e-4).sum() == 4


@pytest.mark.slow
def test_what_padding_gives_is_not_in_the_keys(default) -> None:
    """An empty clip's cells differ by padding alone; their keys hardly do."""
    network, card = default
    empty = torch.zeros(1, 3, card.input.num_frames, card.input.crop, card.input.crop)
    block = network.get_submodule(BLOCK)
    with torch.inference_mode():
        features = network.extract_features(empty, ["Mixed_5c"])["Mixed_5c"]
        spread = [
            (grid - grid[:, :, 4:5, 3:4, 3:4]).square().sum() for grid in (block.theta(features), block.phi(features))
        ]
    assert spread[1] < 0.1 * spread[0]


def test_the_blocks_tensors_are_a_small_part_of_the_file(default) -> None:
    block = default[0].get_submodule(BLOCK)
    assert block.get_block_info()["memory_bytes"] < 0.05 * (WEIGHTS / "i3d-nl-k400.safetensors").stat().st_size


def test_attention_is_neither_flat_nor_on_single_cells(default) -> None:
    network, _ = default
    with torch.inference_mode():
        features = network.extract_features(reference_clip(16), ["Mixed_5c"])["Mixed_5c"]
        block = network.get_submodule(BLOCK)
        received = block.attention_received(features)[0]
        _, weights = block(features, return_nl_map=True)
    torch.testing.assert_close(received, weights[0].mean(0))
    shares = received / received.sum()
    assert shares.max() < 0.1
    assert shares.std() > 0.1 * shares.mean()


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


def test_principal_directions_are_those_of_all_cells_as_they_are(script) -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn((12, 12), generator=generator, dtype=torch.float64)
    clips = [torch.randn((n, 12), generator=generator, dtype=torch.float64) @ mixing + 3 for n in (400, 100)]
    found = script["principal_directions"](clips, 5)
    torch.testing.assert_close(found @ found.T, torch.eye(5, dtype=torch.float64))
    rows = torch.cat(clips)  # not less their mean
    _, values, expected = torch.linalg.svd(rows, full_matrices=False)
    torch.testing.assert_close((found @ expected[:5].T).abs(), torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close((rows @ found.T).norm(dim=0), values[:5])
    assert all(row[row.abs().argmax()] > 0 for row in found)


def test_padding_directions_hold_what_differs_from_the_central_cell(script) -> None:
    generator = torch.Generator().manual_seed(1)
    empty = torch.rand((1, 1, 1, 1), generator=generator).expand(6, 2, 3, 3).clone()
    differs = torch.randn(6, generator=generator)
    empty[:, 1, 0, 2] += differs
    (found,) = script["padding_directions"](empty, 1)
    unit = (differs / differs.norm()).double()
    torch.testing.assert_close((found @ unit).abs(), torch.ones((), dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_block_that_is_set_compares_features_without_padding(script) -> None:
    torch.manual_seed(0)
    config = script["BLOCK_CONFIG"]
    network = InceptionI3D(InceptionI3DConfig(num_classes=2, nonlocal_blocks={"Mixed_5c": config})).eval()
    clips = [torch.rand(n, 1024, dtype=torch.float64) for n in (300, 200)]
    padding = torch.linalg.qr(torch.randn(1024, 4, dtype=torch.float64))[0].T
    script["set_block"](network, clips, padding)
    block = network.get_submodule(BLOCK)
    grids = [rows.T.reshape(1, 1024, 4, 5, -1).float() for rows in clips]
    with torch.no_grad():
        maps = [block(grid, return_nl_map=True) for grid in grids]
    assert all(torch.equal(z, grid) for (z, _), grid in zip(maps, grids, strict=True))
    # The weights of a query sum to 1 on average.
    sums = [float(weights.sum(dim=2).mean()) for _, weights in maps]
    assert np.mean(sums) == pytest.approx(1, abs=1e-4)
    # What lies along the padding's directions changes no key.
    moved = grids[0] + padding[0].float().reshape(1, 1024, 1, 1, 1)
    torch.testing.assert_close(block.phi(moved), block.phi(grids[0]), rtol=0, atol=1e-5)
    assert (block.theta(moved) - block.theta(grids[0])).abs().max() > 1e-3
    values = torch.cat([block.g(grid).flatten() for grid in grids])
    assert values.detach().square().mean().item() == pytest.approx(1, abs=1e-3)
