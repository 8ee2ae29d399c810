"""Folders of JPEGs as clips, compared with the pictures that Pillow reads one by one."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

import nonlocal_video as nlv
from nonlocal_video.cli.main import app
from nonlocal_video.datasets.labelled import read_labelled
from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.frame_folders import RATE_VARIABLE
from nonlocal_video.inference.files import find_files
from nonlocal_video.models.checkpoint import build_network, save_checkpoint
from nonlocal_video.video import DecodeLimits, VideoReader
from tests.random_networks import resnet_card

RATE = DecodeLimits(frames_per_second=12)
VERBS = ("check", "classify", "evaluate", "explain", "features", "search", "teach", "timeline", "train", "watch")


def save(folder: Path, numbers: range = range(1, 13), *, name: str = "{}.jpg") -> list[NDArray[np.uint8]]:
    """Save a picture of its own colour for each number; return them as they are read."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number in numbers:
        path = folder / name.format(number)
        Image.new("RGB", (64, 48), (20 * (number % 12), 100, 255 - 20 * (number % 12))).save(path)
        pictures.append(np.asarray(Image.open(path)))
    return pictures


@pytest.fixture
def reading() -> VideoReader:
    return VideoReader(limits=RATE)


def test_frames_come_in_natural_order_at_the_rate(tmp_path: Path, reading: VideoReader) -> None:
    pictures = save(tmp_path / "clip")  # 1.jpg ... 12.jpg: 10 comes after 9
    (tmp_path / "clip" / ".hidden.jpg").write_bytes(b"no")
    (tmp_path / "clip" / "notes.txt").write_text("no frame")
    with reading:
        info = reading.probe(tmp_path / "clip")
        assert (info.container, info.codec, info.decoder, info.num_frames) == ("folder", "jpeg", "pillow", 12)
        assert (info.width, info.height, info.fps, info.duration_seconds) == (64, 48, 12.0, 1.0)
        frames = reading.read(tmp_path / "clip", [(number + 0.5) / 12 for number in range(12)])
        np.testing.assert_array_equal(frames.frames_thwc, pictures)
        np.testing.assert_allclose(reading.frame_times(tmp_path / "clip"), np.arange(12) / 12)
        with reading.stream(tmp_path / "clip", [0.5], box=(4, 8, 24, 40)) as stream:
            (chunk,) = stream
        np.testing.assert_array_equal(chunk.frames_thwc[0], pictures[6][4:24, 8:40])
        save(tmp_path / "clip", range(13, 14))  # another picture: the index is made again
        assert reading.probe(tmp_path / "clip").num_frames == 13
        save(tmp_path / "gap", range(1, 3))
        save(tmp_path / "gap", range(7, 8), name="{:05d}.JPEG")
        assert "4 of the pictures' numbers from 1 to 7 are missing" in reading.probe(tmp_path / "gap").notes[0]
        with VideoReader(decoder="decord", limits=RATE) as other, pytest.raises(VideoError, match="reads no folders"):
            other.probe(tmp_path / "clip")


