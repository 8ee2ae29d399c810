"""`nonlocal-video features` as a user meets it: what it prints, what it writes, its exit status."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nonlocal_video.features.table import read_features
from nonlocal_video.inference.load import load
from nonlocal_video.video.encode import write_video


def test_a_table(run, tiny_model: Path, clip_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "t.parquet"
    words = ("features", clip_folder, "--model", tiny_model, "--output", output, "--stride-seconds", "0.2")
    done = run(*words)
    assert done.status == 1
    assert f"{clip_folder / 'a.mp4'}\n  7 windows of 32 features, 0.00 - 2.00 s" in done.out
    assert "  not_a_video: note.mp4: it is not a video" in done.out
    assert f"{output}: 4 files: 3 ok, 1 not_a_video; 11 windows" in done.err
    table = read_features(output)
    assert len(table) == 11
    assert run(*words).status == 2  # the output exists
    again = run(*words, "--resume")
    assert "(4 of them done before); 0 windows" in again.err
    good = run("features", clip_folder / "a.mp4", "--model", tiny_model, "--output", tmp_path / "g.parquet")
    assert good.status == 0


def test_arrays_of_the_segments_of_a_csv(run, tiny_model: Path, clip_folder: Path, tmp_path: Path) -> None:
    rows = [("path", "start_seconds", "end_seconds", "label"), (clip_folder / "a.mp4", 0.5, 1.5, "jump")]
    with open(tmp_path / "segments.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([*rows, (clip_folder / "b" / "c.mp4", 0, 1, "fall")])
    output = tmp_path / "arrays"
    words = ("features", tmp_path / "segments.csv", "--model", tiny_model, "--output-dir", output, "--layer", "layer3")
    assert run(*words, "--dtype", "float16").status == 0
    arrays = {path.relative_to(output).as_posix(): np.load(path) for path in output.rglob("*.npy")}
    assert {name: (array.shape, str(array.dtype)) for name, array in arrays.items()} == {
        "a_0.5-1.5.npy": ((2, 16), "float16"),
        "b/c_0-1.npy": ((2, 16), "float16"),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Give either --output FILE.parquet, for a table, or --output-dir DIR, for arrays."),
        (("--output", "t.csv"), "output = 't.csv' should end in .parquet."),
        (("--output", "t.parquet", "--layout", "npy"), "--layout and --crops are for the arrays of --output-dir"),
        (("--output-dir", "o", "--layer", "layer9"), "layer = 'layer9' is not in 'tiny', which has"),
        (("--output-dir", "o", "--include", "*.gif"), "There is no file in"),
    ],
)
def test_wrong_usage(run, tiny_model, clip_folder: Path, tmp_path: Path, monkeypatch, words, message) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("features", clip_folder, "--model", tiny_model, *words)
    assert (done.status, message in done.err) == (2, True), done.err


@pytest.mark.slow
def test_after_a_kill_no_finished_file_is_computed_again(tiny_model: Path, tmp_path: Path, run) -> None:
    clips, output = tmp_path / "clips", tmp_path / "t.parquet"
    clips.mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (7, 60, 1, 1, 3), dtype=np.uint8)
    for number, film in enumerate(colours):
        write_video(clips / f"{number:02}.mp4", (np.broadcast_to(colour, (64, 96, 3)) for colour in film), fps=10)
    words = ["features", str(clips), "--model", str(tiny_model), "--output", str(output), "--stride-seconds", "0.1"]
    command = [sys.executable, "-m", "nonlocal_video", *words]
    journal = Path(f"{output}.journal")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    num_kept = journal.read_bytes().count(b"\n") - 1
    assert 3 <= num_kept < 7
    assert not output.exists()
    done = run(*words, "--resume")
    assert done.status == 0
    assert f"7 files: 7 ok ({num_kept} of them done before)" in done.err
    assert done.out.count("53 windows") == 7 - num_kept
    table = read_features(output)
    assert len(table) == 7 * 53
    with load(tiny_model, device="cpu") as recognizer:
        for clip in (clips / "00.mp4", clips / "06.mp4"):
            own = [row for row, path in enumerate(table.paths) if path == str(clip)]
            expected = recognizer.features(clip, stride_seconds=0.1).features
            np.testing.assert_allclose(table.features[own], expected, rtol=1e-5, atol=1e-6)
