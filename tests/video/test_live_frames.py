"""Pictures of a browser and frames of a camera, each decoded in a confined process."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nonlocal_video.errors import VideoError
from nonlocal_video.video import live
from nonlocal_video.video.limits import DecodeLimits
from nonlocal_video.video.live import MAX_PICTURE_BYTES, Camera, PictureReader, camera_device, is_camera

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def encoded(pixels: NDArray[np.uint8], kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def pictures() -> Iterator[PictureReader]:
    reader = PictureReader()
    yield reader
    reader.close()


def test_pictures_are_those_that_pillow_reads(pictures: PictureReader) -> None:
    files = [encoded(NOISE), encoded(NOISE[:, ::-1].copy(), "WEBP")]
    for found, file in zip(pictures.read(files), files, strict=True):
        np.testing.assert_array_equal(found, np.asarray(Image.open(io.BytesIO(file)).convert("RGB")))
    if sys.platform == "linux":
        assert "no other programs" in pictures.confined


@pytest.mark.parametrize(
    ("picture", "code"),
    [
        (b"", "corrupt"),
        (b"\xff\xd8\xff" + b"x" * 100, "corrupt"),
        (encoded(NOISE)[:300], "corrupt"),
        (encoded(NOISE, "PNG"), "corrupt"),
        (encoded(NOISE, "GIF"), "corrupt"),
        (encoded(np.zeros((2500, 2500, 3), np.uint8)), "too_large"),
        (b"0" * (MAX_PICTURE_BYTES + 1), "too_large"),
    ],
)
def test_what_is_no_small_picture_is_refused_and_the_next_one_is_read(
    pictures: PictureReader, picture: bytes, code: str
) -> None:
    with pytest.raises(VideoError) as raised:
        pictures.read([encoded(NOISE), picture, encoded(NOISE)])
    assert raised.value.code == code
    (again,) = pictures.read([encoded(NOISE)])
    assert again.shape == NOISE.shape


def test_a_killed_process_is_replaced(pictures: PictureReader) -> None:
    import os
    import signal

    pictures.read([encoded(NOISE)])
    assert pictures._process is not None
    os.kill(pictures._process.pid, signal.SIGKILL)
    assert pictures.read([encoded(NOISE)])[0].shape == NOISE.shape


def test_a_camera_gives_frames_with_times_and_says_why_it_ends() -> None:
    with Camera("testsrc=size=96x72:rate=10:duration=0.5", input_format="lavfi") as camera:
        frames: list[object] = []
        with pytest.raises(VideoError, match="it gives no more pictures") as raised:
            frames.extend(camera)  # extends before it raises
    assert raised.value.code == "corrupt"
    with Camera("color=c=red:size=64x48:rate=10", input_format="lavfi") as camera:
        stream = iter(camera)
        found = [next(stream) for _ in range(3)]
        if sys.platform == "linux":
            assert "no network" in camera.confined
    assert [seconds for seconds, _ in found] == pytest.approx([0.0, 0.1, 0.2])
    assert found[0][1].shape == (48, 64, 3)
    assert found[0][1][..., 0].mean() > 240
    assert found[0][1][..., 1:].mean() < 15


def test_a_silent_camera_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FIRST_FRAME_SECONDS", 0.3)
    with (
        Camera("color=size=64x48:rate=1,realtime=limit=3600:speed=0.001", input_format="lavfi") as camera,
        pytest.raises(VideoError, match=r"no picture for 0\.3 s"),
    ):
        for _ in camera:
            pass


def test_large_frames_of_a_camera_are_refused() -> None:
    limits = DecodeLimits(max_pixels=1000)
    with (
        Camera("color=size=64x48", input_format="lavfi", limits=limits) as camera,
        pytest.raises(VideoError, match="64 x 48") as raised,
    ):
        next(iter(camera))
    assert raised.value.code == "too_large"


@pytest.mark.skipif(sys.platform != "linux", reason="Video4Linux")
def test_cameras_are_named_by_number_or_device() -> None:
    assert [is_camera(name) for name in ("0", "/dev/video12", "./0", "0.mp4", "/dev/videos", "")] == [
        True, True, False, False, False, False
    ]  # fmt: skip
    assert camera_device("3") == camera_device("/dev/video3") == "/dev/video3"
    with pytest.raises(VideoError, match=r"/dev/video97: there is no such camera \(found: .*--device /dev/video97\.$"):
        Camera("97")
