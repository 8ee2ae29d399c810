"""Clips that a taught model does not know, in `evaluate` and window by window in `timeline`."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from colour_clips import COLOURS, write_colour
from typer.testing import CliRunner

import nonlocal_video as nlv
from nonlocal_video.cli.main import app
from nonlocal_video.inference.timeline_files import to_csv, to_json
from nonlocal_video.teaching.api import TaughtRun, teach
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video

NONE = (120, 40, 120)


@pytest.fixture(scope="module")
def wary(examples: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> TaughtRun:
    """A run that was also shown what it should not know."""
    folder = tmp_path_factory.mktemp("wary")
    for name in COLOURS:
        (folder / name).symlink_to(examples / name)
    write_colour(folder / "none_of_these" / "0.mp4", NONE, 5)
    return teach(folder, output=tmp_path_factory.mktemp("runs") / "wary", model=tiny_model, device="cpu")


@pytest.mark.slow
def test_evaluate_measures_what_is_not_known(wary: TaughtRun, tiny_model: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    for number, (label, colour) in enumerate(COLOURS.items()):
        for clip in range(2):
            write_colour(clips / label / f"{clip}.mp4", colour, 50 * number + clip)
    for clip in range(3):
        write_colour(clips / "None-of-These" / f"{clip}.mp4", NONE, 500 + clip)
    write_colour(clips / "None-of-These" / "red.mp4", COLOURS["red"], 600)  # mislabelled: it is known
    found = nlv.evaluate(clips, model=wary.path, device="cpu", output=tmp_path / "out")
    assert found.metrics is not None
    assert found.metrics.confusion.sum() == 6  # the others have no class to be right about
    assert found.unknown is not None
    with nlv.load(wary, device="cpu") as recognizer:
        share = np.mean([recognizer.classify(path).unknown for path in (clips / "None-of-These").iterdir()])
    assert 0 < share < 1
    assert (found.unknown.num_none, found.unknown.none_as_unknown.value) == (4, share)
    assert found.unknown.none_as_unknown.interval[0] < share < found.unknown.none_as_unknown.interval[1]
    unknown = [answer.unknown for answer in found.answers if not answer.truth.is_none]
    assert found.unknown.known_as_unknown.value == np.mean(unknown)
    right = [answer.right and not answer.unknown for answer in found.answers if not answer.truth.is_none]
    assert found.unknown.known_and_right.value == np.mean(right)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["unknown"]["none_of_these_as_unknown_percent"]["value"] == 100 * share
    assert (summary["clips"], summary["classes"]) == (10, 3)
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    (wrong,) = [row for row in rows if row["path"].endswith("red.mp4")]
    assert (wrong["label"], wrong["right"], wrong["unknown"]) == ("none of these", "False", "False")
    shown = CliRunner().invoke(app, ["evaluate", str(clips), "--model", str(wary.path), "--device", "cpu"])
    assert f"Unknown of 4 clips of none of these: {share:.1%}" in shown.stdout
    with pytest.raises(nlv.UsageError, match=r"'None-of-These' \(4 clips\)"):  # only taught models have such an answer
        nlv.evaluate(clips, model=tiny_model, device="cpu")


@pytest.mark.slow
def test_the_timeline_says_which_windows_are_not_known(wary: TaughtRun, examples: Path, tmp_path: Path) -> None:
    write_colour(tmp_path / "none.mp4", NONE, 7)
    with VideoReader() as reader:
        parts = []
        for path in (examples / "red" / "0.mp4", tmp_path / "none.mp4"):
            info = reader.probe(path)
            times = info.start_seconds + (np.arange(info.num_frames) + 0.5) / info.fps
            parts.append(reader.read(path, times).frames_thwc)
    joined = np.concatenate([np.concatenate([part] * 4) for part in parts])
    write_video(tmp_path / "joined.mp4", joined, fps=round(info.fps))
    with nlv.load(wary, device="cpu") as recognizer:
        timeline = recognizer.timeline(tmp_path / "joined.mp4", context="none")
        first, last = (recognizer.classify(examples / "red" / "0.mp4"), recognizer.classify(tmp_path / "none.mp4"))
    assert (first.unknown, last.unknown) == (False, True)
    assert timeline.unknown is not None
    assert not timeline.unknown[0]
    assert timeline.unknown[-1]
    for shortest in (0.0, 0.2):
        segments = timeline.segments(shortest_seconds=shortest)
        assert (segments[0].label, segments[-1].label) == ("red", None)
    windows = to_json(timeline)["windows"]
    assert [window["unknown"] for window in windows] == timeline.unknown.tolist()
    assert to_csv(timeline).splitlines()[0].endswith("unknown")
    other = replace(timeline, taught=None)
    assert other.unknown is None
    assert "unknown" not in to_json(other)["windows"][0]
    assert all(segment.label for segment in other.segments())
