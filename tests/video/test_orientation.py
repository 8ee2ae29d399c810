"""Pictures are upright whatever says that they have to be turned: container, SEI or EXIF."""

from __future__ import annotations

import io
import math
import struct
from pathlib import Path

import numbered_clips
import numpy as np
import pytest
from PIL import Image

from nonlocal_video.errors import VideoError
from nonlocal_video.video import VideoInfo, VideoReader

pytestmark = pytest.mark.slow

EXIF_ORIENTATION, EXIF_MAKE = 274, 271
# EXIF's orientation: what makes the stored picture upright.
EXIF_UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, :, ::-1],
    3: lambda stored: stored[:, ::-1, ::-1],
    4: lambda stored: stored[:, ::-1],
    5: lambda stored: stored.swapaxes(1, 2),
    6: lambda stored: np.rot90(stored, -1, (1, 2)),
    7: lambda stored: stored[:, ::-1, ::-1].swapaxes(1, 2),
    8: lambda stored: np.rot90(stored, 1, (1, 2)),
}
SEI = {
    "rotate=90": lambda stored: np.rot90(stored, 1, (1, 2)),  # counter-clockwise
    "rotate=180": lambda stored: stored[:, ::-1, ::-1],
    "rotate=270": lambda stored: np.rot90(stored, -1, (1, 2)),
    "flip=horizontal": lambda stored: stored[:, :, ::-1],
    "flip=vertical": lambda stored: stored[:, ::-1],
}


def read_all(reader: VideoReader, path: Path) -> tuple[np.ndarray, VideoInfo]:
    info = reader.probe(path)
    frames = reader.read(path, np.linspace(0, info.duration_seconds, 20 * info.num_frames).tolist())
    assert frames.info == info
    return frames.frames_thwc, info


def stored_frames(path: Path) -> np.ndarray:
    output = ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = numbered_clips.ffmpeg("-noautorotate", "-i", str(path), *output)
    return np.frombuffer(raw, np.uint8).reshape(-1, numbered_clips.HEIGHT, numbered_clips.WIDTH, 3)


def with_matrix(clips: Path, path: Path, a: float, b: float, c: float, d: float) -> Path:
    data = bytearray((clips / "h264.mp4").read_bytes())
    start = data.index(b"tkhd") + 44
    values = (*(int(v * 65536) for v in (a, b)), 0, *(int(v * 65536) for v in (c, d)), 0, 0, 0, 1 << 30)
    data[start : start + 36] = struct.pack(">9i", *values)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize("turn", SEI)
def test_h264_says_it_itself(clips: Path, tmp_path: Path, reader: VideoReader, turn: str, kind: str) -> None:
    path = tmp_path / f"sei.{kind}"
    insert = f"h264_metadata=display_orientation=insert:{turn}"
    numbered_clips.ffmpeg("-i", str(clips / "h264.mp4"), "-c", "copy", "-bsf:v", insert, str(path))
    shown, info = read_all(reader, path)
    expected = SEI[turn](stored_frames(path))
    assert (info.decoder, info.height, info.width) == ("pyav", *expected.shape[1:3])
    assert np.abs(shown.astype(np.int16) - expected).mean() < 0.05
    # A frame that is sought, not reached, is turned as well.
    late = reader.read(path, [info.duration_seconds]).frames_thwc
    np.testing.assert_array_equal(late[0], shown[-1])


def hevc_display_orientation(*, flip: str = "00", quarter_turns: int = 0) -> bytes:
    """A unit with the message of H.265, D.2.17: not cancelled, flips, turn counter-clockwise, until further notice."""
    bits = "0" + flip + format(quarter_turns << 14, "016b") + "1"
    bits = (bits + "1").ljust(24, "0")
    message = bytes([47, 3]) + int(bits, 2).to_bytes(3, "big") + b"\x80"
    return b"\0\0\1" + bytes([39 << 1, 1]) + message.replace(b"\0\0", b"\0\0\3")


