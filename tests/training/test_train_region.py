"""A region of the frame in training: what is seen is what lossless clips that were cropped by hand show."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_clips import SPEC, write_clip

import nonlocal_video as nlv
from nonlocal_video.datasets.check import check_clips
from nonlocal_video.datasets.labelled_clip import LabelledClip
from nonlocal_video.datasets.manifest import Manifest, ManifestRow, read_manifest
from nonlocal_video.datasets.report import make_report
from nonlocal_video.datasets.splits import SplitPlan
from nonlocal_video.errors import UsageError
from nonlocal_video.models.checkpoint import read_card
from nonlocal_video.training.augment import Augmentation
from nonlocal_video.training.config import make_config
from nonlocal_video.training.data import ClipDataset
from nonlocal_video.training.disk_cache import DiskCache
from nonlocal_video.training.metrics import read_metrics
from nonlocal_video.training.run_data import RunData, without_misfits
from nonlocal_video.training.run_datasets import make_datasets
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.region import Region

LABELS = ("jump", "wave")
REGION = "0.5,0.25,1,1"
BOX = np.s_[:, 18:72, 48:96]
"""The region of frames of 96 x 72 pixels."""
Run = Callable[..., Any]  # the fixture `run`


def write_lossless(path: Path, frames: np.ndarray) -> None:
    """Frames (T, H, W, 3) at 10/s, as RGB without loss."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "bgr0"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def rows_of(folder: Path, *, region: Region | None = None) -> tuple[ManifestRow, ...]:
    """Checked clips of a folder; the first two are for training, and the others for validation."""
    paths = sorted(folder.glob("*.mkv"))
    clips = [
        LabelledClip(str(path), LABELS[number % 2], split="train" if number < 2 else "validation")
        for number, path in enumerate(paths)
    ]
    return make_report(list(check_clips(clips, [VideoReader()])), SPEC, SplitPlan(), region=region).manifest.rows


@pytest.fixture(scope="module")
def whole_and_cropped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    """Clips of noise, and the same cropped by hand."""
    folder = tmp_path_factory.mktemp("region")
    for number in range(4):
        frames = np.random.default_rng(number).integers(0, 256, (20, 72, 96, 3), np.uint8)
        write_lossless(folder / "whole" / f"{number}.mkv", frames)
        write_lossless(folder / "cropped" / f"{number}.mkv", np.ascontiguousarray(frames[BOX]))
    return Manifest(rows_of(folder / "whole")), Manifest(rows_of(folder / "cropped"))


def views(data: Any, epochs: int = 2) -> torch.Tensor:
    return torch.stack([data.view(index, epoch)[0] for epoch in range(epochs) for index in range(len(data))])


def test_all_views_of_a_run_are_those_of_clips_cropped_by_hand(
    whole_and_cropped: tuple[Manifest, Manifest], tmp_path: Path
) -> None:
    whole, cropped = whole_and_cropped
    seen = []
    for clips, region, cache in (
        (whole, REGION, None), (whole, REGION, DiskCache(tmp_path)), (cropped, None, None), (whole, None, None)
    ):  # fmt: skip
        data = RunData(clips, unlabelled=clips)
        config = make_config({"region": region})
        parts = make_datasets(data, LABELS, SPEC, config, validation="validation", cache=cache)
        seen.append([views(part) for part in parts])
        assert [len(part) for part in parts] == [2 + 4, 2]  # labelled and unlabelled ones
        for part in parts:
            part.close()
    for found, from_cache, by_hand, of_frame in zip(*seen, strict=True):
        assert torch.equal(found, by_hand)
        assert torch.equal(from_cache, by_hand)
        assert not torch.equal(of_frame, by_hand)


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_another_regions_frames_in_the_cache_are_not_used(
    whole_and_cropped: tuple[Manifest, Manifest], augmentation: Augmentation | None, tmp_path: Path
) -> None:
    rows, cache = whole_and_cropped[0].rows, DiskCache(tmp_path)
    regions = (None, Region(0, 0, 0.5, 1), Region(0.5, 0, 1, 1))
    names, seen = [], []
    for hits in (0, 4):
        for region in regions:
            data = ClipDataset(rows, LABELS, SPEC, augmentation=augmentation, region=region, cache=cache)
            names.append(data.view_name(0, 0))
            seen.append(views(data, epochs=1))
            assert data.statistics.from_cache == hits
            data.close()
    assert len(set(names)) == 3  # by which a teacher's answers are kept
    assert not torch.equal(seen[0], seen[1])
    assert all(torch.equal(before, again) for before, again in zip(seen[:3], seen[3:], strict=True))


