"""Conversion of decoded frames to pictures as they are shown: upright, RGB, of one size, in SDR colours."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av
import av.filter
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from nonlocal_video.video._hdr import HdrColours, ToneMapper, hdr_colours
from nonlocal_video.video._orientation import DisplayMatrixReader, Orientation
from nonlocal_video.video._presentation import Presentation, size_note
from nonlocal_video.video._source import Source, map_error


@dataclass(frozen=True)
class _Conversion:
    """Parameters of a filter graph."""

    stored_width: int
    stored_height: int
    pixel_format: str
    colorspace: int
    color_range: int
    first_size: tuple[int, int]  # stored width and height of the stream's first picture
    width: int  # before the picture is turned
    height: int
    hdr: HdrColours | None


class PictureConverter:
    """Converter of frames with the filters of the ffmpeg program, so that the pixels are the same.

    PyAV's own `reformat` interpolates the colours of 10-bit and of interlaced video differently.
    """

    def __init__(self, source: Source, presentation: Presentation, time_base: Fraction, notes: list[str]) -> None:
        """Create a converter.

        Args:
            source: The file, for messages.
            presentation: How its frames are shown.
            time_base: Time base of the frames.
            notes: List to which sentences for the user are added.
        """
        self._source = source
        self._presentation = presentation
        self._time_base = time_base
        self._matrices = DisplayMatrixReader()
        self._orientation = presentation.orientation
        self._last: tuple[_Conversion, _Graph] | None = None
        self._notes = notes

    def follow(self, frame: VideoFrame) -> None:
        """Register a frame that is not shown: its orientation holds until a frame brings another."""
        matrix = self._matrices.read(frame)
        if matrix is not None:
            self._orientation = Orientation.from_display_matrix(matrix)

    def convert(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Convert a frame to its picture (height, width, 3).

        Raises:
            VideoError: If FFmpeg cannot convert it.
        """
        self.follow(frame)
        shown = self._presentation
        if (frame.width, frame.height) != (shown.stored_width, shown.stored_height):
            self._note(size_note(shown.width, shown.height))
        if self._orientation != shown.orientation:
            self._note("The orientation changes during the video: each frame is shown upright at the first one's size.")
        swaps_sides = self._orientation.swaps_sides
        conversion = _Conversion(
            stored_width=frame.width,
            stored_height=frame.height,
            pixel_format=frame.format.name,
            colorspace=int(frame.colorspace),
            color_range=int(frame.color_range),
            first_size=(shown.stored_width, shown.stored_height),
            width=shown.height if swaps_sides else shown.width,
            height=shown.width if swaps_sides else shown.height,
            hdr=hdr_colours(frame, shown.stored_as.transfer, shown.stored_as.primaries),
        )
        if conversion.hdr is not None:
            self._note(conversion.hdr.note)
        try:
            if self._last is None or self._last[0] != conversion:
                self._last = conversion, _Graph(frame, conversion, self._time_base)
            picture = self._last[1].picture(frame)
        except av.FFmpegError as error:
            raise map_error(error, self._source.name, "converting its colours") from None
        return self._orientation.upright(picture)

    def _note(self, note: str) -> None:
        if note not in self._notes:
            self._notes.append(note)


class _Graph:
    """Filter graph from stored frames to RGB at the shown size, before rotation."""

    def __init__(self, frame: VideoFrame, conversion: _Conversion, time_base: Fraction) -> None:
        self._graph = av.filter.Graph()
        self._tone_mapper = None if conversion.hdr is None else ToneMapper(conversion.hdr)
        size_and_format: Any = {"width": frame.width, "height": frame.height, "format": frame.format}
        source = self._graph.add_buffer(**size_and_format, time_base=time_base)
        steps = [source]
        if conversion.first_size != (conversion.stored_width, conversion.stored_height):
            # To the first picture's size before the colours, as the ffmpeg program does: in one step white becomes
            # grey.
            width, height = conversion.first_size
            steps.append(self._graph.add("scale", f"threads=1:width={width}:height={height}"))
            steps.append(self._graph.add("format", conversion.pixel_format))
        arguments = "threads=1"
        if conversion.first_size != (conversion.width, conversion.height):
            arguments += f":width={conversion.width}:height={conversion.height}"
        if conversion.hdr is not None and not conversion.hdr.matrix_is_known:
            arguments += ":in_color_matrix=bt2020"
        steps += [
            self._graph.add("scale", arguments),
            self._graph.add("format", "rgb24" if conversion.hdr is None else "gbrp16le"),
            self._graph.add("buffersink"),
        ]
        self._graph.link_nodes(*steps)
        self._graph.configure()

    def picture(self, frame: VideoFrame) -> NDArray[np.uint8]:
        self._graph.vpush(frame)
        scaled = self._graph.vpull()
        if self._tone_mapper is not None:
            return self._tone_mapper.map(scaled)
        return cast("NDArray[np.uint8]", scaled.to_ndarray())
