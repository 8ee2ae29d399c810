"""`nonlocal-video timeline` as a user meets it: what it prints, what it writes, its exit status."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nonlocal_video.cli.main import main
from nonlocal_video.inference import sliding
from nonlocal_video.inference.timeline import Timeline
from nonlocal_video.video.encode import write_video

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds, from dark to bright."""
    path = tmp_path_factory.mktemp("timeline") / "brighter.mp4"
    write_video(path, (np.full((72, 96, 3), 8 * count, np.uint8) for count in range(30)), fps=10)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_model: Path) -> Run:
    """The verb in this process: exit status, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        words = ["timeline", *map(str, arguments), "--model", str(tiny_model)]
        monkeypatch.setattr(sys, "argv", ["nonlocal-video", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.mark.slow
def test_all_outputs_from_one_run_of_the_program(tiny_model: Path, clip: Path, tmp_path: Path) -> None:
    names = ["t.json", "t.csv", "t.vtt", "t.png"]
    outputs = [word for name in names for word in ("--output", str(tmp_path / name))]
    command = [sys.executable, "-m", "nonlocal_video", "timeline", str(clip), "--model", str(tiny_model), *outputs]
    command += ["--runtime", "torch"]  # of which standard error has no line
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, *segments = done.stdout.splitlines()
    assert first == str(clip)
    assert segments[0].startswith("  00:00:00.000 - 00:00:")
    assert "  7 windows of 0.80 s every 0.40 s, each of 8 frames, 48 px, decord, cpu" in segments
    assert segments[-4:] == [str(tmp_path / name) for name in names]
    found = json.loads((tmp_path / "t.json").read_text())
    assert (len(found["windows"]), len(found["windows"][0]["top"])) == (7, 5)
    with open(tmp_path / "t.csv", newline="") as file:
        assert [float(row["end_seconds"]) for row in csv.DictReader(file)] == pytest.approx(
            [0.8, 1.2, 1.6, 2.0, 2.4, 2.8, 3.0]
        )
    assert (tmp_path / "t.vtt").read_text().startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert Image.open(tmp_path / "t.png").format == "PNG"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)


def test_json_on_standard_output_is_the_file(run: Run, clip: Path, tmp_path: Path) -> None:
    options = ("--fast", "--window-seconds", 1, "--stride-seconds", 0.5, "--start-seconds", 0.5, "--top-k", 2)
    quiet = ("--runtime", "torch")  # of which standard error has no line
    status, out, err = run(clip, *options, *quiet, "--json", "--output", tmp_path / "t.json", "--threshold", 0.4)
    assert (status, err.strip()) == (0, str(tmp_path / "t.json"))
    found, written = json.loads(out), json.loads((tmp_path / "t.json").read_text())
    assert found == written
    assert (found["window_seconds"], found["stride_seconds"], found["threshold"]) == (1.0, 0.5, 0.4)
    assert [w["start_seconds"] for w in found["windows"]] == [0.5, 1.0, 1.5, 2.0]
    assert found["notes"][0].startswith("The windows last 1.00 s, the model's own 0.40 s: their 4 frames")


def test_segments_as_a_table_and_as_clips(run: Run, clip: Path, tmp_path: Path) -> None:
    outputs = ("--output", tmp_path / "t.segments.csv", "--clips-dir", tmp_path / "cut")
    status, out, _ = run(clip, *outputs, "--shortest-seconds", 1, "--context", "none", "--json")
    assert status == 0
    found = json.loads(out)
    assert (found["context"], found["shortest_seconds"]) == ("none", 1.0)
    with open(tmp_path / "t.segments.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], float(row["start_seconds"]), float(row["end_seconds"])) for row in rows] == [
        (segment["label"], segment["start_seconds"], segment["end_seconds"]) for segment in found["segments"]
    ]
    assert all(row["path"] == str(clip) for row in rows)
    assert all(float(row["end_seconds"]) - float(row["start_seconds"]) >= 1 for row in rows)
    assert len(list((tmp_path / "cut").glob("*.mp4"))) == len(rows)


def test_windows_draw_on_each_other_unless_told_otherwise(run: Run, clip: Path) -> None:
    refined, alone = (json.loads(run(clip, *how, "--json")[1]) for how in ((), ("--context", "none")))
    assert (refined["context"], alone["context"]) == ("nonlocal", "none")
    assert [w["raw_top"] for w in refined["windows"]] == [w["top"] for w in alone["windows"]]
    assert "raw_top" not in alone["windows"][0]
    assert {"top", "raw_top", "own_weight", "drawn_on"} < set(refined["windows"][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--output", "t.mp4"), ".json, .csv, .vtt, .png"),
        (("--output", "gone/t.vtt"), "create it first"),
        (("--threshold", "2"), "threshold = 2 should be from 0 to 1"),
        (("--min-seconds", "-1"), "min-seconds = -1"),
        (("--shortest-seconds", "inf"), "shortest-seconds = inf"),
        (("--stride-seconds", "9"), "should not exceed the window's 0.8 s"),
        (("--end-seconds", "99"), "after the video's end"),
        (("--device", "cuda:99"), "device = 'cuda:99'"),
    ],
)
def test_wrong_usage_is_status_2_with_one_message(
    run: Run, clip: Path, arguments: tuple[str, ...], message: str
) -> None:
    status, out, err = run(clip, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_file_that_is_no_video_is_status_1(run: Run, clip_folder: Path, tmp_path: Path) -> None:
    status, out, err = run(clip_folder / "b" / "note.mp4", "--output", tmp_path / "t.csv")
    assert (status, out) == (1, "")
    assert err.startswith("not_a_video: ")
    assert not list(tmp_path.iterdir())


def test_a_video_that_breaks_keeps_the_windows_before(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    colours = np.random.default_rng(0).integers(0, 256, (30, 3, 4, 3), dtype=np.uint8)
    write_video(path, (colour.repeat(24, 0).repeat(24, 1) for colour in colours), fps=10)
    content = bytearray(path.read_bytes())
    place = len(content) * 2 // 3
    content[place : place + 600] = bytes(600)
    path.write_bytes(content)
    status, out, err = run(path, "--output", tmp_path / "t.json")
    assert status == 1
    assert "corrupt: damaged.mp4: the frame at " in err
    found = json.loads((tmp_path / "t.json").read_text())
    kept = len(found["windows"])
    assert 0 < kept < found["planned_windows"] == 7
    assert f"{kept} of 7 windows, up to {found['windows'][-1]['end_seconds']:.2f} s, were kept." in err
    assert (found["status"], found["error"]["code"]) == ("error", "corrupt")
    assert f"{kept} windows of 0.80 s" in out


@pytest.mark.parametrize(("presses", "windows"), [(1, 3), (2, 2)])
def test_ctrl_c_writes_what_there_is(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, presses: int, windows: int
) -> None:
    """Once: the window in hand is finished. Twice: only what is done."""
    slide = sliding.slide

    def pressed_in_the_third_window(*arguments: Any, **options: Any) -> Iterator[Timeline]:
        for step in slide(*arguments, **options):
            if len(step) == 3:
                for _ in range(presses):
                    signal.raise_signal(signal.SIGINT)
            yield step

    monkeypatch.setattr(sliding, "slide", pressed_in_the_third_window)
    status, _, err = run(clip, "--output", tmp_path / "t.json", "--output", tmp_path / "t.vtt")
    assert status == 130
    assert f"Stopped. {windows} of 7 windows, up to " in err
    found = json.loads((tmp_path / "t.json").read_text())
    assert (found["status"], len(found["windows"])) == ("stopped", windows)
    assert (tmp_path / "t.vtt").exists()


def test_ctrl_c_before_the_first_window_writes_nothing(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed_at_once(*_arguments: Any, **_options: Any) -> Iterator[Timeline]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        yield from ()

    monkeypatch.setattr(sliding, "slide", pressed_at_once)
    status, out, err = run(clip, "--output", tmp_path / "t.json")
    assert (status, out) == (130, "")
    assert "before the first window" in err
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_does_not_cost_the_others(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nonlocal_video.cli import timeline as verb

    check_new_file = verb.check_new_file

    def and_then_a_folder_comes_there(path: Path) -> None:
        check_new_file(path)
        if path.name == "a.csv":
            path.mkdir()

    monkeypatch.setattr(verb, "check_new_file", and_then_a_folder_comes_there)
    status, _, err = run(clip, "--output", tmp_path / "a.csv", "--output", tmp_path / "b.csv")
    assert status == 1
    assert "a.csv' cannot be written" in err
    assert len((tmp_path / "b.csv").read_text().splitlines()) == 8