def test_a_clip_too_small_for_the_region_is_unusable_and_named(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 20, 72, 96, 3), np.uint8)
    for number, part in enumerate((np.s_[:], np.s_[:, :40, :40], np.s_[:, :40], np.s_[:])):
        write_lossless(tmp_path / f"{number}.mkv", frames[number][part])
    region = Region(0, 0, 0.3, 1)
    problem = (
        "not_found: it has no such part: region = 0,0,0.3,1 is 12 x 40 pixels of this video's 40 x 40; take one of at "
        "least 16 x 16."
    )
    checked = rows_of(tmp_path, region=region)
    assert [row.problem for row in checked] == [None, problem, None, None]
    # A list that was checked without the region.
    manifest = Manifest(rows_of(tmp_path))
    assert len(manifest.usable) == 4
    assert without_misfits(manifest, SPEC, region).rows == checked
    assert without_misfits(manifest, SPEC, None) == manifest


def test_a_region_may_be_enlarged_or_too_elongated() -> None:
    from nonlocal_video.datasets.frame_size import is_enlarged, size_problem
    from nonlocal_video.video.info import VideoInfo

    info = VideoInfo("mp4", "h264", 4000, 80, 0, 20, 10.0, 0.0, 2.0, False, "pyav")
    assert not is_enlarged(info, SPEC)
    assert is_enlarged(info, SPEC, Region(0, 0, 1, 0.4))  # 32 pixels for a square of 40
    assert size_problem(info, replace(SPEC, short_side=800), Region(0, 0, 0.1, 1)) is None
    problem = size_problem(info, replace(SPEC, short_side=800), Region(0, 0, 1, 0.75))  # to 800 x 53333
    assert problem is not None
    assert problem.startswith("too_large: the region 0,0,1,0.75 of its frames is too elongated")


