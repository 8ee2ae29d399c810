"""`benchmarks/default_block.py`: controls differ in attention alone, no scene is on two sides, views hide as told."""

from __future__ import annotations

import csv
import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nonlocal_video.blocks import NonLocalConfig, VideoNonLocalBlock
from nonlocal_video.models.inception3d import InceptionI3D, InceptionI3DConfig

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import default_block
from default_block import PLAIN
from default_block_comparison import Evaluation
from default_block_data import (
    Recipe,
    Sample,
    Split,
    full_views,
    load_unlabelled,
    make_splits,
    reflected,
    render,
    scenes,
    student_view,
    with_filler,
)
from default_block_training import (
    START,
    STILLS_SHARE,
    VARIANTS,
    Bank,
    Tail,
    Trunk,
    answers,
    as_variant,
    best_temperature,
    divergences,
    initial_blocks,
    make_bank,
    make_targets,
    set_principal,
    train,
    widen_input,
)

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
TINY = Recipe(num_frames=8, size=32, hidden=(0.25, 0.25), cube=(4, 16))
CONFIGURATION = replace(
    PLAIN,
    block=NonLocalConfig(inter_channels=8, sub_sample=False, bn_layer=False),
    learning_rates=(1e-2,),
    num_steps=3,
    batch_size=4,
    evaluate_every=1,
)