@pytest.mark.slow
def test_what_is_no_clip_is_an_error_with_a_code(tmp_path: Path, reading: VideoReader) -> None:
    save(tmp_path / "sizes")
    Image.new("RGB", (32, 48)).save(tmp_path / "sizes" / "13.jpg")
    save(tmp_path / "cut")
    data = (tmp_path / "cut" / "5.jpg").read_bytes()
    (tmp_path / "cut" / "5.jpg").write_bytes(data[: len(data) // 2])
    save(tmp_path / "renamed")
    Image.new("RGB", (64, 48)).save(tmp_path / "renamed" / "5.jpg", format="PNG")
    (tmp_path / "empty").mkdir()
    save(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe" / "13.jpg")  # no file, so no frame; and nothing waits for it

    def code(name: str, limits: DecodeLimits = RATE) -> tuple[str, str]:
        with VideoReader(limits=limits) as one, pytest.raises(VideoError) as caught:
            one.read(tmp_path / name, [0.4])
        return caught.value.code, caught.value.message

    assert code("sizes") == ("not_a_video", "sizes: its pictures have different sizes (1.jpg is 64 x 48 and 13.jpg "
                             "32 x 48); the frames of a clip have one.")  # fmt: skip
    assert code("cut") == ("corrupt", "cut: 5.jpg is damaged or cut off; get it again.")
    assert code("renamed") == ("corrupt", "renamed: 5.jpg is not a JPEG, or damaged; get it again.")
    assert code("empty")[0] == "not_a_video"
    assert code("pipe", DecodeLimits(frames_per_second=12, max_frames=11))[0] == "too_long"
    assert code("pipe", DecodeLimits(frames_per_second=12, max_duration_seconds=0.9))[0] == "too_long"
    assert code("pipe", DecodeLimits(frames_per_second=12, max_pixels=64 * 47))[0] == "too_large"
    assert code("pipe", DecodeLimits(frames_per_second=12, max_bytes=1000))[0] == "too_large"
    with reading:
        assert reading.probe(tmp_path / "pipe").num_frames == 12
    without = code("pipe", DecodeLimits())
    assert without == ("not_a_video", "pipe: it is not a regular file; give the path of a video file.")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "2000", "many"])
def test_a_rate_is_a_number_of_frames(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RATE_VARIABLE, value)
    with pytest.raises(UsageError, match="should be"):
        DecodeLimits()


def test_searches_find_folders_of_frames_where_the_rate_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "set" / "jump" / "1")
    save(tmp_path / "set" / "run" / "2")
    save(tmp_path / "mixed")
    (tmp_path / "mixed" / "clip.mp4").write_bytes(b"")  # a thumbnail beside a clip is no frame of one
    assert list(find_files([tmp_path / "set"])) == []
    with pytest.raises(UsageError, match="has images and no clip"):
        read_labelled(tmp_path / "set")
    monkeypatch.setenv(RATE_VARIABLE, "12")
    assert list(find_files([tmp_path / "set"])) == [str(tmp_path / "set" / name) for name in ("jump/1", "run/2")]
    assert list(find_files([tmp_path / "set" / "jump" / "1"])) == [str(tmp_path / "set" / "jump" / "1")]
    assert list(find_files([tmp_path / "mixed"])) == [str(tmp_path / "mixed" / "clip.mp4")]
    clips = [(Path(clip.path).name, clip.label) for clip in read_labelled(tmp_path / "set")]
    assert clips == [("1", "jump"), ("2", "run")]


def test_the_verbs_take_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RATE_VARIABLE, "")  # the option sets it; this undoes that
    commands = {command.name or command.callback.__name__: command.callback for command in app.registered_commands}
    assert all("frames_per_second" in inspect.signature(commands[verb]).parameters for verb in VERBS)
    card = resnet_card({})
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "small.safetensors", build_network(card), card)
    save(tmp_path / "set" / "jump" / "jump")
    save(tmp_path / "set" / "run" / "run", range(5, 17))
    model = ["--model", str(tmp_path / "small.safetensors")]
    done = CliRunner().invoke(app, ["classify", str(tmp_path / "set"), *model, "--json", "--frames-per-second", "12"])
    assert done.exit_code == 0, done.output
    assert done.stdout.count('"status": "ok"') == 2
    monkeypatch.setenv(RATE_VARIABLE, "12")
    alone = nlv.load(tmp_path / "small.safetensors", device="cpu").classify(tmp_path / "set" / "run" / "run")
    assert str(alone.top1.score)[:8] in done.stdout
    monkeypatch.setenv(RATE_VARIABLE, "")
    folder = str(tmp_path / "set" / "run" / "run")
    watched = CliRunner().invoke(app, ["watch", folder, *model, "--frames-per-second", "12"])
    assert watched.exit_code == 0, watched.output
    looked = CliRunner().invoke(app, ["analyze", "attention", folder, *model, "--frames-per-second", "12"])
    assert "no non-local block" in str(looked.exception)  # and not: no clip
    monkeypatch.setenv(RATE_VARIABLE, "12")
    manifest = str(tmp_path / "manifest.csv")
    checked = CliRunner().invoke(app, ["check", str(tmp_path / "set"), "--output", manifest, *model])
    assert checked.exit_code == 0, checked.output
    assert ",64,48," in Path(manifest).read_text()
