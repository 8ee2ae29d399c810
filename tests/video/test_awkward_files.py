"""Every awkward file gives its frames or one sentence, in bounded time, with nothing on the terminal."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numbered_clips
import numpy as np
import pytest

from nonlocal_video.errors import ERROR_CODES
from nonlocal_video.video import VideoReader

pytestmark = pytest.mark.slow

ERRORS = {
    "audio_only.mp4": "no_video_stream",
    "corrupt_header.mp4": "corrupt",
    "empty.mp4": "not_a_video",
    "jpeg_renamed.mp4": "not_a_video",
    "random_bytes.mp4": "not_a_video",
    "text_renamed.mp4": "not_a_video",
    "truncated_no_moov.mp4": "corrupt",
    # Whole containers with damaged pictures in them: reading all of it fails, and a part before the damage is read.
    "corrupt_payload.mp4": "corrupt",
    "decord__corrupted.mp4": "corrupt",
}
# The manifest has what a plain loop over PyAV gives; of these files it has the half picture at the end, or lacks those
# that the decoder still held when the end failed.
FRAMES = {"truncated.avi": 10, "truncated_faststart.mp4": 26}
# The manifest has the stored width; this clip's pixels are 64:51, so that it is shown at 16:9.
SHOWN_WIDTHS = {"clips/arm_wrestling/open-mmlab__demo.mp4": 427}
SECONDS_A_FILE = 20  # they take a fraction of one; this is for a machine that is busy with other things

# Runs apart, so that everything that reaches the terminal is seen.
SCRIPT = """
import json, sys, time
from pathlib import Path
import numpy as np
from nonlocal_video.errors import VideoError
from nonlocal_video.video import VideoReader

rows = {}
with VideoReader() as reader:
    for path in sorted(Path(sys.argv[1]).iterdir()):
        start = time.monotonic()
        try:
            info = reader.probe(path)
            with reader.stream(path, np.linspace(0, info.duration_seconds, 50 * info.num_frames)) as stream:
                frames = sum(len(chunk.frames_thwc) for chunk in stream)
            row = {"frames": frames, "claimed": info.num_frames, "notes": stream.info.notes}
            row["pts_seconds"] = stream.pts_seconds.tolist()
        except VideoError as error:
            row = {"code": error.code, "message": error.message}
        rows[path.name] = {**row, "seconds": time.monotonic() - start}
Path(sys.argv[2]).write_text(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def rows(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    output = tmp_path_factory.mktemp("awkward") / "rows.json"
    command = [sys.executable, "-c", SCRIPT, str(data_folder / "awkward"), str(output)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=250)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    return json.loads(output.read_text())


@pytest.fixture(scope="module")
def manifest(data_folder: Path) -> dict[str, dict[str, str]]:
    with open(data_folder / "manifest.csv", encoding="utf-8", newline="") as stream:
        return {row["path"]: row for row in csv.DictReader(stream)}


def test_every_file_gives_what_is_expected(
    rows: dict[str, dict[str, Any]], manifest: dict[str, dict[str, str]]
) -> None:
    awkward = {path.removeprefix("awkward/"): row for path, row in manifest.items() if path.startswith("awkward/")}
    assert set(rows) == set(awkward)
    expected = {
        name: {"code": ERRORS[name]} if name in ERRORS else {"frames": FRAMES.get(name, int(row["frames"]))}
        for name, row in awkward.items()
    }
    found = {name: {key: row[key] for key in ("code", "frames") if key in row} for name, row in rows.items()}
    assert found == expected
    for name, row in awkward.items():
        if row["pyav_error"] and name not in ERRORS:
            pytest.fail(f"{name} has an error in the manifest and none here")


def test_every_message_is_one_sentence_that_names_the_file(rows: dict[str, dict[str, Any]]) -> None:
    for name, row in rows.items():
        if "code" in row:
            assert row["code"] in ERROR_CODES
            assert row["message"].startswith(f"{name}: ")
            assert "\n" not in row["message"]
            assert "/" not in row["message"], "the folders of a server are not the user's business"


def test_no_file_takes_long(rows: dict[str, dict[str, Any]]) -> None:
    assert {name: row["seconds"] for name, row in rows.items() if row["seconds"] > SECONDS_A_FILE} == {}


def test_only_cut_files_are_said_to_be_cut(rows: dict[str, dict[str, Any]]) -> None:
    cut = {name for name, row in rows.items() if any("cut off" in note for note in row.get("notes", ()))}
    assert cut == {"truncated.avi", "truncated.mkv", "truncated_faststart.mp4"}


def test_what_comes_before_the_damage_can_be_read(data_folder: Path, reader: VideoReader) -> None:
    frames = reader.read(data_folder / "awkward" / "corrupt_payload.mp4", [0.0, 0.1, 0.2])
    expected = numbered_clips.reference(data_folder / "awkward" / "h264.mp4").frames_thwc[[0, 3, 6]]
    assert np.abs(frames.frames_thwc.astype(int) - expected).mean() < 1


def test_pictures_are_those_of_ffmpeg(rows: dict[str, dict[str, Any]], data_folder: Path, reader: VideoReader) -> None:
    """First, middle and last frame of every file that has frames, however odd its pixels."""
    several_streams = {"torchcodec__nasa_13013.mp4"}  # ffmpeg takes the largest stream, we take the first
    for name, row in rows.items():
        if "frames" not in row or name in FRAMES or name in several_streams:
            continue
        path = data_folder / "awkward" / name
        numbers = sorted({0, row["claimed"] // 2, row["claimed"] - 1})
        times = [row["pts_seconds"][number] - row["pts_seconds"][0] for number in numbers]
        shown = reader.read(path, times).frames_thwc
        expected = numbered_clips.pictures(path, numbers, *shown.shape[1:3])
        difference = np.abs(shown.astype(np.int16) - expected).mean()
        assert difference < 0.05, (name, difference)  # of 255: two versions of FFmpeg need not round alike


def test_clips_of_actions_have_the_frames_of_the_manifest(
    manifest: dict[str, dict[str, str]], data_folder: Path, reader: VideoReader
) -> None:
    for path, row in manifest.items():
        if path.startswith("clips/"):
            info = reader.probe(data_folder / path)
            assert (info.num_frames, info.width, info.height) == (
                int(row["frames"]),
                SHOWN_WIDTHS.get(path, int(row["width"])),
                int(row["height"]),
            ), path
