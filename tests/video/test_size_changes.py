"""A picture size that changes gives frames of the first one's size, and a note, whatever decodes it."""

from __future__ import annotations

from pathlib import Path

import av
import numbered_clips
import numpy as np
import pytest
from numpy.typing import NDArray

from nonlocal_video.errors import VideoError
from nonlocal_video.video import VideoReader

pytestmark = pytest.mark.slow

NOTE = "The picture size changes during the video: all frames are scaled to the first one's, 96 x 64."
NUM_FRAMES = 24
CODECS = {
    "h264.ts": "-c:v libx264 -pix_fmt yuv420p -g 12",
    "hevc.ts": "-c:v libx265 -pix_fmt yuv420p -x265-params keyint=12:log-level=none",
    "mpeg2.ts": "-c:v mpeg2video -q:v 2 -g 12",
    "vp8.ivf": "-c:v libvpx -b:v 2M -g 12",
    "vp9.ivf": "-c:v libvpx-vp9 -b:v 2M -cpu-used 8 -g 12",
    "av1.ivf": "-c:v libaom-av1 -cpu-used 8 -crf 10 -g 12",
    "mjpeg.mjpeg": "-c:v mjpeg -pix_fmt yuvj420p -q:v 2",
}


def make(folder: Path, name: str) -> Path:
    """One after another: 96 x 64, 192 x 128 and 48 x 32."""
    parts = []
    for number, size in enumerate(("96:64", "192:128", "48:32")):
        pictures = [numbered_clips.picture(8 * number + frame) for frame in range(8)]
        part = folder / f"{number}.{name}"
        numbered_clips.encode(part, pictures, f"-vf scale={size}:flags=neighbor {CODECS[name]}")
        parts.append(part.read_bytes())
    path = folder / name
    if name.endswith(".ivf"):  # one header of 32 bytes, then frames
        parts = [parts[0], *(part[32:] for part in parts[1:])]
    path.write_bytes(b"".join(parts))
    return path


# FFmpeg's decoder of MPEG-2 throws away the picture that it still holds when the size changes.
LOST = {"mpeg2.ts": {7, 15}}


def check(reader: VideoReader, path: Path) -> None:
    expected = [number for number in range(NUM_FRAMES) if number not in LOST.get(path.name, ())]
    info = reader.probe(path)
    frames = reader.read(path, np.linspace(0, info.duration_seconds, 40 * NUM_FRAMES).tolist())
    assert (info.width, info.height, info.num_frames) == (96, 64, len(expected))
    assert [numbered_clips.number_in(frame) for frame in frames.frames_thwc] == expected
    assert all(numbered_clips.is_upright_rgb(frame) for frame in frames.frames_thwc)
    assert frames.info.notes.count(NOTE) == 1
    assert frames.info.decoder == "pyav"


@pytest.mark.parametrize("name", CODECS)
def test_every_codec(tmp_path: Path, reader: VideoReader, name: str) -> None:
    path = make(tmp_path, name)
    check(reader, path)
    if name != "av1.ivf":  # noticed only when it is decoded
        assert NOTE in reader.probe(path).notes


def join(folder: Path, kind: str, arguments: str) -> Path:
    """Join 96 x 64, 192 x 128 and 96 x 64 again, 12 pictures each, by ffmpeg's concat demuxer, which adjusts times."""
    listed = ""
    for number, size in enumerate(("96:64", "192:128", "96:64")):
        pictures = [numbered_clips.picture(12 * number + frame) for frame in range(12)]
        numbered_clips.encode(folder / f"{number}.{kind}", pictures, f"-vf scale={size}:flags=neighbor {arguments}")
        listed += f"file {number}.{kind}\n"
    (folder / "list.txt").write_text(listed)
    path = folder / f"joined.{kind}"
    numbered_clips.ffmpeg("-f", "concat", "-i", str(folder / "list.txt"), "-c", "copy", str(path))
    return path


def shown_by_ffmpeg(path: Path) -> NDArray[np.uint8]:
    """All pictures that the ffmpeg program decodes, scaled to one size by it."""
    output = [
        "-fps_mode",
        "passthrough",
        "-vf",
        "scale=96:64:flags=neighbor",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    return np.frombuffer(numbered_clips.ffmpeg("-i", str(path), *output), np.uint8).reshape(-1, 64, 96, 3)


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
@pytest.mark.parametrize("kind", ["ts", "mpg", "mkv"])
def test_what_the_decoder_of_mpeg_loses_is_not_in_the_index(
    tmp_path: Path, reader: VideoReader, kind: str, codec: str, b_frames: int
) -> None:
    path = join(tmp_path, kind, f"-c:v {codec} -q:v 2 -g 6 -bf {b_frames}")
    expected = [numbered_clips.number_in(frame) for frame in shown_by_ffmpeg(path)]
    assert expected == [number for number in range(36) if number not in (11, 23)]
    info = reader.probe(path)
    assert (info.width, info.height, info.num_frames) == (96, 64, len(expected))
    frames = reader.read(path, np.linspace(0, info.duration_seconds, 40_000).tolist())
    assert [numbered_clips.number_in(frame) for frame in frames.frames_thwc] == expected
    assert frames.info.notes.count(NOTE) == 1


def test_damage_at_a_change_is_still_an_error(tmp_path: Path, reader: VideoReader) -> None:
    path = join(tmp_path, "mkv", "-c:v mpeg2video -q:v 2 -g 6 -bf 0")
    with av.open(str(path)) as container:
        packet = bytes(list(container.demux(video=0))[6])  # the last keyframe before the change
    broken = packet[:100] + np.random.default_rng(0).bytes(len(packet) - 100)
    data = path.read_bytes()
    assert data.count(packet) == 1
    path.write_bytes(data.replace(packet, broken))
    for number in (6, 10):
        with pytest.raises(VideoError, match=f"the frame at {number / 25:.2f} s is damaged"):
            reader.read(path, [number / 25])
    for number in (5, 12):
        assert numbered_clips.number_in(reader.read(path, [number / 25]).frames_thwc[0]) == number


@pytest.mark.parametrize("kind", ["mkv", "mp4", "mov", "flv"])
def test_every_container_and_both_decoders(tmp_path: Path, readers: dict[str, VideoReader], kind: str) -> None:
    path = tmp_path / f"copied.{kind}"
    numbered_clips.ffmpeg("-i", str(make(tmp_path, "h264.ts")), "-c", "copy", str(path))
    check(readers["auto"], path)
    assert NOTE in readers["auto"].probe(path).notes
    forced = readers["decord"].read(path, np.arange(NUM_FRAMES) / 25 + 1e-3)
    assert (forced.info.decoder, forced.info.notes.count(NOTE)) == ("decord", 1)
    assert forced.frames_thwc.shape == (NUM_FRAMES, 64, 96, 3)
    assert [numbered_clips.number_in(frame) for frame in forced.frames_thwc] == list(range(NUM_FRAMES))
    assert all(numbered_clips.is_upright_rgb(frame) for frame in forced.frames_thwc)


def test_headers_that_say_the_same_again_change_nothing(clips: Path, tmp_path: Path, reader: VideoReader) -> None:
    path = tmp_path / "again.mkv"
    bits = "h264_mp4toannexb,dump_extra=freq=keyframe"
    numbered_clips.ffmpeg("-i", str(clips / "h264.mp4"), "-c", "copy", "-bsf:v", bits, str(tmp_path / "a.ts"))
    numbered_clips.ffmpeg("-i", str(tmp_path / "a.ts"), "-c", "copy", str(path))
    info = reader.probe(path)
    assert info.notes == ()
    assert info.decoder == "decord"
