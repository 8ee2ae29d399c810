"""Explanations that are refused, and a folder that never shows two of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nonlocal_video.errors import ModelError, NonlocalVideoError, UsageError, VideoError
from nonlocal_video.inference.load import load
from nonlocal_video.inference.recognizer import Recognizer


@pytest.fixture(scope="module")
def recognizer(tiny_model: Path) -> Iterator[Recognizer]:
    with load(tiny_model, device="cpu") as recognizer:
        yield recognizer


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"query": (1.0, 0.5)}, UsageError, r"query = \(1.0, 0.5\) should be \(seconds, x, y\)"),
        ({"query": "1,2,3"}, UsageError, "query = '1,2,3' should be"),
        ({"query": (float("nan"), 0.5, 0.5)}, UsageError, "query seconds = nan should be a number, 0 or above"),
        ({"query": (-1.0, 0.5, 0.5)}, UsageError, "query seconds = -1.0 should be a number, 0 or above"),
        ({"layer": ""}, UsageError, "layer = '' is not a non-local block"),
        ({"method": "evidence", "layer": ""}, NonlocalVideoError, "''"),
        ({"method": "evidence", "layer": "fc"}, ModelError, "'fc' does not give a .* feature map"),
    ],
)
def test_it_is_refused_in_words(
    recognizer: Recognizer, clip_folder: Path, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        recognizer.explain(clip_folder / "a.mp4", **arguments)


def test_no_path_is_not_the_working_folder(recognizer: Recognizer) -> None:
    with pytest.raises(VideoError) as caught:
        recognizer.classify("")
    assert caught.value.code == "not_found"


def test_no_name_is_no_model() -> None:
    with pytest.raises(ModelError, match="There is no model or weights file ''"):
        load("")


def test_pictures_of_an_earlier_map_go(recognizer: Recognizer, clip_folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "notes.png"
    mine.touch()
    recognizer.explain(clip_folder / "a.mp4").save_frames(tmp_path)
    pictures = recognizer.explain(clip_folder / "a.mp4", fast=True).save_frames(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*pictures, mine])


def test_a_file_in_the_place_of_the_folder_is_said_before_the_work(
    clip_folder: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    done = run("explain", clip_folder / "a.mp4", "--model", "no such model", "--output", taken)
    assert (done.status, taken.read_text()) == (2, "mine")
    assert f"output = {str(taken)!r} is a file; give a folder." in done.err
