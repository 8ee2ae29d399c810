"""Orientation of a frame by its display matrix."""

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
_EXACT_DEGREES = 1.0  # the tolerance of the ffmpeg program, too
_MAX_SIDE_DATA_TYPE = 127  # FFmpeg 8 has 32 types


@dataclass(frozen=True)
class Orientation:
    """Transform from a stored to an upright picture: a horizontal flip, then a clockwise rotation."""

    clockwise_degrees: int = 0
    """Clockwise rotation: 0, 90, 180 or 270."""
    mirrored: bool = False
    """Whether the stored picture is flipped left to right first."""

    @classmethod
    def from_display_matrix(cls, matrix: bytes) -> Orientation:
        """Parse FFmpeg's display matrix: nine native 32-bit integers, (a b u / c d v / x y w).

        A stored point (x, y) is shown at (a x + c y, b x + d y), with y pointing down. A picture stored on its left
        side and shown after a quarter turn clockwise has a = d = 0, b > 0 and c < 0. Rotations by other angles, which
        no camera writes, are rounded to the nearest quarter turn. A singular matrix is ignored. `matrix_note` reports
        both.
        """
        turn = _turn(matrix)
        if turn is None:
            return cls()
        degrees, mirrored = turn
        return cls(clockwise_degrees=round(degrees / 90) % 4 * 90, mirrored=mirrored)

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height are exchanged."""
        return self.clockwise_degrees in (90, 270)

    def upright(self, picture_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return one picture (H, W, 3) upright, as a view."""
        if self.mirrored:
            picture_hwc = picture_hwc[:, ::-1]
        return np.rot90(picture_hwc, k=-self.clockwise_degrees // 90)


def matrix_note(matrix: bytes) -> str | None:
    """Return a sentence if a display matrix cannot be followed exactly; None otherwise."""
    turn = _turn(matrix)
    if turn is None:
        return "The file's display matrix leaves nothing of the picture and is ignored."
    shown = Orientation.from_display_matrix(matrix).clockwise_degrees
    if abs((turn[0] - shown + 180) % 360 - 180) > _EXACT_DEGREES:
        asked = f"The file asks for a rotation by {turn[0] % 360:.0f} degrees"
        return f"{asked}; it is shown with the nearest quarter turn, {shown} degrees."
    return None


class DisplayMatrixReader:
    """Reader of the display matrix of frames with any other side data.

    PyAV refuses to list a frame's side data if it does not know the type of one piece, such as the EXIF of camera
    pictures. A filter removes such pieces, by their numbers, from a reference to the frame.
    """

    def __init__(self) -> None:
        self._graphs: dict[tuple[int, int, str], av.filter.Graph] = {}

    def read(self, frame: VideoFrame) -> bytes | None:
        """Return a frame's display matrix (36 bytes); None if it has none."""
        side_data: Any
        try:
            side_data = frame.side_data
        except ValueError:
            side_data = self._without_unnamed(frame).side_data
        matrix = side_data.get(SideDataType.DISPLAYMATRIX)  # a mapping by type, which annotations do not show
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
    """Return clockwise degrees in (-180, 180], and whether the picture is flipped first; None for a singular matrix."""
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:_MATRIX_BYTES])
    determinant = a * d - b * c
    if determinant == 0:
        return None
    if determinant < 0:  # undo the flip of x, which leaves the rotation
        a, b = -a, -b
    return math.degrees(math.atan2(b, a)), determinant < 0
