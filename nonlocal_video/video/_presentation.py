"""Presentation of a stream's frames, by its first picture and its container."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from av.video.frame import VideoFrame

from nonlocal_video.video._hdr import hdr_colours
from nonlocal_video.video._orientation import DisplayMatrixReader, Orientation, matrix_note
from nonlocal_video.video._shape import shown_size
from nonlocal_video.video._sizes import CodedShape
from nonlocal_video.video._source import Source


@dataclass(frozen=True)
class StoredAs:
    """Properties that a container specifies of a stream's pictures besides their size."""

    pixel_aspect: Fraction | None
    """Width of a pixel divided by its height."""
    transfer: int
    """Transfer characteristics, a code point of ISO/IEC 23091-2."""
    primaries: int
    """Colour primaries, likewise."""


@dataclass(frozen=True)
class Presentation:
    """Presentation of a stream's frames."""

    width: int
    """Width as shown, upright."""
    height: int
    """Height as shown, upright."""
    stored_width: int
    """Width as stored."""
    stored_height: int
    """Height as stored."""
    orientation: Orientation
    """Transform from stored to upright pictures."""
    stored_as: StoredAs
    """The container's specification."""
    notes: tuple[str, ...]
    """Sentences for the user."""
    decord_fault: str | None
    """Reason why decord would show other pictures; None if it would not."""
    changes_size: bool
    """Whether later pictures are known to have another size. decord scales them to the first one's size, too, but not
    to the same pixels as the ffmpeg program."""


def present(source: Source, first: VideoFrame, stored_as: StoredAs, shapes: Sequence[CodedShape]) -> Presentation:
    """Determine how the frames of a stream are shown.

    Args:
        source: The open file.
        first: Its first picture.
        stored_as: Its container's specification.
        shapes: Known shapes of the first picture and of later ones; nothing if all headers agree.

    Raises:
        VideoError: If the pictures are larger than allowed when shown.
    """
    matrix = DisplayMatrixReader().read(first)
    orientation = Orientation() if matrix is None else Orientation.from_display_matrix(matrix)
    turn_note = None if matrix is None else matrix_note(matrix)
    wide, high, shape_note = shown_size(first.width, first.height, stored_as.pixel_aspect)
    if wide * high > source.limits.max_pixels:
        raise source.too_many_pixels(wide, high)
    width, height = (high, wide) if orientation.swaps_sides else (wide, high)
    hdr = hdr_colours(first, stored_as.transfer, stored_as.primaries)
    changes_size = any((shape.width, shape.height) != (first.width, first.height) for shape in shapes)
    notes = (
        turn_note,
        shape_note,
        None if hdr is None else hdr.note,
        size_note(width, height) if changes_size else None,
        _pixel_note(shapes, stored_as.pixel_aspect or Fraction(1)),
    )
    faults = (
        (orientation != Orientation() or turn_note is not None, "it rotates pictures wrongly"),
        ((wide, high) != (first.width, first.height), "it shows pixels as if they were square"),
        (hdr is not None, "it does not tone-map HDR"),
    )
    return Presentation(
        width=width,
        height=height,
        stored_width=first.width,
        stored_height=first.height,
        orientation=orientation,
        stored_as=stored_as,
        notes=tuple(note for note in notes if note is not None),
        decord_fault=next((fault for applies, fault in faults if applies), None),
        changes_size=changes_size,
    )


def size_note(width: int, height: int) -> str:
    """Return a sentence that not all frames have the same size."""
    return f"The picture size changes during the video: all frames are scaled to the first one's, {width} x {height}."


def _pixel_note(shapes: Sequence[CodedShape], pixel_aspect: Fraction) -> str | None:
    """Return a sentence that later pictures are distorted, as only the first one's pixel shape counts.

    Where the container states another shape than the first picture, players use that for all of them.
    """
    if not shapes or shapes[0].pixel_aspect != pixel_aspect:
        return None
    first = shapes[0]
    if all(shape.pixel_aspect == pixel_aspect or shape.looks_like(first) for shape in shapes[1:]):
        return None
    ratio = f"{pixel_aspect.numerator}:{pixel_aspect.denominator}"
    return f"The pixel shape changes during the video: all frames are shown with the first one's, {ratio}."
