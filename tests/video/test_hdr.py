"""HDR comes out in the colours that it was made from; what is no HDR stays as it is."""

from __future__ import annotations

from pathlib import Path

import numbered_clips
import numpy as np
import pytest

from nonlocal_video.errors import VideoError
from nonlocal_video.video import VideoReader

pytestmark = pytest.mark.slow

COLOURS = np.array(
    [
        (255, 255, 255),
        (128, 128, 128),
        (40, 40, 40),
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (128, 30, 30),
        (200, 150, 99),
    ],
    dtype=np.uint8,
)
SIDE = 32
TRANSFERS = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
ENCODERS = {
    "yuv444p10le.mkv": "-c:v ffv1",
    "gbrp10le.mkv": "-c:v ffv1",
    "yuv420p10le.mp4": "-c:v libx265 -x265-params log-level=none -tag:v hvc1",
    "yuv420p.mp4": "-c:v libx264 -crf 2",
}


def patches() -> np.ndarray:
    return np.repeat(np.repeat(COLOURS[None], SIDE, axis=1), SIDE, axis=0)


def colours_of(picture: np.ndarray) -> np.ndarray:
    return picture[SIDE // 2, SIDE // 2 :: SIDE]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("transfer", TRANSFERS)
def test_colours_come_back(tmp_path: Path, reader: VideoReader, transfer: str, encoder: str) -> None:
    """FFmpeg's zscale makes the HDR, with paper white at 203 cd/m2; nothing here has to do with it."""
    path, pixels = tmp_path / f"hdr_{encoder}", encoder.split(".")[0]
    matrix, tag, levels = ("gbr", "rgb", "pc") if pixels.startswith("gbr") else ("bt2020nc", "bt2020nc", "tv")
    from_sdr = "pin=bt709:tin=bt709:min=gbr:rin=pc"
    to_hdr = f"zscale={from_sdr}:p=bt2020:t={transfer}:m={matrix}:r={levels}:npl=203,format={pixels}"
    tags = f"-color_primaries bt2020 -color_trc {transfer} -colorspace {tag} -color_range {levels}"
    numbered_clips.encode(path, [patches()] * 3, f"-vf {to_hdr} {ENCODERS[encoder]} {tags}")
    frames = reader.read(path, [0.0, 0.1])
    assert f"The video is HDR ({TRANSFERS[transfer]}): it is tone-mapped to SDR (BT.709)." in frames.info.notes
    assert frames.info.decoder == "pyav"
    found = colours_of(frames.frames_thwc[1]).astype(int)
    # A black channel comes back as the little that 8 or 10 bits of a wider gamut leave of it.
    black = COLOURS == 0
    np.testing.assert_allclose(found[~black], COLOURS[~black], atol=10)
    assert found[black].max() < 60
    np.testing.assert_allclose(found[1:3], COLOURS[1:3], atol=2)  # greys
    if encoder == "yuv420p.mp4":
        with VideoReader(decoder="decord") as decord, pytest.raises(VideoError, match="does not tone-map"):
            decord.read(path, [0.0])


def test_known_points_of_the_standards(tmp_path: Path, reader: VideoReader) -> None:
    """Signals of BT.2408, table 1 (graphics white, 203 cd/m2), and of its greys, stored as they are."""
    for transfer, signals in (("smpte2084", (0.0, 0.58069, 0.62, 1.0)), ("arib-std-b67", (0.0, 0.75, 0.8, 1.0))):
        path = tmp_path / f"{transfer}.mkv"
        grey = np.repeat(np.round(np.array(signals) * 65535).astype("<u2"), SIDE)
        picture = np.repeat(np.repeat(grey[None, :, None], SIDE, axis=0), 3, axis=2)
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", f"{len(grey)}x{SIDE}", "-r", "25", "-i", "-"]
        tags = f"-color_primaries bt2020 -color_trc {transfer} -colorspace rgb -color_range pc"
        numbered_clips.ffmpeg(
            *raw, *f"-c:v ffv1 -pix_fmt gbrp12le {tags}".split(), str(path), feed=picture.tobytes() * 2
        )
        found = colours_of(reader.read(path, [0.0]).frames_thwc[0])
        assert (found[0] == 0).all()
        np.testing.assert_allclose(found[1], 250, atol=1)  # 0.95 ** (1 / 2.4) of 255
        assert (np.diff(found.astype(int), axis=0) > 0).all(), "highlights are pressed together, not cut off"
        assert (found[-1] >= 253).all()


@pytest.mark.parametrize("levels", ["tv", "pc"])
@pytest.mark.parametrize("codec", ["-c:v libx264 -crf 5", "-c:v libx265 -crf 5 -x265-params log-level=none"])
def test_wide_gamut_sdr_is_left_alone(tmp_path: Path, reader: VideoReader, codec: str, levels: str) -> None:
    path = tmp_path / "wide.mp4"
    convert = f"scale=out_color_matrix=bt2020:out_range={levels},format=yuv420p"
    tags = f"-color_primaries bt2020 -color_trc bt2020-10 -colorspace bt2020nc -color_range {levels}"
    numbered_clips.encode(path, [patches()] * 3, f"-vf {convert} {codec} {tags}")
    frames = reader.read(path, [0.0])
    np.testing.assert_allclose(colours_of(frames.frames_thwc[0]), COLOURS, atol=6)
    expected = numbered_clips.pictures(path, [0], SIDE, SIDE * len(COLOURS))
    assert np.abs(frames.frames_thwc.astype(np.int16) - expected).mean() < 0.05
    assert frames.info.notes == ()
