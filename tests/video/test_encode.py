"""Videos that we write play anywhere, in the colours that were given."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numbered_clips
import numpy as np
import pytest
from numpy.typing import NDArray

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.video import VideoReader, VideoWriter, write_video


def probe(path: Path) -> dict[str, str]:
    fields = (
        "stream=codec_name,pix_fmt,width,height,r_frame_rate,nb_frames,color_space,color_primaries,color_transfer,"
        "color_range"
    )
    command = ["ffprobe", "-v", "error", "-show_entries", fields, "-of", "json", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["streams"][0]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (720, 1280), (63, 97)])
@pytest.mark.slow
def test_red_stays_red(tmp_path: Path, reader: VideoReader, height: int, width: int) -> None:
    """SD is BT.601 and HD is BT.709, both tagged; a player that heeds tags and one that guesses agree."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 120, 40)]
    path = tmp_path / "colours.mp4"
    write_video(path, (np.full((height, width, 3), colour, np.uint8) for colour in colours), fps=5, crf=1)
    by_ffmpeg = numbered_clips.reference(path).frames_thwc[:, height // 2, width // 2]
    np.testing.assert_allclose(by_ffmpeg, colours, atol=4)
    frames = reader.read(path, np.arange(len(colours)) / 5 + 0.1)
    np.testing.assert_allclose(frames.frames_thwc[:, height // 2, width // 2], colours, atol=4)
    found = probe(path)
    tag = "bt709" if height >= 720 else "smpte170m"
    assert found["color_space"] == found["color_primaries"] == found["color_transfer"] == tag
    assert found["color_range"] == "tv"


def test_the_file_is_what_browsers_want(tmp_path: Path) -> None:
    path = tmp_path / "numbers.mp4"
    write_video(path, (numbered_clips.picture(number) for number in range(30)), fps=Fraction(30000, 1001))
    found = probe(path)
    assert (found["codec_name"], found["pix_fmt"], found["r_frame_rate"]) == ("h264", "yuv420p", "30000/1001")
    assert found["nb_frames"] == "30"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes last: a browser waits for the whole file"
    assert numbered_clips.reference(path).numbers == list(range(30))


@pytest.mark.slow
@pytest.mark.parametrize("num_frames", [1, 7])
@pytest.mark.parametrize(
    "fps",
    [1e-5, 0.001, 0.2, 1 / 3, 0.99, 1, 14.985, Fraction(24000, 1001), 23.456789, 25, 240, 240.1, 1000.0, 90_000],
)
def test_a_film_lasts_as_long_as_its_frames(tmp_path: Path, fps: float | Fraction, num_frames: int) -> None:
    """Rates that no encoder plans for, too; the last frame is shown as long as the others, and a single one at all."""
    path = tmp_path / "film.mp4"
    write_video(path, (numbered_clips.picture(number) for number in range(num_frames)), fps=fps)
    fields = "format=start_time,duration:stream=start_time,duration:frame=best_effort_timestamp_time"
    command = ["ffprobe", "-v", "error", "-show_entries", fields, "-of", "json", str(path)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    lasts = float(num_frames / fps)
    assert float(found["streams"][0]["duration"]) == pytest.approx(lasts, rel=1e-3, abs=2e-5)
    assert float(found["format"]["duration"]) == pytest.approx(lasts, rel=1e-3, abs=1e-3)  # in whole milliseconds
    assert float(found["format"]["start_time"]) == float(found["streams"][0]["start_time"]) == 0
    starts = [float(frame["best_effort_timestamp_time"]) for frame in found["frames"]]
    np.testing.assert_allclose(starts, [float(k / fps) for k in range(num_frames)], rtol=1e-3, atol=1.2e-5)
    assert numbered_clips.reference(path).numbers == list(range(num_frames))


def test_odd_sizes_get_a_copy_of_their_edge(tmp_path: Path) -> None:
    frame = np.zeros((33, 51, 3), np.uint8)
    frame[-1:], frame[:, -1:] = 255, 255
    path = tmp_path / "odd.mp4"
    write_video(path, [frame] * 3, fps=10, crf=1)
    shown = numbered_clips.reference(path).frames_thwc
    assert shown.shape == (3, 34, 52, 3)
    assert shown[0, -1, -1].min() > 240
    assert shown[0, :30, :48].max() < 16


@pytest.mark.slow
def test_frames_go_out_one_by_one(tmp_path: Path) -> None:
    """300 frames of 1.2 MB are 350 MB; x264 keeps a few dozen."""
    script = (
        "import resource, sys\n"
        "import numpy as np\n"
        "from nonlocal_video.video import write_video\n"
        "def frames(count):\n"
        "    for i in range(count): yield np.full((480, 640, 3), i % 256, np.uint8)\n"
        f"write_video({str(tmp_path / 'a.mp4')!r}, frames(100), fps=25)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"write_video({str(tmp_path / 'b.mp4')!r}, frames(400), fps=25)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert float(done.stdout) < 30
    assert done.stderr == b""


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"the one before")

    def frames() -> Iterator[NDArray[np.uint8]]:
        yield numbered_clips.picture(0)
        assert path.read_bytes() == b"the one before"
        yield numbered_clips.picture(1)
        raise RuntimeError("out of frames")

    with pytest.raises(RuntimeError, match="out of frames"):
        write_video(path, frames(), fps=10)
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path], "something was left behind"
    write_video(path, [numbered_clips.picture(0)], fps=10)
    assert numbered_clips.reference(path).numbers == [0]
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()


@pytest.mark.parametrize("count", [1, 40])  # frames that x264 still holds, and frames that are in the file
def test_a_folder_that_vanishes_is_an_output_error(tmp_path: Path, count: int) -> None:
    folder = tmp_path / "results"
    folder.mkdir()

    def frames() -> Iterator[NDArray[np.uint8]]:
        yield from map(numbered_clips.picture, range(count))
        shutil.rmtree(folder)

    with pytest.raises(OutputError, match=r"'film\.mp4' cannot be written: No such file or directory"):
        write_video(folder / "film.mp4", frames(), fps=25)
    assert not folder.exists()


def test_a_name_that_no_disk_takes_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: File name too long"):
        write_video(tmp_path / f"{'x' * 250}.mp4", [numbered_clips.picture(0)], fps=25)
    assert not list(tmp_path.iterdir())


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    for arguments in ({"fps": 0}, {"fps": 25, "crf": 52}, {"fps": float("nan")}, {"fps": 1e-6}, {"fps": 1e5}):
        with pytest.raises(UsageError, match=r"fps|crf"):
            VideoWriter(path, **arguments)
    with pytest.raises(UsageError, match=r"should end in \.mp4"):
        VideoWriter(tmp_path / "video.avi", fps=25)
    with pytest.raises(UsageError, match="at least one"):
        write_video(path, [], fps=10)
    wrong_frames: list[Any] = [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)]
    for wrong in wrong_frames:
        with pytest.raises(UsageError, match="uint8"):
            write_video(path, [wrong], fps=10)
    with pytest.raises(UsageError, match="like the first"):
        write_video(path, [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8)], fps=10)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="nowhere"):
        write_video(tmp_path / "nowhere" / "video.mp4", [np.zeros((8, 8, 3), np.uint8)], fps=10)
