"""Small labelled clips, all different, and what goes wrong in real folders."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_parts import LABELS, VIEW, tiny_card, tiny_network, wake_blocks
from PIL import Image
from training_clips import SPEC, remux, write_clip

from nonlocal_video.datasets.check import check_clips
from nonlocal_video.datasets.labelled import read_labelled
from nonlocal_video.datasets.manifest import Manifest, write_manifest
from nonlocal_video.datasets.report import make_report
from nonlocal_video.datasets.splits import SplitPlan
from nonlocal_video.models.checkpoint import save_checkpoint
from nonlocal_video.video.decode import VideoReader


@pytest.fixture(autouse=True)
def _no_loading_process_is_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


@pytest.fixture(scope="session")
def good_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of two clips each."""
    folder = tmp_path_factory.mktemp("good")
    for number, name in enumerate(("jump/0", "jump/1", "swipe left/0", "swipe left/1", "wave/0", "wave/1")):
        write_clip(folder / f"{name}.mp4", number)
    return folder


@pytest.fixture(scope="session")
def bad_clips(good_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `good_clips` with two copies of clips, a contradiction, a text file and a short clip."""
    folder = tmp_path_factory.mktemp("bad") / "clips"
    shutil.copytree(good_clips, folder)
    shutil.copy(folder / "wave/0.mp4", folder / "wave/copy.mp4")
    remux(folder / "jump/0.mp4", folder / "jump/remuxed.mkv")
    remux(folder / "wave/1.mp4", folder / "swipe left/odd.mkv")
    (folder / "jump" / "note.mp4").write_text("not a video at all\n" * 20)
    write_clip(folder / "swipe left/short.mp4", 100, num_frames=3)
    return folder


@pytest.fixture(scope="session")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two pictures."""
    folder = tmp_path_factory.mktemp("stills")
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 80, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def divided_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of two classes, four training and two validation clips each."""
    folder = tmp_path_factory.mktemp("divided")
    splits = {}
    for number in range(12):
        path = folder / ("jump", "wave")[number % 2] / f"{number}.mp4"
        write_clip(path, 200 + number)
        splits[str(path)] = "train" if number < 8 else "validation"
    clips = (replace(clip, split=splits[clip.path]) for clip in read_labelled(folder))
    report = make_report(list(check_clips(clips, [VideoReader()])), SPEC, SplitPlan())
    write_manifest(folder / "manifest.csv", report.manifest)
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def manifest(good_clips: Path) -> Manifest:
    """Manifest of the good clips."""
    checked = list(check_clips(read_labelled(good_clips), [VideoReader()]))
    return make_report(checked, SPEC, SplitPlan(validation_share=0.5)).manifest


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights file of a model with the clips' two classes."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    card = tiny_card(blocks=True)
    save_checkpoint(path, wake_blocks(tiny_network(card)), replace(card, name="tiny parent"), dtype=torch.float32)
    return path


@pytest.fixture
def train(run: Callable[..., Any], model: Path, tmp_path: Path) -> Callable[..., Any]:
    """A short run of the tiny model into `tmp_path / "run"`, without loading processes."""

    def program(*arguments: object, **changes: object) -> Any:
        options: dict[str, Any] = {"model": model, "epochs": 1, "workers": 0, "device": "cpu", **changes}
        named = [part for name, value in options.items() if value is not None for part in (f"--{name}", value)]
        return run("train", *arguments, *named, "--output", tmp_path / "run")

    return program


@pytest.fixture
def without_curves() -> Iterator[None]:
    """Runs draw no picture of their metrics, which takes longer than their training, where no test looks at it."""
    with pytest.MonkeyPatch.context() as patch:  # of its own: tests undo theirs before they resume a run
        patch.setattr("nonlocal_video.training.run.draw_curves", lambda *_, **__: None)
        yield


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights file of a teacher with three classes, the clips' two among them; it sees more than the student."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    card = tiny_card()
    spec = replace(VIEW, num_frames=8, frames_per_second=10.0, short_side=48, crop=40)
    card = replace(card, name="teacher", input=spec, labels=("clap", *LABELS), config={**card.config, "num_classes": 3})
    save_checkpoint(path, tiny_network(card, seed=5), card, dtype=torch.float32)
    return path
