"""Inputs made after public bug reports, each against what the ffmpeg program decodes of it."""

from __future__ import annotations

from pathlib import Path

import numbered_clips
import numpy as np
import pytest
from numpy.typing import NDArray

from nonlocal_video.video import Frames, VideoReader

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture(scope="module")
def reports(data_folder: Path) -> Path:
    return data_folder / "reports"


def all_frames(reader: VideoReader, path: Path) -> Frames:
    info = reader.probe(path)
    return reader.read(path, np.linspace(0, info.duration_seconds, 20 * info.num_frames).tolist())


def decoded_by_ffmpeg(
    path: Path, shape: tuple[int, ...], *before: str, stream: str = "0:v:0", filters: str | None = None
) -> NDArray[np.uint8]:
    height, width = shape[1:3]
    filters = filters or f"scale={width}:{height}"
    output = ["-map", stream, "-vf", filters, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = numbered_clips.ffmpeg(*before, "-i", str(path), *output)
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def assert_corners(picture: NDArray[np.uint8], *expected: tuple[int, int, int], atol: int = 8) -> None:
    """Top left, top right, bottom left, bottom right."""
    inset = 12
    for (row, column), colour in zip(
        ((inset, inset), (inset, -inset), (-inset, inset), (-inset, -inset)), expected, strict=True
    ):
        np.testing.assert_allclose(picture[row, column], colour, atol=atol)


def assert_same(shown: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(np.int16) - expected).mean() < 0.05


@pytest.mark.parametrize("name", ["r180.mkv", "sei_rot180.mp4"])
def test_turned_by_180(reports: Path, reader: VideoReader, name: str) -> None:
    frames = all_frames(reader, reports / name)
    assert (len(frames.frames_thwc), frames.info.decoder, frames.info.rotation_degrees) == (50, "pyav", 180)
    for picture in frames.frames_thwc:
        assert_corners(picture, WHITE, BLUE, GREEN, RED)
    stored = decoded_by_ffmpeg(reports / name, frames.frames_thwc.shape, "-noautorotate")
    assert_same(frames.frames_thwc, stored[:, ::-1, ::-1])


def test_a_time_lapse_of_camera_pictures(reports: Path, reader: VideoReader) -> None:
    frames = all_frames(reader, reports / "timelapse_exif.avi")
    assert len(frames.frames_thwc) == frames.info.num_frames == 30
    assert_same(frames.frames_thwc, decoded_by_ffmpeg(reports / "timelapse_exif.avi", frames.frames_thwc.shape))


@pytest.mark.parametrize(
    ("name", "stream", "num_frames", "size", "reason"),
    [
        ("anim.avif", None, 12, (320, 240), "number 2 is read, the first with a moving picture"),
        ("thumb_first_plain.mkv", "0:v:1", 50, (320, 240), "number 2 is read, the default one"),
        ("two_tracks_second_default.mp4", "0:v:1", 50, (640, 480), "number 2 is read, the default one"),
    ],
)
def test_the_stream_of_a_player(
    reports: Path,
    reader: VideoReader,
    name: str,
    stream: str | None,
    num_frames: int,
    size: tuple[int, int],
    reason: str,
) -> None:
    frames = all_frames(reader, reports / name)
    assert (frames.info.num_frames, len(frames.frames_thwc)) == (num_frames, num_frames)
    assert (frames.info.width, frames.info.height) == size
    assert f"The file has 2 video streams: {reason}." in frames.info.notes
    assert_corners(frames.frames_thwc[-1], RED, GREEN, BLUE, WHITE)
    if stream is not None:  # ffmpeg 5 knows no animated AVIF
        assert_same(frames.frames_thwc, decoded_by_ffmpeg(reports / name, frames.frames_thwc.shape, stream=stream))


def test_pixels_that_are_not_square(reports: Path, reader: VideoReader) -> None:
    frames = all_frames(reader, reports / "sar_pal169.mp4")
    assert (frames.info.width, frames.info.height, frames.info.decoder) == (455, 240, "pyav")
    assert_same(frames.frames_thwc, decoded_by_ffmpeg(reports / "sar_pal169.mp4", frames.frames_thwc.shape))


def test_hdr_is_tone_mapped(reports: Path, reader: VideoReader) -> None:
    frames = all_frames(reader, reports / "hdr10.mp4")
    assert_corners(frames.frames_thwc[-1], RED, GREEN, BLUE, WHITE, atol=10)
    assert "The video is HDR (PQ): it is tone-mapped to SDR (BT.709)." in frames.info.notes
    assert frames.info == reader.probe(reports / "hdr10.mp4")
    steps = ("zscale=t=linear:npl=203", "format=gbrpf32le", "zscale=p=bt709", "tonemap=mobius:param=0.9:desat=0")
    filters = ",".join((*steps, "zscale=t=bt709:m=bt709:r=tv", "format=yuv444p"))
    expected = decoded_by_ffmpeg(reports / "hdr10.mp4", frames.frames_thwc.shape, filters=filters)
    assert np.abs(frames.frames_thwc.astype(np.int16) - expected).mean() < 2  # of 255: another curve for highlights


def test_animated_webp(reports: Path, reader: VideoReader) -> None:
    frames = all_frames(reader, reports / "anim.webp")
    assert (frames.info.num_frames, frames.info.codec, frames.info.decoder) == (12, "webp", "pillow")
    for picture in frames.frames_thwc:
        assert_corners(picture, RED, GREEN, BLUE, WHITE)
    assert len({picture.tobytes() for picture in frames.frames_thwc}) == 12, "each frame has its own counter"


@pytest.mark.parametrize("name", ["cat_res.ts", "vp8_res.webm"])
def test_a_picture_size_that_changes(reports: Path, reader: VideoReader, name: str) -> None:
    frames = all_frames(reader, reports / name)
    assert (frames.info.width, frames.info.height) == (320, 240)
    note = "The picture size changes during the video: all frames are scaled to the first one's, 320 x 240."
    assert frames.info.notes.count(note) == 1
    assert note in reader.probe(reports / name).notes
    expected = decoded_by_ffmpeg(reports / name, frames.frames_thwc.shape)
    assert len(expected) == 100
    assert_same(frames.frames_thwc, expected)