def test_check_knows_the_region(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    for number in range(4):
        write_clip(tmp_path / "clips" / LABELS[number % 2] / f"{number}.mp4", number)
    output = tmp_path / "manifest.csv"
    command = ("check", tmp_path / "clips", "--model", tiny_model, "--validation-share", 0.5, "--json")
    found = json.loads(run(*command, "--region", "0.0,0,0.4,1", "--output", output).out)
    assert (found["region"], len(found["smaller_than_a_view"]), found["usable"]) == ("0,0,0.4,1", 4, 4)
    assert "region" not in json.loads(run(*command).out)
    done = run(*command, "--region", "0,0,0.1,1")
    assert done.status == 1
    assert "region = 0,0,0.1,1 is 10 x 72 pixels" in json.loads(done.out)["unusable"][0]["problem"]


@pytest.mark.parametrize("given", [["--region", "0.5,0,0.2,1"], ["--set", "region=0.5,0,0.2,1"]])
def test_a_wrong_region_is_refused_before_clips_are_read(run: Run, given: list[str], tmp_path: Path) -> None:
    done = run("train", tmp_path / "none", "--output", tmp_path / "run", *given)
    assert done.status == 2
    assert "region = 0.5,0,0.2,1 should be X0,Y0,X1,Y1" in done.err
    assert not (tmp_path / "run").exists()


def test_the_setting_is_kept_as_it_is_given_elsewhere() -> None:
    assert make_config({"region": "0.50, 0.0,1,1"}).region == "0.5,0,1,1"
    assert make_config({"region": "0,0,1,1"}).region is None
    with pytest.raises(UsageError, match="region"):
        make_config({"region": [0.5, 0, 1, 1]})


def cross_entropy(run: Path, rows: tuple[ManifestRow, ...], region: str | None) -> float:
    """Mean over clips that `classify` is asked about."""
    with nlv.load(run, device="cpu") as recognizer:
        answers = [recognizer.classify(row.path, region=region) for row in rows]
        scores = [answer.scores[recognizer.labels.index(row.label)] for answer, row in zip(answers, rows, strict=True)]
    return -sum(map(math.log, scores)) / len(scores)


@pytest.mark.slow
def test_a_run_is_trained_measured_and_described_in_its_region(
    train: Run, run: Run, divided_clips: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    options = ("--stage", "all", "--set", "label_smoothing=0", "--set", "save_every_steps=1")
    done = train(divided_clips, "--region", "0.50,0.25,1,1.0", *options)
    assert done.status == 0, done.err
    assert f"Try it: nonlocal-video classify CLIP --model {folder} --region {REGION}" in done.out
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert settings["train"]["region"] == REGION
    held_out = read_manifest(folder / "manifest.csv").of_split("validation")
    (row,) = read_metrics(folder / "metrics.csv")
    assert cross_entropy(folder, held_out, REGION) == pytest.approx(row["validation/loss"], abs=1e-5)
    assert abs(cross_entropy(folder, held_out, None) - row["validation/loss"]) > 1e-3

    (note,) = read_card(folder / "best.safetensors").notes
    assert f"--region {REGION}" in note
    readme = (folder / "README.md").read_text("utf-8")
    assert f"- {note}" in readme
    assert f"nonlocal-video classify clip.mp4 --model {folder} --region {REGION}" in readme
    assert f"--split validation --model {folder} --region {REGION}" in readme
    assert f"one square crop of the region {REGION} of the frame" in readme
    assert f"| train.region | {REGION} |" in readme

    for other in (REGION, "0,0,1,1"):
        refused = run("train", "--output", folder, "--resume", "--region", other)
        assert refused.status == 2
        assert "--resume continues with the run's own clips and settings; omit region" in refused.err
    assert run("train", "--output", folder, "--resume").status == 0
    # Another run from this one is of the whole frame, unless it is given the region, too.
    again = run(
        "train", divided_clips, "--output", tmp_path / "next", "--model", folder, "--epochs", 1, "--workers", 0,
        "--device", "cpu", "--set", "frozen_views=1",
    )  # fmt: skip
    assert again.status == 0, again.err
    assert read_card(tmp_path / "next" / "best.safetensors").notes == ()
    assert "--region" not in again.out + (tmp_path / "next" / "README.md").read_text("utf-8")


@pytest.mark.slow
def test_a_clip_too_small_for_the_region_is_left_out_of_a_run(
    train: Run, run: Run, divided_clips: Path, model: Path, tmp_path: Path
) -> None:
    """Whether a folder is checked for the run, or a list was checked before without the region."""
    clips = tmp_path / "clips"
    for number in range(8):
        write_clip(clips / LABELS[number % 2] / f"{number}.mp4", number)
    write_lossless(clips / "wave" / "narrow.mkv", np.random.default_rng(9).integers(0, 256, (20, 72, 40, 3), np.uint8))
    assert run("check", clips, "--model", model, "--output", tmp_path / "list.csv", "--seed", 1).status == 0
    options = ("--region", "0,0,0.3,1", "--set", "frozen_views=1")
    for number, source in enumerate((clips, tmp_path / "list.csv")):
        done = train(source, *options)
        assert done.status == 0, done.err
        said = done.out if source == clips else done.err
        assert "narrow.mkv: not_found: it has no such part: region = 0,0,0.3,1 is 12 x 72 pixels" in said
        (row,) = [row for row in read_manifest(tmp_path / "run" / "manifest.csv").rows if not row.usable]
        assert row.path.endswith("narrow.mkv")
        (tmp_path / "run").rename(tmp_path / str(number))
