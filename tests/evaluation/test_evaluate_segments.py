"""`evaluate --segments` and its table: what is found against itself is perfect, and everything doubtful is named."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nonlocal_video as nlv
from nonlocal_video.datasets.segment_table import Span, read_segments, timing_notes
from nonlocal_video.errors import UsageError
from nonlocal_video.models.checkpoint import load_checkpoint, save_checkpoint
from nonlocal_video.video.encode import write_video

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds, of noise, of brightness and of darkness."""
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(14)]
    frames += [np.full((48, 64, 3), 250, np.uint8)] * 13 + [np.full((48, 64, 3), 5, np.uint8)] * 13
    path = tmp_path_factory.mktemp("segments") / "three.mp4"
    write_video(path, frames, fps=10)
    return path


@pytest.fixture(scope="module")
def unsure_tiny(tiny_model: Path, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with a classifier whose answers differ between the windows of this video."""
    network, card = load_checkpoint(tiny_model)
    with nlv.Recognizer(network, card, device="cpu") as recognizer:
        logits = recognizer.timeline(video).logits
    assert logits is not None
    with torch.no_grad():
        network.fc.bias.sub_(torch.from_numpy(logits.mean(axis=0)))
        network.fc.weight.mul_(0.1)
        network.fc.bias.mul_(0.1)
    path = tmp_path_factory.mktemp("unsure") / "tiny.safetensors"
    save_checkpoint(path, network, card, dtype=torch.float32)
    return path


def table(path: Path, *lines: str, columns: str = "path,start_seconds,end_seconds,label") -> Path:
    path.write_text("\n".join([columns, *lines]) + "\n")
    return path


def test_what_is_found_fits_itself_and_the_video_is_opened_once(
    run: Run, unsure_tiny: Path, video: Path, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.segments.csv"
    assert run("timeline", video, "--model", unsure_tiny, "--output", truth).status == 0
    done = run("evaluate", truth, "--segments", "--model", unsure_tiny, "--output", tmp_path / "report", "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found == json.loads((tmp_path / "report" / "summary.json").read_text())
    for name in ("frame_accuracy", "class_mean", "edit", "f1@10", "f1@25", "f1@50", "map@0.3", "map@0.7", "map"):
        assert found[name] == pytest.approx(100), name
    assert (found["videos"], found["context"], found["background"], found["num_frames"]) == (1, "nonlocal", [], 40)
    with open(tmp_path / "report" / "found.segments.csv", newline="") as file, open(truth, newline="") as other:
        written, rows = list(csv.DictReader(file)), list(csv.DictReader(other))
    assert [row["label"] for row in written] == [row["label"] for row in rows]
    assert (tmp_path / "report" / written[0]["path"]).resolve() == video.resolve()
    assert len(rows) > 1  # so that it means something


def test_background_and_doubtful_segments_are_said(run: Run, unsure_tiny: Path, video: Path, tmp_path: Path) -> None:
    rows = (f"{video},0,2,action 0", f"{video},1.5,2.1,action 1", f"{video},2.1,9,idle", "gone.mp4,0,1,action 0")
    source = table(tmp_path / "t.csv", *rows)
    done = run("evaluate", source, "--segments", "--background", "idle", "--model", unsure_tiny)
    assert done.status == 1  # the video that is not there
    assert "three.mp4: 'action 1' 1.5-2.1 s overlap earlier segments" in done.err
    assert "'idle' 2.1-9 s go beyond the end of the video, 4.00 s" in done.err
    assert "'action 1' 1.5-2.1 s are shorter than a window, 0.80 s" in done.err
    assert "gone.mp4: not_found" in done.err
    assert "Background      'idle'; time without a segment is background, too" in done.out
    assert "1 videos, 2 true segments" in done.out


@pytest.mark.parametrize(
    ("lines", "columns", "options", "message"),
    [
        (["a.mp4,0,1,x"], None, (), "labels cannot be matched"),
        (["a.mp4,0,1,action 1"], None, ("--background", "rest"), "background = 'rest' is in no segment"),
        (["a.mp4,2,1,action 1"], None, (), "start_seconds = 2 should be at least 0 and before end_seconds = 1"),
        (["a.mp4,one,1,action 1"], None, (), "start_seconds = 'one' should be a number of seconds"),
        (["a.mp4,action 1"], "path,label", (), "not start_seconds, end_seconds"),
        (
            ["a.mp4,0,1,action 1,train", "a.mp4,1,2,action 1,val"],
            "path,start_seconds,end_seconds,label,split",
            (),
            "has the split 'val' here and 'train' before",
        ),
        (["a.mp4,0,1,action 1"], None, ("--views", "3x1"), "--views only acts on clips"),
        (["a.mp4,0,1,action 1"], None, ("--split", "val"), "not split"),
    ],
)
def test_wrong_tables_and_options(
    run: Run, unsure_tiny: Path, tmp_path: Path, lines: list[str], columns: str | None, options: Any, message: str
) -> None:
    source = table(tmp_path / "t.csv", *lines, **({} if columns is None else {"columns": columns}))
    done = run("evaluate", source, "--segments", "--model", unsure_tiny, *options)
    assert (done.status, done.out) == (2, "")
    assert message in done.err


def test_options_of_segments_alone(run: Run, unsure_tiny: Path, tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", "a.mp4,0,1,action 1")
    done = run("evaluate", source, "--background", "x", "--model", unsure_tiny)
    assert done.status == 2
    assert "only act with --segments" in done.err


def test_groups_and_order(tmp_path: Path) -> None:
    columns = "path,start_seconds,end_seconds,label,group,split,score,annotator"
    lines = ["b.mp4,5,6,x,anna,val,0.5,me", "b.mp4,1,2,y,anna,val,,", "c.mp4,0,1,x,anna,train,,"]
    found = read_segments(table(tmp_path / "t.csv", *lines, columns=columns))
    assert [video.spans for video in found.videos] == [[Span(1, 2, "y"), Span(5, 6, "x")], [Span(0, 1, "x")]]
    assert found.notes == (
        "Group 'anna' is in the splits train, val: what is measured is not independent of training.",
    )
    assert [video.path for video in read_segments(tmp_path / "t.csv", split="train").videos] == [
        str(tmp_path / "c.mp4")
    ]
    with pytest.raises(UsageError, match=r"no segment of split 'test'.*train, val"):
        read_segments(tmp_path / "t.csv", split="test")
    assert timing_notes(found.videos[0], 6.0, 1.0) == []
