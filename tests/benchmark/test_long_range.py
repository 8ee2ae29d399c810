"""`benchmarks/long_range.py`: clips ask for reach, networks differ in nothing else, docs say what the results say."""

from __future__ import annotations

import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nonlocal_video.analysis.receptive_field import theoretical_fields
from nonlocal_video.blocks import VideoNonLocalBlock

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import long_range
from long_range import TITLES, VARIANTS, Settings, build
from long_range_data import (
    FAR_PIXELS,
    GAP_FRAMES,
    HALF_SIDE,
    HEIGHT,
    NEAR_PIXELS,
    NUM_FRAMES,
    SEPARATIONS,
    WIDTH,
    Clips,
    draw_clips,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TINY = Settings(num_steps=3, batch_size=16, num_warmup_steps=1, num_test_clips=16, curve_every=2)
FIELDS = {  # of a unit of layer 4, (T, H, W) in frames and pixels
    "none": (3, 37, 37),
    "self_only": (3, 37, 37),
    "space_only": (3, math.inf, math.inf),
    "time_only": (math.inf, 37, 37),
    "spacetime": (math.inf, math.inf, math.inf),
    "uniform": (math.inf, math.inf, math.inf),
}
UNREACHABLE = {
    "none": ("space", "time", "both"),
    "self_only": ("space", "time", "both"),
    "space_only": ("time", "both"),
    "time_only": ("space", "both"),
    "spacetime": (),
    "uniform": (),
}


@pytest.fixture(scope="module")
def many() -> tuple[Clips, np.ndarray]:
    """2400 clips without their pixels, and which target colours each shows where: (N, 2, T, W) booleans."""
    rng = np.random.default_rng(0)
    chunks = [draw_clips(400, rng) for _ in range(6)]
    # A colour is there if a column of a frame has 3 pixels of it: 5 belong to a square, noise makes none.
    seen = [
        torch.stack([_is_colour(chunk, 0), _is_colour(chunk, 1)], dim=1).sum(dim=3) >= 3  # (N, 2, T, H, W) -> no H
        for chunk in chunks
    ]
    names = ("separations", "centre_x", "centre_y", "first_frames", "target_colours")
    arrays = {name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in names}
    labels = torch.cat([chunk.labels for chunk in chunks])
    return Clips(video=torch.empty(0), labels=labels, **arrays), torch.cat(seen).numpy()


def _is_colour(clips: Clips, channel: int) -> torch.Tensor:
    """(N, T, H, W): red (0) or green (1), and neither blue nor the background."""
    return (clips.video[:, channel] > 0.6) & (clips.video[:, 1 - channel] < 0.6) & (clips.video[:, 2] < 0.6)


def _best_rule(patterns: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of the best rule from (N, 2) "red seen, green seen" to the label, found on the same clips."""
    codes = patterns @ [1, 2]
    return sum(int(np.bincount(labels[codes == code], minlength=2).max()) for code in range(4)) / len(labels)


def test_clips_are_seeded() -> None:
    first, again, other = (draw_clips(16, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.video, again.video)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.video, other.video)
    assert first.video.shape == (16, 3, NUM_FRAMES, HEIGHT, WIDTH)


@pytest.mark.parametrize("num_clips", [0, 24])
def test_unbalanced_numbers_are_refused(num_clips: int) -> None:
    with pytest.raises(ValueError, match=f"num_clips = {num_clips} should be a positive multiple of 16"):
        draw_clips(num_clips, np.random.default_rng(0))


def test_clips_are_balanced_and_as_far_apart_as_promised(many: tuple[Clips, np.ndarray]) -> None:
    clips, _ = many
    labels = clips.labels.numpy()
    same = clips.target_colours[:, 0] == clips.target_colours[:, 1]
    np.testing.assert_array_equal(labels, same)
    apart = np.abs(np.diff(clips.centre_x[:, :2]))[:, 0]
    blank = np.abs(np.diff(clips.first_frames[:, :2]))[:, 0] - 4
    limits = {  # least and most pixels apart, least and most frames between
        "near": (*NEAR_PIXELS, -4, -4),
        "space": (FAR_PIXELS, WIDTH, -4, -4),
        "time": (0, 0, GAP_FRAMES, NUM_FRAMES),
        "both": (FAR_PIXELS, WIDTH, GAP_FRAMES, NUM_FRAMES),
    }
    for index, name in enumerate(SEPARATIONS):
        these = clips.separations == index
        assert these.sum() == 600
        assert labels[these].sum() == 300
        least, most, least_blank, most_blank = limits[name]
        assert apart[these].min() >= least
        assert apart[these].max() <= most
        assert blank[these].min() >= least_blank
        assert blank[these].max() <= most_blank


def test_pixels_show_what_was_drawn() -> None:
    clips = draw_clips(80, np.random.default_rng(3))
    for clip in range(80):
        for target in (0, 1):
            frame = clips.first_frames[clip, target] + 1  # its centre is a pixel off the middle of its motion
            pixel = clips.video[clip, :2, frame, clips.centre_y[clip, target], clips.centre_x[clip, target]]
            assert pixel.argmax().item() == clips.target_colours[clip, target]
            assert pixel.max() > 0.5
            before = frame - 2
            if before >= 0 and clips.separations[clip] == SEPARATIONS.index("space"):
                columns = slice(clips.centre_x[clip, target] - 1, clips.centre_x[clip, target] + 2)
                shown = clips.video[clip, clips.target_colours[clip, target], before, :, columns]
                assert shown.mean() < 0.6  # not there yet: at most a blue square


def test_a_scene_comes_in_all_colourings() -> None:
    clips = draw_clips(32, np.random.default_rng(4))
    for scene in range(8):
        four = slice(4 * scene, 4 * scene + 4)
        assert clips.target_colours[four].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
        for name in ("separations", "centre_x", "centre_y", "first_frames"):
            values = getattr(clips, name)[four]
            assert (values == values[:1]).all()
        video = clips.video[four]
        changed = (video != video[:1]).any(dim=1).any(dim=0)  # (T, H, W)
        assert changed.sum() == 2 * 4 * 25  # two squares of 5 x 5 for 4 frames


def test_single_frames_do_not_tell_the_class(many: tuple[Clips, np.ndarray]) -> None:
    clips, seen = many
    for name, told in (("near", True), ("space", True), ("time", False), ("both", False)):
        these = clips.separations == SEPARATIONS.index(name)
        labels, shown = clips.labels.numpy()[these], seen[these].any(axis=3)  # (n, 2, T)
        in_frames = max(_best_rule(shown[:, :, frame], labels) for frame in range(NUM_FRAMES))
        assert (in_frames > 0.6) is told, in_frames  # no frame always has both
        assert in_frames == 0.5 or told
        assert _best_rule(shown.any(axis=2), labels) > 0.99  # the whole clip tells


def test_places_do_not_tell_the_class(many: tuple[Clips, np.ndarray]) -> None:
    """Windows as wide as the field of a network without block, over all frames."""
    clips, seen = many
    width = 37
    for name, told in (("near", True), ("space", False), ("time", True), ("both", False)):
        these = clips.separations == SEPARATIONS.index(name)
        labels, shown = clips.labels.numpy()[these], seen[these].any(axis=2)  # (n, 2, W)
        in_windows = max(_best_rule(shown[:, :, x : x + width].any(axis=2), labels) for x in range(WIDTH - width + 1))
        assert (in_windows > 0.6) is told, in_windows
        assert in_windows == 0.5 or told


def test_sums_over_the_clip_do_not_tell_the_class(many: tuple[Clips, np.ndarray]) -> None:
    """Features of average pooling and a linear classifier: the colours' amounts. Their product would tell."""
    clips, seen = many
    amounts = seen.sum(axis=(2, 3)).astype(float)  # (N, 2)
    target = 2.0 * clips.labels.numpy() - 1
    for features, told in ((amounts, False), (amounts.prod(axis=1, keepdims=True), True)):
        design = np.column_stack([features, np.ones(len(target))])
        coefficients = np.linalg.lstsq(design, target)[0]
        explained = 1 - np.var(target - design @ coefficients)
        assert explained == pytest.approx(float(told), abs=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_fields_hold_both_targets_where_they_should(variant: str) -> None:
    (field,) = theoretical_fields(build(variant), (NUM_FRAMES, HEIGHT, WIDTH), ["layer4"])
    assert field.extent == FIELDS[variant]
    frames, _, pixels = field.extent
    reaches_space = pixels + 2 * HALF_SIDE > FAR_PIXELS  # a square is touched where a window has one of its edges
    reaches_time = frames > GAP_FRAMES + 1
    reached = {"near": True, "space": reaches_space, "time": reaches_time, "both": reaches_space and reaches_time}
    assert tuple(name for name in SEPARATIONS if not reached[name]) == UNREACHABLE[variant]


def test_networks_differ_in_the_mode_alone() -> None:
    networks = {}
    for variant in VARIANTS:
        torch.manual_seed(0)
        networks[variant] = build(variant)
    plain = networks["none"]
    assert plain.nonlocal_layers() == {}
    spacetime = networks["spacetime"]
    state = spacetime.state_dict()
    for variant in ("self_only", "space_only", "time_only"):
        other = networks[variant]
        for name, value in other.state_dict().items():
            assert torch.equal(value, state[name]), (variant, name)
        assert replace(other.config, nonlocal_blocks={}) == plain.config
        (block,), (ours,) = other.nonlocal_layers().values(), spacetime.nonlocal_layers().values()
        assert block.config.mode == VARIANTS[variant].mode
        assert replace(block.config, mode="spacetime", temporal_groups=None) == ours.config
    added = sum(parameter.numel() for parameter in ours.parameters())
    assert _count(spacetime) == _count(plain) + added


def _count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_self_only_and_uniform_are_what_they_say() -> None:
    x = torch.randn(2, 48, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    _, alone = _block("self_only")(x, return_nl_map=True)
    assert torch.equal(alone, torch.ones(2, 24, 1, 1))  # 24 positions, each a set of its own
    _, equal = _block("uniform")(x, return_nl_map=True)
    torch.testing.assert_close(equal, torch.full((2, 24, 24), 1 / 24))
    _, free = _block("spacetime")(x, return_nl_map=True)
    assert (free - 1 / 24).abs().max() > 1e-4


def _block(variant: str) -> VideoNonLocalBlock:
    torch.manual_seed(1)
    (block,) = build(variant).nonlocal_layers().values()
    return block


def test_held_weights_stay_held() -> None:
    before = _block("uniform")
    optimised = [name for name, parameter in before.named_parameters() if parameter.requires_grad]
    assert not any(name.startswith("theta") for name in optimised)
    assert "g.weight" in optimised


def test_runs_repeat_and_are_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(long_range, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(workers))
    path = tmp_path / "results" / "runs.json"
    results = long_range.load(path, TINY)
    long_range.measure(results, ["spacetime", "none"], [1, 0], TINY, 1, path)
    stored = json.loads(path.read_text("utf-8"))
    assert stored == results
    assert stored["settings"] == asdict(TINY)
    runs = stored["runs"]
    assert [(run["variant"], run["seed"]) for run in runs] == [
        ("none", 0),
        ("none", 1),
        ("spacetime", 0),
        ("spacetime", 1),
    ]
    for run in runs:
        assert len(run["training_loss"]) == 2
        assert set(run["accuracy"]) == set(run["cross_entropy"]) == {"all", *SEPARATIONS}
        assert all(0 <= value <= 1 for value in run["accuracy"].values())
    assert runs[0]["training_loss"] != runs[1]["training_loss"]

    again = long_range.train_and_test("spacetime", 1, TINY)
    assert again | {"seconds": 0} == runs[3] | {"seconds": 0}

    def refuse(*_: Any) -> None:
        raise AssertionError("this run is already there")

    monkeypatch.setattr(long_range, "train_and_test", refuse)
    long_range.measure(long_range.load(path, TINY), ["none", "spacetime"], [0, 1], TINY, 1, path)
    assert json.loads(path.read_text("utf-8")) == stored
    with pytest.raises(SystemExit, match=r"runs with the settings .*'num_steps': 3.*give another --output"):
        long_range.load(path, replace(TINY, num_steps=4))


def test_intervals() -> None:
    assert long_range.interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.303 / math.sqrt(3)))
    with pytest.raises(ValueError, match="2 to 10 seeds; there are 1"):
        long_range.interval([0.5])


@pytest.mark.parametrize(("num_seeds", "quantile"), long_range.T_QUANTILES.items())
def test_quantiles_cut_off_a_fortieth(num_seeds: int, quantile: float) -> None:
    """Student's density, integrated: substituting t = sqrt(n) tan(a) makes it cos(a)^(n - 1)."""
    freedom = num_seeds - 1
    angles = np.linspace(-np.pi / 2, np.pi / 2, 200_001)
    density = np.cos(angles) ** (freedom - 1)
    below = density[angles <= np.arctan(quantile / math.sqrt(freedom))].sum() / density.sum()
    assert below == pytest.approx(0.975, abs=2e-5)


def test_tables_of_known_runs() -> None:
    accuracies = {"none": (0.5, 0.6, 0.7), "spacetime": (0.9, 1.0, 1.0), "time_only": (0.8, 0.8)}
    columns = ("all", *SEPARATIONS)
    runs = [
        {
            "variant": variant,
            "seed": seed,
            "accuracy": dict.fromkeys(columns, value),
            "cross_entropy": dict.fromkeys(columns, 1 - value),
        }
        for variant, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    lines = long_range.markdown(runs).splitlines()
    assert lines[0] == "| accuracy | all clips | near | far in space | far in time | far in both |"
    assert lines[2] == f"| {TITLES['none']} | " + " | ".join(["60.0 ± 24.8"] * 5) + " |"  # 4.303 * 10 / sqrt(3)
    assert f"| {TITLES['none']} | " + " | ".join(["0.400 ± 0.248"] * 5) + " |" in lines
    # +10 and +20 at seeds 0 and 1: 12.706 * 7.07 / sqrt(2)
    assert f"| {TITLES['spacetime']} − {TITLES['time_only']} | 15.0 ± 63.5 | -0.150 ± 0.635 |" in lines
    assert not any(TITLES["uniform"] in line for line in lines)


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    results: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "long_range.json").read_text("utf-8"))
    return results


def test_docs_have_the_stored_table(stored: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "long_range.md").read_text("utf-8")
    table = page.split("<!-- table -->\n")[1].split("\n<!-- /table -->")[0]
    assert table == long_range.markdown(stored["runs"])
    assert stored["settings"] == asdict(Settings())


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("space_only", "none"),
        ("time_only", "none"),
        ("space_only", "self_only"),
        ("time_only", "self_only"),
        ("spacetime", "space_only"),
        ("spacetime", "time_only"),
    ],
)
def test_more_reach_is_better(stored: dict[str, Any], better: str, worse: str) -> None:
    runs = {(run["variant"], run["seed"]): run for run in stored["runs"]}
    seeds = sorted({seed for _, seed in runs})
    assert len(seeds) >= 3
    assert len(runs) == len(stored["runs"]) == len(seeds) * len(VARIANTS)
    for measure, sign in (("accuracy", 1), ("cross_entropy", -1)):
        gains = [sign * (runs[better, seed][measure]["all"] - runs[worse, seed][measure]["all"]) for seed in seeds]
        mean, half_width = long_range.interval(gains)
        assert mean - half_width > 0, (measure, gains)


