"""Pictures have the shape that a player gives them."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import numbered_clips
import numpy as np
import pytest

from nonlocal_video.errors import VideoError
from nonlocal_video.video import DecodeLimits, VideoReader
from nonlocal_video.video._shape import shown_size

HEIGHT, WIDTH = numbered_clips.HEIGHT, numbered_clips.WIDTH


@pytest.mark.parametrize(
    ("stored", "pixel_aspect", "shown"),
    [
        ((320, 240), Fraction(64, 45), (455, 240)),
        ((720, 576), Fraction(16, 15), (768, 576)),
        ((720, 480), Fraction(8, 9), (720, 540)),  # high pixels heighten it
        ((720, 480), Fraction(32, 27), (853, 480)),
        ((1440, 1080), Fraction(4, 3), (1920, 1080)),
        ((342, 192), Fraction(513, 512), (342, 192)),  # a size rounded to even by an encoder
        ((282, 192), Fraction(704, 705), (282, 192)),
        ((320, 240), None, (320, 240)),
        ((320, 240), Fraction(0), (320, 240)),
        ((320, 240), Fraction(1), (320, 240)),
    ],
)
def test_sizes(stored: tuple[int, int], pixel_aspect: Fraction | None, shown: tuple[int, int]) -> None:
    assert shown_size(*stored, pixel_aspect) == (*shown, None)


@pytest.mark.parametrize("pixel_aspect", [Fraction(1, 1000), Fraction(1000), Fraction(11), Fraction(1, 11)])
def test_absurd_pixels_are_ignored_and_said(pixel_aspect: Fraction) -> None:
    width, height, note = shown_size(320, 240, pixel_aspect)
    assert (width, height) == (320, 240)
    assert note is not None
    assert f"{pixel_aspect.numerator}:{pixel_aspect.denominator}" in note


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize(("aspect", "size"), [("16/11", (140, HEIGHT)), ("1/2", (WIDTH, 128)), ("2/1", (192, HEIGHT))])
def test_every_container_and_both_decoders(
    tmp_path: Path, readers: dict[str, VideoReader], kind: str, aspect: str, size: tuple[int, int]
) -> None:
    path = tmp_path / f"wide.{kind}"
    pictures = [numbered_clips.picture(number) for number in range(12)]
    numbered_clips.encode(path, pictures, f"-vf setsar={aspect} -c:v libx264 -pix_fmt yuv420p -g 4")
    frames = readers["auto"].read(path, [0.0, 0.2, 0.44])
    assert (frames.info.width, frames.info.height, frames.info.decoder) == (*size, "pyav")
    output = ["-vf", f"scale={size[0]}:{size[1]}", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    raw = numbered_clips.ffmpeg("-i", str(path), *output, "-")
    expected = np.frombuffer(raw, np.uint8).reshape(-1, size[1], size[0], 3)[[0, 5, 11]]
    assert np.abs(frames.frames_thwc.astype(np.int16) - expected).mean() < 0.05
    with pytest.raises(VideoError, match="as if they were square"):
        readers["decord"].read(path, [0.0])


def test_the_container_wins_over_the_stream(tmp_path: Path, reader: VideoReader) -> None:
    inner, outer = tmp_path / "inner.mp4", tmp_path / "outer.mp4"
    pictures = [numbered_clips.picture(number) for number in range(6)]
    numbered_clips.encode(inner, pictures, "-vf setsar=16/11 -c:v libx264 -pix_fmt yuv420p")
    numbered_clips.ffmpeg("-i", str(inner), "-c", "copy", "-aspect", "3:1", str(outer))
    info = reader.probe(outer)
    assert (info.width, info.height) == (192, HEIGHT)


def test_a_turned_picture_is_widened_before_it_is_turned(tmp_path: Path, reader: VideoReader) -> None:
    path = tmp_path / "turned.mp4"
    lying = [np.rot90(numbered_clips.picture(number)) for number in range(6)]
    numbered_clips.encode(path, lying, "-vf setsar=2/1 -c:v libx264 -pix_fmt yuv420p")
    numbered_clips.set_display_matrix(path, 0, 1, -1, 0)
    frames = reader.read(path, [0.1])
    # Stored 64 x 96 with pixels twice as wide as high: 128 x 96, then turned.
    assert (frames.info.width, frames.info.height) == (WIDTH, 2 * HEIGHT)
    assert numbered_clips.number_in(frames.frames_thwc[0]) == 2


def test_the_shown_size_is_what_the_limit_is_for(tmp_path: Path) -> None:
    path = tmp_path / "wide.mp4"
    numbered_clips.encode(path, [numbered_clips.picture(0)] * 3, "-vf setsar=4/1 -c:v libx264 -pix_fmt yuv420p")
    stored = DecodeLimits(max_pixels=2 * WIDTH * HEIGHT)
    with VideoReader(limits=stored) as reader, pytest.raises(VideoError, match="384 x 64") as caught:
        reader.probe(path)
    assert caught.value.code == "too_large"
    with VideoReader(limits=DecodeLimits(max_pixels=4 * WIDTH * HEIGHT)) as reader:
        assert reader.read(path, [0.0]).frames_thwc.shape == (1, HEIGHT, 4 * WIDTH, 3)


CODECS = {
    "h264": "-c:v libx264 -pix_fmt yuv420p -g 6",
    "hevc": "-c:v libx265 -pix_fmt yuv420p -x265-params keyint=6:log-level=none",
    "mpeg2video": "-c:v mpeg2video -q:v 2 -g 6",
}
WIDER = "The pixel shape changes during the video: all frames are shown with the first one's, "


def join(folder: Path, codec: str, *filters: str) -> Path:
    """Join streams of 12 pictures each into one of MPEG-TS, filtered in turn."""
    path = folder / "joined.ts"
    with path.open("wb") as file:
        for part, filtered in enumerate(filters):
            pictures = [numbered_clips.picture(12 * part + number) for number in range(12)]
            numbered_clips.encode(folder / "part.ts", pictures, f"-vf {filtered} {CODECS[codec]}")
            file.write((folder / "part.ts").read_bytes())
    return path


def pixel_shapes(path: Path) -> set[str]:
    """The pixel shapes of all pictures, by ffprobe."""
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "frame=sample_aspect_ratio"]
    printed = subprocess.check_output([*command, "-of", "default=nokey=1:noprint_wrappers=1", str(path)], text=True)
    return set(printed.split())


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("first", "second", "size"), [("1:1", "32:27", (96, 64)), ("32:27", "1:1", (114, 64))])
def test_a_pixel_shape_that_changes_is_said(
    tmp_path: Path, reader: VideoReader, codec: str, first: str, second: str, size: tuple[int, int]
) -> None:
    path = join(tmp_path, codec, f"setsar={first.replace(':', '/')}", f"setsar={second.replace(':', '/')}")
    assert pixel_shapes(path) == {"1:1", "32:27"}
    assert f"{WIDER}{first}." in reader.probe(path).notes
    frames = reader.read(path, ((np.arange(24) + 0.5) / 25).tolist())
    assert (frames.info.width, frames.info.height) == size
    assert [numbered_clips.number_in(frame) for frame in frames.frames_thwc] == list(range(24))
    assert frames.info.notes.count(f"{WIDER}{first}.") == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_both_decoders_say_it(tmp_path: Path, readers: dict[str, VideoReader], kind: str) -> None:
    path = tmp_path / f"copied.{kind}"
    numbered_clips.ffmpeg("-i", str(join(tmp_path, "h264", "setsar=1/1", "setsar=4/3")), "-c", "copy", str(path))
    for decoder in ("decord", "pyav"):
        info = readers[decoder].read(path, [0.0, 0.8]).info
        assert (info.decoder, info.notes.count(f"{WIDER}1:1.")) == (decoder, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("setsar=1/1", "setsar=0/1"),  # a player shows unknown pixels as square ones
        ("setsar=4/3", "setsar=4/3"),
        ("setsar=1/1", "scale=48:64:flags=neighbor,setsar=2/1"),  # the same proportions in another size
        ("setsar=1/1", "scale=192:128:flags=neighbor,setsar=1/1"),
    ],
)
def test_pictures_that_look_alike_have_no_such_note(
    tmp_path: Path, reader: VideoReader, first: str, second: str
) -> None:
    notes = reader.probe(join(tmp_path, "h264", first, second)).notes
    assert not any(WIDER in note for note in notes)
    assert any("The picture size changes" in note for note in notes) == ("scale" in second)


@pytest.mark.slow
def test_a_shape_that_the_container_states_holds_for_all_pictures(tmp_path: Path, reader: VideoReader) -> None:
    path = tmp_path / "stated.mp4"
    joined = join(tmp_path, "h264", "setsar=1/1", "setsar=4/3")
    numbered_clips.ffmpeg("-i", str(joined), "-c", "copy", "-aspect", "3:1", str(path))
    info = reader.probe(path)
    assert (info.width, info.height) == (192, 64)
    assert not any(WIDER in note for note in info.notes)
