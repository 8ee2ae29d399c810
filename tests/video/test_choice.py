from __future__ import annotations

import re
import struct
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from absent import absent

from nonlocal_video.video import decoder_table
from nonlocal_video.video._choice import choose
from nonlocal_video.video._orientation import Orientation


@pytest.mark.parametrize(
    ("container", "codec", "decoder"),
    [
        ("mov", "h264", "decord"),
        ("matroska", "h264", "decord"),
        ("mpegts", "h264", "pyav"),
        ("avi", "h264", "pyav"),
        ("flv", "h264", "pyav"),
        ("mov", "hevc", "pyav"),
        ("avi", "mpeg4", "pyav"),
        ("mov", "mpeg4", "pyav"),
        ("matroska", "vp9", "pyav"),
        ("mov", "av1", "pyav"),
        ("gif", "gif", "pyav"),
    ],
)
def test_decord_gets_only_what_it_is_exact_for(container: str, codec: str, decoder: str) -> None:
    row = choose(container, codec, has_edit_list=False, is_plain=True)
    assert row.decoder == decoder
    assert row.reason
    assert choose(container, codec, has_edit_list=True, is_plain=True).decoder == "pyav"
    assert choose(container, codec, has_edit_list=False, is_plain=False).decoder == "pyav"


@pytest.mark.skipif(sys.platform != "linux", reason="wheels of other systems name their libraries otherwise")
def test_the_ffmpeg_in_decords_wheel_is_the_one_that_is_written_down() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text("utf-8")
    assert "decord's wheel carries FFmpeg 4.1" in page
    try:
        files = metadata.files("decord") or []
    except metadata.PackageNotFoundError:
        absent("no decord")
    libraries = [file.name for file in files if re.match(r"libavcodec.*\.so\.", file.name)]
    assert libraries
    assert all(".so.58.35." in name for name in libraries), "the number of FFmpeg 4.1's libavcodec"


def test_the_last_row_fits_everything() -> None:
    assert (decoder_table()[-1].containers, decoder_table()[-1].codecs) == ((), ())
    assert sum(row.decoder == "decord" for row in decoder_table()) == 1


# Where the top left pixel of a picture goes, by QuickTime's matrices as cameras write them.
@pytest.mark.parametrize(
    ("a", "b", "c", "d", "expected"),
    [
        (1, 0, 0, 1, [[1, 2], [3, 4]]),
        (0, 1, -1, 0, [[3, 1], [4, 2]]),  # a quarter turn clockwise
        (-1, 0, 0, -1, [[4, 3], [2, 1]]),
        (0, -1, 1, 0, [[2, 4], [1, 3]]),
        (-1, 0, 0, 1, [[2, 1], [4, 3]]),  # mirrored left to right
        (1, 0, 0, -1, [[3, 4], [1, 2]]),  # top to bottom
        (0, 1, 1, 0, [[1, 3], [2, 4]]),  # transposed
        (0, -1, -1, 0, [[4, 2], [3, 1]]),
    ],
)
def test_every_matrix_makes_the_picture_upright(a: int, b: int, c: int, d: int, expected: list[list[int]]) -> None:
    one = 1 << 16
    matrix = struct.pack("=9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    picture = np.array([[1, 2], [3, 4]], np.uint8)[:, :, None].repeat(3, axis=2)
    upright = Orientation.from_display_matrix(matrix).upright(picture)
    np.testing.assert_array_equal(upright[:, :, 0], expected)


def test_odd_turns_are_rounded() -> None:
    cosine, sine = int(np.cos(np.deg2rad(80)) * 65536), int(np.sin(np.deg2rad(80)) * 65536)
    matrix = struct.pack("=9i", cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 30)
    assert Orientation.from_display_matrix(matrix) == Orientation(clockwise_degrees=90)
