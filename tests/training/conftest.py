"""Small labelled clips, all different, and what goes wrong in real folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from training_clips import SPEC, remux, write_clip

from nonlocal_video.evaluation.labelled import read_labelled
from nonlocal_video.training.check import check_clips
from nonlocal_video.training.manifest import Manifest
from nonlocal_video.training.report import make_report
from nonlocal_video.training.splits import SplitPlan
from nonlocal_video.video.decode import VideoReader


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
def manifest(good_clips: Path) -> Manifest:
    """Of the good clips."""
    checked = list(check_clips(read_labelled(good_clips), [VideoReader()]))
    return make_report(checked, SPEC, SplitPlan(validation_share=0.5)).manifest