@pytest.mark.parametrize("kind", ["hevc", "mp4"])
@pytest.mark.parametrize(
    ("message", "turn"),
    [
        ({"quarter_turns": 1}, "rotate=90"),
        ({"quarter_turns": 2}, "rotate=180"),
        ({"quarter_turns": 3}, "rotate=270"),
        ({"flip": "10"}, "flip=horizontal"),
        ({"flip": "01"}, "flip=vertical"),
    ],
)
def test_hevc_says_it_itself(
    clips: Path, tmp_path: Path, reader: VideoReader, message: dict[str, object], turn: str, kind: str
) -> None:
    numbered_clips.ffmpeg("-i", str(clips / "hevc.mp4"), "-c", "copy", "-f", "hevc", str(tmp_path / "bare"))
    first, *units = (tmp_path / "bare").read_bytes().split(b"\0\0\1")
    is_keyframe = [unit[0] >> 1 & 63 in (19, 20, 21) for unit in units]
    added = [hevc_display_orientation(**message) if is_key else b"" for is_key in is_keyframe]
    told = first + b"".join(sei + b"\0\0\1" + unit for sei, unit in zip(added, units, strict=True))
    (tmp_path / "told.hevc").write_bytes(told)
    path = tmp_path / f"told.{kind}"
    if kind != "hevc":
        numbered_clips.ffmpeg("-i", str(tmp_path / "told.hevc"), "-c", "copy", str(path))
    shown, info = read_all(reader, path)
    expected = SEI[turn](stored_frames(path))
    assert (info.decoder, info.height, info.width) == ("pyav", *expected.shape[1:3])
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(np.int16) - expected).mean() < 0.05


@pytest.mark.parametrize("orientation", EXIF_UPRIGHT)
def test_cameras_say_it_in_exif(tmp_path: Path, reader: VideoReader, orientation: int) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION], exif[EXIF_MAKE] = orientation, "a camera"
    photos = []
    for number in range(6):
        buffer = io.BytesIO()
        Image.fromarray(numbered_clips.picture(number)).save(buffer, "JPEG", quality=95, exif=exif)
        photos.append(buffer.getvalue())
    path = tmp_path / "lapse.avi"
    numbered_clips.ffmpeg("-f", "mjpeg", "-i", "-", "-c", "copy", str(path), feed=b"".join(photos))
    shown, info = read_all(reader, path)
    expected = EXIF_UPRIGHT[orientation](stored_frames(path))
    assert info.num_frames == 6
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(np.int16) - expected).mean() < 0.05


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("kind", ["mp4", "mov"])
def test_decord_never_turns_pictures(clips: Path, readers: dict[str, VideoReader], degrees: int, kind: str) -> None:
    path = clips / f"h264_rotated_{degrees}.{kind}"
    assert readers["auto"].read(path, [0.0]).info.decoder == "pyav"
    decord = readers["decord"]
    for ask in (decord.probe, lambda path: decord.read(path, [0.0])):
        with pytest.raises(VideoError, match=r"it rotates pictures wrongly.*let PyAV decode it") as caught:
            ask(path)
        assert caught.value.code == "unsupported_codec"


@pytest.mark.parametrize(("degrees", "shown"), [(30, 0), (80, 90), (100, 90), (200, 180), (-60, 270)])
def test_turns_between_quarters_are_said(
    clips: Path, tmp_path: Path, reader: VideoReader, degrees: int, shown: int
) -> None:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    path = with_matrix(clips, tmp_path / "tilted.mp4", cosine, sine, -sine, cosine)
    frames = reader.read(path, [0.5])
    note = f"a rotation by {degrees % 360} degrees; it is shown with the nearest quarter turn, {shown} degrees"
    assert any(note in text for text in frames.info.notes)
    assert (frames.info.decoder, frames.info.rotation_degrees) == ("pyav", shown)
    plain = reader.read(clips / "h264.mp4", [0.5]).frames_thwc[0]
    np.testing.assert_array_equal(frames.frames_thwc[0], np.rot90(plain, -shown // 90))


@pytest.mark.parametrize("matrix", [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 1), (1, 1, 1, 1)])
def test_a_matrix_that_leaves_nothing_is_ignored(
    clips: Path, tmp_path: Path, reader: VideoReader, matrix: tuple[float, float, float, float]
) -> None:
    path = with_matrix(clips, tmp_path / "nothing.mp4", *matrix)
    frames = reader.read(path, [0.5])
    np.testing.assert_array_equal(frames.frames_thwc, reader.read(clips / "h264.mp4", [0.5]).frames_thwc)
    assert any("display matrix leaves nothing of the picture" in note for note in frames.info.notes)