REGULARISED = replace(CONFIGURATION, dropout=0.3, weight_decay=0.1)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Six clips of noise, of which two are alike, and three stills."""
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randint(0, 256, (1, 3, 12, 16), generator=generator) for _ in range(8)]
    small = [frames[0], *frames[:5], *frames[5:]]
    lengths = [10, 12, 9, 9, 9, 9, 1, 1, 1]
    return [
        Sample(f"{index}", f"source {index}", _enlarged(image).expand(length, -1, -1, -1))
        for index, (image, length) in enumerate(zip(small, lengths, strict=True))
    ]


def _enlarged(image: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(image.float(), scale_factor=4).to(torch.uint8)  # 48 x 64


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    """The real architecture with random weights, as wide as it is; views of 8 x 32 x 32 keep it fast."""
    torch.manual_seed(0)
    network = InceptionI3D(InceptionI3DConfig(nonlocal_blocks={"Mixed_4f": CONFIGURATION.block}))
    return Trunk(network.eval(), torch.device("cpu"))


@pytest.fixture(scope="module")
def bank(trunk: Trunk, samples: list[Sample]) -> Bank:
    views = [
        [student_view(TINY, sample.shape, np.random.default_rng([index, k])) for k in range(2)]
        for index, sample in enumerate(samples)
    ]
    return make_bank("tiny", trunk, samples, views)


@pytest.fixture(scope="module")
def targets(trunk: Trunk, samples: list[Sample]) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return make_targets(trunk, samples, [full_views(sample.shape, 2, 2, rng, (8, 32)) for sample in samples])


@pytest.fixture
def trained() -> dict[str, VideoNonLocalBlock]:
    """A block of every variant with the same numbers, as if trained: not the identity."""
    torch.manual_seed(1)
    block = VideoNonLocalBlock(12, 6, sub_sample=False, bn_layer=False)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    blocks = as_variant(torch.nn.ModuleDict({"Mixed_4f": block}), "block")
    return {name: as_variant(blocks, name)["Mixed_4f"] for name in VARIANTS}


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(2, 12, 3, 4, 5, generator=torch.Generator().manual_seed(2))


def test_without_attention_a_position_sees_only_itself(
    trained: dict[str, VideoNonLocalBlock], features: torch.Tensor
) -> None:
    block = trained["self"]
    z, weights = block(features, return_nl_map=True)
    torch.testing.assert_close(z, features + block.W(block.g(features)))
    assert torch.equal(weights, torch.eye(60).expand(2, -1, -1))
    product = torch.einsum("dc,bcthw->bdthw", block.W.weight.flatten(1) @ block.g.weight.flatten(1), features)
    added = z - features
    constant = (added - product).mean(dim=(0, 2, 3, 4), keepdim=True)
    torch.testing.assert_close(added, product + constant, rtol=1e-4, atol=1e-4)  # one linear map at every position


def test_the_mean_has_no_position(trained: dict[str, VideoNonLocalBlock], features: torch.Tensor) -> None:
    block = trained["mean"]
    z, weights = block(features, return_nl_map=True)
    added = z - features
    torch.testing.assert_close(added, added[:, :, :1, :1, :1].expand_as(added), rtol=1e-4, atol=1e-4)
    expected = block.W(block.g(features).mean(dim=(2, 3, 4), keepdim=True))
    torch.testing.assert_close(added[:, :, :1, :1, :1], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weights, torch.full((2, 60, 60), 1 / 60))


def test_attention_is_none_of_its_controls(trained: dict[str, VideoNonLocalBlock], features: torch.Tensor) -> None:
    results = {name: block(features) for name, block in trained.items()}
    for name in ("self", "mean"):
        assert (results["block"] - results[name]).abs().max() > 0.1


def test_variants_begin_alike(trunk: Trunk, bank: Bank, samples: list[Sample]) -> None:
    split = _split(samples)
    blocks = initial_blocks(CONFIGURATION, trunk, bank, split, seed=0)
    state = blocks.state_dict()
    plain, _ = answers(Tail(trunk, torch.nn.ModuleDict()), bank, split.test)
    for name in VARIANTS:
        copied = as_variant(blocks, name)
        for key, value in copied.state_dict().items():
            assert torch.equal(value, state[key])
        logits, _ = answers(Tail(trunk, copied), bank, split.test)
        torch.testing.assert_close(logits, plain)  # the identity


def _split(samples: list[Sample]) -> Split:
    is_still = np.array([sample.is_still for sample in samples])
    return make_splits(scenes(samples), is_still, 2, seed=1)[0]


def test_principal_directions_whiten() -> None:
    generator = torch.Generator().manual_seed(0)
    cells = torch.randn(500, 12, generator=generator) @ torch.randn(12, 12, generator=generator) + 3
    block = VideoNonLocalBlock(12, 6, sub_sample=False, bn_layer=False)
    set_principal(block, cells)
    assert block.theta is not None
    values = block.theta(cells.T.reshape(1, 12, 5, 10, 10)).flatten(2)[0]  # (6, 500)
    torch.testing.assert_close(values.mean(dim=1), torch.zeros(6), rtol=0, atol=1e-4)
    torch.testing.assert_close(values @ values.T / 500, torch.eye(6), rtol=1e-3, atol=1e-3)


def test_tail_continues_the_trunk(trunk: Trunk, bank: Bank, samples: list[Sample]) -> None:
    view = student_view(TINY, samples[3].shape, np.random.default_rng([3, 0]))
    expected = trunk.probabilities(render(samples, 3, view)[None])
    logits, owners = answers(Tail(trunk, torch.nn.ModuleDict()), bank, np.array([3]))
    assert owners.tolist() == [3, 3]
    torch.testing.assert_close(logits[:1].softmax(dim=1), expected, rtol=2e-2, atol=1e-4)  # features are float16


def test_widened_input_changes_nothing() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv3d(3, 4, 3)
    x = torch.randn(2, 3, 4, 5, 6)
    expected = conv(x)
    widen_input(conv, 8)
    torch.testing.assert_close(conv(torch.cat([x, torch.randn(2, 5, 4, 5, 6)], dim=1)), expected)


@pytest.mark.parametrize("variant", ["block", "mean"])
def test_training_moves_the_block_alone(
    trunk: Trunk, bank: Bank, samples: list[Sample], targets: torch.Tensor, variant: str
) -> None:
    split = _split(samples)
    is_still = np.array([sample.is_still for sample in samples])
    before = {name: tensor.clone() for name, tensor in trunk.exact.state_dict().items()}
    results = []
    for _ in range(2):
        blocks = as_variant(initial_blocks(CONFIGURATION, trunk, bank, split, seed=0), variant)
        wanted = torch.roll(targets, 1, dims=1) ** 2  # something to learn: the trunk does not say this
        wanted /= wanted.sum(dim=1, keepdim=True)
        best = train(CONFIGURATION, blocks, 1e-2, trunk, bank, wanted, split, is_still, 0)
        results.append((best, blocks.state_dict()))
    for name, tensor in trunk.exact.state_dict().items():
        assert torch.equal(tensor, before[name])
    (first, state), (second, again) = results
    assert first == second
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())
    assert math.isfinite(first.validation)
    assert first.step > 0
    assert state["Mixed_4f.W.weight"].abs().max() > 0


def test_temperature_is_found(trunk: Trunk, bank: Bank) -> None:
    tail = Tail(trunk, torch.nn.ModuleDict())
    everyone = np.arange(9)
    first = Bank(bank.name, bank.features, bank.firsts, np.ones(9, dtype=int))
    logits, _ = answers(tail, first, everyone)
    soft = 4 * logits / logits.std()
    tail.temperature = (logits.std() / 4).item()  # clearly different answers
    wanted = (soft / 1.05**20).softmax(dim=1)
    assert best_temperature(tail, first, wanted, everyone) == pytest.approx(1.05**20)


def test_targets_are_means_of_probabilities(targets: torch.Tensor) -> None:
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(9))
    logits = targets.log()
    torch.testing.assert_close(divergences(targets, logits + 5), torch.zeros(9), rtol=0, atol=1e-5)
    shifted = divergences(targets, torch.randn(9, targets.shape[1], generator=torch.Generator().manual_seed(0)))
    expected = torch.nn.functional.kl_div(
        torch.randn(9, targets.shape[1], generator=torch.Generator().manual_seed(0)).log_softmax(dim=1),
        targets,
        reduction="none",
    ).sum(dim=1)
    torch.testing.assert_close(shifted, expected, rtol=1e-4, atol=1e-5)


def test_no_scene_is_on_two_sides(samples: list[Sample]) -> None:
    numbers = scenes([*samples, replace(samples[5], path="another", source=samples[2].source)])
    assert numbers[0] == numbers[1]  # they look alike
    assert numbers[9] == numbers[2]  # one source
    assert numbers[9] == numbers[5]  # and alike
    assert len(np.unique(numbers)) == 7

    rng = np.random.default_rng(0)
    many = rng.integers(0, 60, size=300)
    is_still = many % 3 == 0
    splits = make_splits(many, is_still, 3)
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(300))
    for split in splits:
        parts = [set(many[part]) for part in (split.train, split.validation, split.test)]
        assert len(split.train) + len(split.validation) + len(split.test) == 300
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert not parts[one] & parts[other]
        for part in (split.train, split.validation, split.test):
            assert 0.2 < is_still[part].mean() < 0.5  # of each kind in every part
    with pytest.raises(ValueError, match="num_folds = 1 should be at least 2"):
        make_splits(many, is_still, 1)


def test_frames_turn_round() -> None:
    assert reflected(1, 6, 3).tolist() == [1, 2, 1, 0, 1, 2]
    assert reflected(2, 3, 9).tolist() == [2, 3, 4]
    assert reflected(5, 2, 1).tolist() == [0, 0]


def test_full_views_show_the_frame() -> None:
    """A ramp: the middle view of a 256 x 341 frame is its central 224 square, pixel by pixel."""
    across, down = torch.arange(341) % 256, torch.arange(256)
    frame = torch.stack([across.expand(256, -1), down[:, None].expand(-1, 341), torch.zeros(256, 341)]).to(torch.uint8)
    sample = Sample("a", "a", frame[None].repeat(70, 1, 1, 1))
    (view,) = full_views(sample.shape, 1, 1, np.random.default_rng(0))
    assert view.frame_indices.tolist() == list(range(3, 67))
    pixels = (render([sample], 0, view)[:, 0] + 1) * 127.5  # (3, 224, 224)
    torch.testing.assert_close(pixels[1], torch.arange(16.0, 240)[:, None].expand(-1, 224), rtol=0, atol=0.01)
    torch.testing.assert_close(pixels[0, :, :150], (torch.arange(150.0) + 59).expand(224, -1), rtol=0, atol=0.51)
    many = full_views(sample.shape, 6, 3, np.random.default_rng(0))
    assert len(many) == 2 * 3  # 6 frames are free: two times
    assert {view.frame_indices[0] for view in many} == {0, 6}


def test_students_see_what_is_left(samples: list[Sample]) -> None:
    recipe = Recipe(num_frames=8, size=32, hidden=(0.75, 0.75), cube=(4, 16))
    view = student_view(recipe, samples[2].shape, np.random.default_rng(0))
    grey = render(samples, 2, view)
    assert grey.shape == (3, 8, 32, 32)
    assert (grey == 0).all(dim=0).float().mean() == pytest.approx(0.75, abs=0.01)
    filled = with_filler(view, recipe, samples[7].shape, 7, np.random.default_rng(1))
    both = render(samples, 2, filled)
    seen = (grey != 0).any(dim=0).expand(3, -1, -1, -1)
    assert torch.equal(both[seen], grey[seen])
    assert filled.filler is not None
    assert torch.equal(both[~seen], render(samples, *filled.filler)[~seen])


def test_stills_move_and_clips_stand() -> None:
    frame = Image.fromarray(np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8) * 2)
    pixels = torch.from_numpy(np.asarray(frame.convert("RGB")).copy()).permute(2, 0, 1)[None]
    both = [Sample("still", "a", pixels), Sample("clip", "b", pixels.repeat(9, 1, 1, 1))]
    plain = Recipe(num_frames=8, size=32)
    still, clip = (render(both, i, student_view(plain, both[i].shape, np.random.default_rng(3))) for i in (0, 1))
    steps = still.diff(dim=1).abs().mean(dim=(0, 2, 3))
    assert steps.min() > 0
    assert steps.max() < 0.25
    assert clip.diff(dim=1).abs().max() < 1e-6


def test_differences_are_paired_and_resample_scenes() -> None:
    still = np.zeros(40, dtype=bool)
    evaluation = Evaluation(torch.ones(40, 2) / 2, [-1] * 40, np.arange(40) // 4, still, {"unlabelled": range(40)})
    rng = np.random.default_rng(0)
    theirs = rng.normal(size=40) * 10
    mean, low, high = evaluation.difference(theirs - 1, theirs)
    assert mean == low == high == -1  # what both share does not matter
    by_scene = np.repeat(rng.normal(size=10), 4)
    mean, low, high = evaluation.difference(by_scene, np.zeros(40))
    spread = by_scene[::4].std() / math.sqrt(10)
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.15)
    assert low < mean < high


@pytest.mark.slow
def test_files_to_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: list[Sample], trunk: Trunk) -> None:
    for name in ("stills", "clips"):
        (tmp_path / name).mkdir()
    rows = []
    for index, sample in enumerate(samples):
        path = f"stills/{index}.png"
        Image.fromarray(sample.frames[0].permute(1, 2, 0).numpy()).save(tmp_path / path)
        rows.append((path, sample.source))
    with (tmp_path / "sources.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "source"), *rows, ("clips/not_here.mp4", "x")])
    read = load_unlabelled(tmp_path)
    assert all(torch.equal(one.frames, sample.frames[:1]) for one, sample in zip(read, samples, strict=True))

    card = type("Card", (), {"labels": ("a", "b")})
    monkeypatch.setattr(default_block, "load_checkpoint", lambda path: (None, card))
    monkeypatch.setattr(default_block, "Trunk", lambda network, device: trunk)
    monkeypatch.setattr(default_block, "load_unlabelled", lambda *_: samples)
    monkeypatch.setattr(default_block, "CONFIGURATIONS", {"plain": CONFIGURATION, "regularised": REGULARISED})
    monkeypatch.setattr(default_block, "RECIPES", {"hidden": replace(TINY, filled=True)})
    for name, value in {"FULL": (8, 32), "NUM_FOLDS": 2, "NUM_VIEWS": (2, 1), "TEACHER_VIEWS": (1, 1)}.items():
        monkeypatch.setattr(default_block, name, value)
    output = tmp_path / "results.json"
    default_block.main(["--data", str(tmp_path), "--output", str(output), "--device", "cpu"])
    results = json.loads(output.read_text("utf-8"))
    assert [entry["name"] for entry in results["configurations"]] == ["plain", "regularised"]
    assert results["settings"]["clips"] == 6
    entry = results["configurations"][0]
    assert list(entry["test"]) == ["none", "temperature", "block", "self", "mean"]
    assert all(math.isfinite(number) for means in entry["test"].values() for number in means.values())
    kl = {variant: means["kl, student"] for variant, means in entry["test"].items()}
    for control in ("none", "temperature", "self", "mean"):
        mean, low, high = entry["differences"][f"block - {control}"]["kl, student"]
        assert mean == pytest.approx(kl["block"] - kl[control], abs=2e-4)
        assert low <= mean <= high


def test_the_published_configurations_are_those_of_the_script() -> None:
    published = json.loads((RESULTS / "default_block.json").read_text("utf-8"))
    assert [entry["name"] for entry in published["configurations"]] == list(default_block.CONFIGURATIONS)
    for entry in published["configurations"]:
        ours = json.loads(json.dumps(asdict(default_block.CONFIGURATIONS[entry["name"]])))
        theirs = entry["configuration"]
        assert [ours.pop("place")] == theirs["places"]
        assert ours == {name: theirs[name] for name in ours}
        assert (theirs["start"], theirs["stills"]) == (START, STILLS_SHARE)
    settings = published["settings"]
    assert settings["variants"] == list(VARIANTS)
    assert (settings["folds"], settings["views"]) == (default_block.NUM_FOLDS, list(default_block.NUM_VIEWS))
    assert settings["teacher_views"] == list(default_block.TEACHER_VIEWS)
