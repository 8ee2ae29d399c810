"""The video stream that a player shows is read; still pictures are not videos."""

from __future__ import annotations

import io
from pathlib import Path

import numbered_clips
import numpy as np
import pytest
from PIL import Image

from nonlocal_video.errors import VideoError
from nonlocal_video.video import DecodeLimits, VideoReader

H264 = "-c:v libx264 -pix_fmt yuv420p -g 4"


def pictures(count: int = 12) -> list[np.ndarray]:
    return [numbered_clips.picture(number) for number in range(count)]


def images(count: int = 12) -> list[Image.Image]:
    return [Image.fromarray(picture) for picture in pictures(count)]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A film of 12 frames, a larger one of 9, a still and three thumbnails."""
    numbered_clips.encode(tmp_path / "film.mp4", pictures(), H264)
    numbered_clips.encode(tmp_path / "large.mp4", pictures(9), f"-vf scale=192:128 {H264}")
    images(1)[0].save(tmp_path / "still.jpg")
    numbered_clips.encode(tmp_path / "thumbs.avi", pictures(3), "-c:v mjpeg -pix_fmt yuvj420p -q:v 3")
    return tmp_path


def joined(folder: Path, name: str, *inputs: str, options: str = "") -> Path:
    arguments = [word for part in inputs for word in ("-i", part)]
    maps = [word for number in range(len(inputs)) for word in ("-map", str(number))]
    numbered_clips.ffmpeg(*arguments, *maps, "-c", "copy", *options.split(), name, cwd=folder)
    return folder / name


@pytest.mark.parametrize(
    ("name", "inputs", "options", "num_frames", "which"),
    [
        ("two.mkv", ("film.mp4", "large.mp4"), "", 12, "the first one is read"),
        (
            "two.mp4",
            ("film.mp4", "large.mp4"),
            "-disposition:v:0 0 -disposition:v:1 default",
            9,
            "number 2 is read, the default one",
        ),
        (
            "still_default.mkv",
            ("still.jpg", "film.mp4"),
            "-disposition:v:0 default -disposition:v:1 0",
            12,
            "number 2 is read, the first with a moving picture",
        ),
        (
            "still_last.mkv",
            ("film.mp4", "still.jpg"),
            "-disposition:v:0 0 -disposition:v:1 default",
            12,
            "the first one is read",
        ),
        (
            "thumbs.mkv",
            ("thumbs.avi", "film.mp4"),
            "-disposition:v:0 default -disposition:v:1 default",
            12,
            "number 2 is read, the first film",
        ),
        ("still_first.mov", ("still.jpg", "film.mp4"), "", 12, "number 2 is read"),
        ("still_first.avi", ("still.jpg", "film.mp4"), "", 12, "number 2 is read"),
    ],
)
@pytest.mark.slow
def test_a_choice_is_made_and_said(
    parts: Path, reader: VideoReader, name: str, inputs: tuple[str, ...], options: str, num_frames: int, which: str
) -> None:
    path = joined(parts, name, *inputs, options=options)
    info = reader.probe(path)
    assert info.num_frames == num_frames
    assert any(f"The file has 2 video streams: {which}" in note for note in info.notes)
    frames = reader.read(path, [info.duration_seconds])
    assert numbered_clips.number_in(frames.frames_thwc[0]) == num_frames - 1
    assert frames.info == info


def test_a_cover_is_no_choice(parts: Path, reader: VideoReader) -> None:
    marked = joined(parts, "cover.mp4", "still.jpg", "film.mp4", options="-disposition:v:0 attached_pic")
    attach = "-attach still.jpg -metadata:s:t mimetype=image/jpeg"
    attached = joined(parts, "cover.mkv", "film.mp4", options=attach)
    for path in (marked, attached):
        info = reader.probe(path)
        assert (info.num_frames, info.notes) == (12, ())


def test_programs_of_a_broadcast(parts: Path, reader: VideoReader) -> None:
    path = joined(parts, "two.ts", "film.mp4", "large.mp4", options="-program st=0 -program st=1")
    info = reader.probe(path)
    assert (info.width, info.num_frames) == (numbered_clips.WIDTH, 12)
    assert "The file has 2 video streams: the first one is read." in info.notes


def test_an_animated_avif_with_transparency(tmp_path: Path, reader: VideoReader) -> None:
    path = tmp_path / "animation.avif"
    first, *others = [image.convert("RGBA") for image in images()]
    first.putpixel((0, 0), (0, 0, 0, 0))
    first.save(path, save_all=True, append_images=others, duration=[40] * 6 + [200] * 6, quality=95)
    frames = reader.read(path, [0.0, 0.22, 0.3, 1.4])
    assert [numbered_clips.number_in(frame) for frame in frames.frames_thwc] == [0, 5, 6, 11]
    assert frames.info.duration_seconds == pytest.approx(1.44)
    assert all(numbered_clips.is_upright_rgb(frame) for frame in frames.frames_thwc)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "avif", "ico", "jp2", "ppm", "mpo"])
@pytest.mark.parametrize("name", ["still", "still.mp4"])
def test_a_still_is_no_video(tmp_path: Path, reader: VideoReader, suffix: str, name: str) -> None:
    kinds = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}
    first, *others = images(2)
    buffer = io.BytesIO()
    several = {"save_all": True, "append_images": others} if suffix in ("mpo", "tif") else {}
    first.save(buffer, kinds.get(suffix, suffix.upper()), **several)
    path = tmp_path / name
    path.write_bytes(buffer.getvalue())
    with pytest.raises(VideoError, match=r"it is a still picture .*; give a video file") as caught:
        reader.probe(path)
    assert caught.value.code == "not_a_video"


def test_a_still_that_no_decoder_here_reads_is_no_video(tmp_path: Path, reader: VideoReader) -> None:
    jpeg_xl = (
        "ff0a43060012880200e0005de5120000152aa38c1bbc9cebf9f24387c5b48deb0c6db56d6149a2c8383649277048128b20ee26c70300"
        "0042ccb370007682a1292a4900"
    )
    (tmp_path / "still.mp4").write_bytes(bytes.fromhex(jpeg_xl))
    with pytest.raises(VideoError, match=r"it is a still picture \(JPEGXL\)") as caught:
        reader.probe(tmp_path / "still.mp4")
    assert caught.value.code == "not_a_video"


def test_a_large_photo_is_no_video_either(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (800, 600)).save(path)
    with VideoReader(limits=DecodeLimits(max_pixels=1000)) as reader, pytest.raises(VideoError) as caught:
        reader.probe(path)
    assert caught.value.code == "not_a_video"


def test_one_frame_of_a_video_is_a_video(tmp_path: Path, reader: VideoReader) -> None:
    images(1)[0].save(tmp_path / "one.gif")
    for name, codec in (("one.mp4", H264), ("one.avi", "-c:v mjpeg -pix_fmt yuvj420p"), ("one.mov", "-c:v png")):
        numbered_clips.encode(tmp_path / name, pictures(1), codec)
    for name in ("one.gif", "one.mp4", "one.avi", "one.mov"):
        frames = reader.read(tmp_path / name, [0.0])
        assert (frames.info.num_frames, frames.frames_thwc.shape[0]) == (1, 1)


def test_pictures_one_after_another_are_a_video(tmp_path: Path, reader: VideoReader) -> None:
    path = tmp_path / "film.mjpeg"
    numbered_clips.encode(path, pictures(), "-c:v mjpeg -pix_fmt yuvj420p -q:v 3 -f mjpeg")
    assert reader.probe(path).num_frames == 12
