"""From a frame's display matrix to an upright picture."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from numpy.typing import NDArray

_MATRIX_BYTES = 36
_EXACT_DEGREES = 1.0  # so far the ffmpeg program, too, takes a turn for one by quarters
_MAX_SIDE_DATA_TYPE = 127  # FFmpeg 8 has 32 types


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes upright: mirrored left to right first, then turned clockwise."""

    clockwise_degrees: int = 0
    mirrored: bool = False

    @classmethod
    def from_display_matrix(cls, matrix: bytes) -> Orientation:
        """Read FFmpeg's display matrix: nine native 32-bit integers, (a b u / c d v / x y w).

        A stored point (x, y) is shown at (a x + c y, b x + d y), y pointing down, so a picture stored lying on its left
        side and shown after a quarter turn clockwise has a = d = 0, b > 0 and c < 0. Turns by other than quarters,
        which no camera writes, are rounded to the nearest. A matrix that would make a line or a point of the picture
        turns nothing. `matrix_note` tells of both.
        """
        turn = _turn(matrix)
        if turn is None:
            return cls()
        degrees, mirrored = turn
        return cls(clockwise_degrees=round(degrees / 90) % 4 * 90, mirrored=mirrored)

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height change places."""
        return self.clockwise_degrees in (90, 270)

    def upright(self, picture_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn one picture (H, W, 3); the result is a view."""
        if self.mirrored:
            picture_hwc = picture_hwc[:, ::-1]
        return np.rot90(picture_hwc, k=-self.clockwise_degrees // 90)


def matrix_note(matrix: bytes) -> str | None:
    """Say what a display matrix asks for and does not get, if there is such a thing."""
    turn = _turn(matrix)
    if turn is None:
        return "The file's display matrix cannot be followed (it leaves nothing of the picture): it is ignored."
    shown = Orientation.from_display_matrix(matrix).clockwise_degrees
    if abs((turn[0] - shown + 180) % 360 - 180) > _EXACT_DEGREES:
        asked = f"The file asks for a turn by {turn[0] % 360:.0f} degrees"
        return f"{asked}: it is shown after the nearest turn by quarters, {shown} degrees."
    return None


class DisplayMatrixReader:
    """Finds the display matrix of frames, whatever else they carry.

    PyAV refuses to list a frame's side data if one piece is of a type that it has no name for, such as the EXIF of
    camera pictures; such pieces are taken off a copy of the frame's reference by a filter, by their numbers.
    """

    def __init__(self) -> None:
        self._graphs: dict[tuple[int, int, str], av.filter.Graph] = {}

    def read(self, frame: VideoFrame) -> bytes | None:
        """Return a frame's display matrix (36 bytes), or None if it has none."""
        side_data: Any
        try:
            side_data = frame.side_data
        except ValueError:
            side_data = self._without_unnamed(frame).side_data
        matrix = side_data.get(SideDataType.DISPLAYMATRIX)  # a mapping from the type, which annotations do not say
        if matrix is None or len(content := bytes(matrix)) < _MATRIX_BYTES:
            return None
        return content[:_MATRIX_BYTES]

    def _without_unnamed(self, frame: VideoFrame) -> VideoFrame:
        key = (frame.width, frame.height, frame.format.name)
        if key not in self._graphs:
            self._graphs = {key: _unnamed_remover(frame)}
        graph = self._graphs[key]
        graph.vpush(frame)
        return graph.vpull()


def _unnamed_remover(frame: VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    size_and_format: Any = {"width": frame.width, "height": frame.height, "format": frame.format}
    source = graph.add_buffer(**size_and_format, time_base=Fraction(1, 1000))
    named = {kind.value for kind in SideDataType}
    unnamed = [number for number in range(_MAX_SIDE_DATA_TYPE + 1) if number not in named]
    removers = [graph.add("sidedata", f"mode=delete:type={number}") for number in unnamed]
    graph.link_nodes(source, *removers, graph.add("buffersink"))
    graph.configure()
    return graph


def _turn(matrix: bytes) -> tuple[float, bool] | None:
    """Degrees clockwise, in (-180, 180], and whether the picture is mirrored first; None for a singular matrix."""
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:_MATRIX_BYTES])
    determinant = a * d - b * c
    if determinant == 0:
        return None
    if determinant < 0:  # undo the mirroring of x to be left with the turn
        a, b = -a, -b
    return math.degrees(math.atan2(b, a)), determinant < 0