def test_no_network_beats_chance_where_it_does_not_reach(stored: dict[str, Any]) -> None:
    """The docs' bound, log 2; as every scene comes in all colourings, it holds without sampling error."""
    for run in stored["runs"]:
        for name in UNREACHABLE[run["variant"]]:
            assert run["cross_entropy"][name] > math.log(2) - 1e-4, (run["variant"], run["seed"], name)


@pytest.mark.parametrize("variant", ["none", "self_only", "space_only", "time_only"])
def test_any_weights_obey_the_bound(variant: str) -> None:
    """The four colourings' logits have the same sum over the two classes where no unit sees both targets."""
    torch.manual_seed(2)
    network = build(variant).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    network.eval()
    clips = draw_clips(64, np.random.default_rng(5))
    with torch.inference_mode():
        logits = network(clips.video.double())
    evidence = (logits[:, 1] - logits[:, 0]).unflatten(0, (-1, 4))  # scenes x colourings
    interaction = (evidence @ torch.tensor([1.0, -1.0, -1.0, 1.0]).double()).abs() / evidence.abs().amax(dim=1)
    for index, name in enumerate(SEPARATIONS):
        reaches = name not in UNREACHABLE[variant]
        ours = interaction[clips.separations[::4] == index]
        assert ours.min() > 1e-8 if reaches else ours.max() < 1e-10, (name, ours)


def test_picture_shows_the_clips(tmp_path: Path) -> None:
    path = tmp_path / "clips.png"
    long_range.draw_picture(path)
    with Image.open(path) as drawn, Image.open(ROOT / "docs" / "images" / "long_range.jpg") as committed:
        assert drawn.size == committed.size
        difference = np.asarray(drawn, dtype=float) - np.asarray(committed, dtype=float)
    assert np.abs(difference).mean() < 10  # JPEG's loss
    assert (ROOT / "docs" / "images" / "long_range.jpg").stat().st_size < 60_000
