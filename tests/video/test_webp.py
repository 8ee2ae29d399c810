"""Animated WebP, compared with the pictures that it was made from without loss."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numbered_clips
import numpy as np
import pytest
from PIL import Image

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.video import DecodeLimits, VideoReader

NUM_FRAMES = 12
DURATIONS_MS = [40, 80, 0, 200, *[40] * 8]  # 0 is shown for a tenth of a second


def save(path: Path, mode: str = "RGB") -> list[np.ndarray]:
    pictures = [numbered_clips.picture(number) for number in range(NUM_FRAMES)]
    first, *others = [Image.fromarray(picture).convert(mode) for picture in pictures]
    first.save(path, save_all=True, append_images=others, duration=DURATIONS_MS, lossless=True, format="WEBP")
    return pictures


def test_frames_and_times(tmp_path: Path, reader: VideoReader) -> None:
    path = tmp_path / "animation.mp4"  # whatever its name
    pictures = save(path)
    shown_ms = [duration or 100 for duration in DURATIONS_MS]
    starts = np.cumsum([0, *shown_ms])
    info = reader.probe(path)
    assert (info.container, info.codec, info.decoder, info.num_frames) == ("webp", "webp", "pillow", NUM_FRAMES)
    assert info.duration_seconds == pytest.approx(starts[-1] / 1000)
    frames = reader.read(path, ((starts[1:] + starts[:-1]) / 2000).tolist())
    np.testing.assert_array_equal(frames.frames_thwc, pictures)
    np.testing.assert_allclose(frames.pts_seconds, starts[:-1] / 1000)
    backwards = reader.read(path, [starts[9] / 1000, starts[2] / 1000])
    seen = backwards.frames_thwc[backwards.frame_of_time]
    np.testing.assert_array_equal(seen, [pictures[9], pictures[2]])
    with pytest.raises(UsageError, match="times_seconds"):
        reader.read(path, [starts[-1] / 1000 + 1])


def test_what_is_transparent_is_white(tmp_path: Path, reader: VideoReader) -> None:
    path = tmp_path / "clear.webp"
    clear, half = Image.new("RGBA", (64, 64), (200, 0, 0, 0)), Image.new("RGBA", (64, 64), (0, 0, 0, 128))
    clear.save(path, save_all=True, append_images=[half], duration=50, lossless=True, minimize_size=False)
    frames = reader.read(path, [0.0, 0.06]).frames_thwc
    assert (frames[0] == 255).all()
    assert 120 <= frames[1].min() <= frames[1].max() <= 130


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (DecodeLimits(max_pixels=1000), "too_large"),
        (DecodeLimits(max_frames=5), "too_long"),
        (DecodeLimits(max_duration_seconds=0.3), "too_long"),
        (DecodeLimits(max_bytes=100), "too_large"),
    ],
)
def test_limits_hold(tmp_path: Path, limits: DecodeLimits, code: str) -> None:
    path = tmp_path / "animation.webp"
    save(path)
    with VideoReader(limits=limits) as reader, pytest.raises(VideoError) as caught:
        reader.probe(path)
    assert caught.value.code == code


def code_of(reader: VideoReader, path: Path) -> str | None:
    try:
        reader.read(path, [0.0, 0.1])
    except VideoError as error:
        return error.code
    return None


def test_damage_has_a_code(tmp_path: Path, reader: VideoReader) -> None:
    path = tmp_path / "animation.webp"
    save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match="damaged or cut off") as caught:
        reader.probe(path)
    assert caught.value.code == "corrupt"
    path.write_bytes(b"RIFF\x0c\0\0\0WEBPVP8X\0\0\0\0")
    assert code_of(reader, path) == "corrupt"
    random = np.random.default_rng(0)
    codes = set()
    for _ in range(40):
        wrong = bytearray(data)
        for position in random.integers(12, len(data), 8):
            wrong[position] = random.integers(256)
        path.write_bytes(wrong)
        with contextlib.suppress(UsageError):  # shorter than 0.1 s now
            codes.add(code_of(reader, path))
    assert codes <= {None, "corrupt", "not_a_video", "too_large", "too_long"}


def test_decord_says_that_it_cannot(tmp_path: Path) -> None:
    save(tmp_path / "animation.webp")
    with VideoReader(decoder="decord") as reader, pytest.raises(VideoError, match="it does not know WebP") as caught:
        reader.read(tmp_path / "animation.webp", [0.0])
    assert caught.value.code == "unsupported_codec"
