"""One map over the sampled frames of a clip: what was measured, on which cells, and where these lie."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.attention.geometry import CellGrid
from nonlocal_video.attention.overlay import draw
from nonlocal_video.errors import UsageError
from nonlocal_video.notebook import FRAMES_IN_STRIP, card, heading, strip
from nonlocal_video.video.transforms import SpatialView

Method = Literal["attention", "query", "evidence"]


@dataclass(frozen=True)
class QueryPoint:
    """A point of the clip: seconds from its beginning, and fractions of the frame's width and height."""

    seconds: float
    x: float
    y: float

    def __post_init__(self) -> None:
        if not (0 <= self.x <= 1 and 0 <= self.y <= 1):
            raise UsageError(
                f"query x = {self.x}, y = {self.y} should be fractions of the frame's width and height, 0 to 1."
            )
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise UsageError(f"query seconds = {self.seconds} should be a number, 0 or above.")

    @classmethod
    def of(cls, values: Sequence[float]) -> QueryPoint:
        """(seconds, x, y) as a point.

        Raises:
            UsageError: These are not three numbers, or not of a point.
        """
        try:
            seconds, x, y = (float(value) for value in values)
        except (TypeError, ValueError):
            raise UsageError(f"query = {values!r} should be (seconds, x, y), three numbers.") from None
        return cls(seconds, x, y)


@dataclass(frozen=True)
class Target:
    """A place of the clip and the value that a map has there."""

    index: int
    """Which of the T sampled frames it lies in."""
    seconds: float
    x: float
    """Fraction of the frame's width; `y` of its height."""
    y: float
    value: float


@dataclass(frozen=True, repr=False)
class AttentionMaps:
    """A value for every pixel of every sampled frame, kept on the cells it was computed for."""

    method: Method
    """attention: attention received in a non-local block; query: what a point attends to; evidence: class evidence."""
    quantity: str
    """What the values are, in words and units."""
    layer: str
    cells: NDArray[np.float32]  # (T', H', W')
    grid: CellGrid
    place: SpatialView
    """Where the network's square input lies in the frame."""
    frames: Sequence[NDArray[np.uint8]]
    """The distinct frames, upright RGB (height, width, 3)."""
    frame_of_time: NDArray[np.int64]  # (T,) -> frames
    seconds: NDArray[np.float64]  # (T,) time of each sampled frame, from the beginning of the file
    film_seconds: float
    """How long the sampled frames last: the length of the view, so that a film of them plays as fast as the clip."""
    caption: str = ""
    query: QueryPoint | None = None
    query_index: int | None = None
    """Which of the T sampled frames the query lies in."""

    def __post_init__(self) -> None:
        if self.cells.shape != self.grid.size:
            raise ValueError(f"{self.cells.shape = } should be the grid's {self.grid.size}.")
        if not len(self.frame_of_time) == len(self.seconds):
            raise ValueError(f"{len(self.frame_of_time) = } should be {len(self.seconds) = }.")

    def __repr__(self) -> str:
        return f"AttentionMaps({self.method}, {self.layer}, cells={self.cells.shape}, frames={len(self)})"

    def _repr_html_(self) -> str:
        """Show some of the overlays side by side in a notebook."""
        chosen = spaced_frames(self.frame_of_time, FRAMES_IN_STRIP)
        if self.query_index is not None:  # the frame with the marked point is always one of them
            chosen = sorted({*chosen, self.query_index})
        overlays = [self.drawn(index) for index in chosen]
        title = f"{self.method} at {self.layer}"
        return card(
            heading(title, f"{self.caption}. {self.quantity}".removeprefix(". ")),
            strip(overlays, [float(self.seconds[index]) for index in chosen]),
        )

    def __len__(self) -> int:
        """Number of sampled frames, T."""
        return len(self.frame_of_time)

    def frame(self, index: int) -> NDArray[np.uint8]:
        """The sampled frame `index`, (height, width, 3)."""
        return self.frames[self.frame_of_time[index]]

    def frame_map(self, index: int) -> NDArray[np.float32]:
        """(height, width): the values on the pixels of sampled frame `index`; NaN where the network did not look."""
        height, width = self.frame(index).shape[:2]
        in_time = self.grid.interpolation(0, np.array([float(index)]))[0]  # (T',)
        rows, inside_rows = self._pixels(1, height)
        columns, inside_columns = self._pixels(2, width)
        cells_hw = np.tensordot(in_time, self.cells, axes=1)
        values = rows @ cells_hw @ columns.T
        values[~inside_rows] = np.nan
        values[:, ~inside_columns] = np.nan
        return values

    def maps(self) -> Iterator[NDArray[np.float32]]:
        """`frame_map` of every sampled frame in turn."""
        return (self.frame_map(index) for index in range(len(self)))

    def drawn(self, index: int, *, lines: int = 24) -> NDArray[np.uint8]:
        """Draw sampled frame `index` with its map, its time, the caption, and the query point if it lies in this frame.

        Text is so large that `lines` of it would fill the frame's height.

        Returns:
            (height, width, 3) RGB.
        """
        return draw(
            self.frame(index),
            self.frame_map(index),
            value_range=self.value_range(),
            text=f"{self.seconds[index]:.2f} s  {self.caption}".rstrip(),
            point=(self.query.x, self.query.y) if self.query is not None and index == self.query_index else None,
            lines=lines,
        )

    def strongest(self, count: int) -> list[Target]:
        """The cells with the greatest values, best first, none a neighbour of a better one or of the query's cell."""
        values = self.cells.astype(np.float64)
        if self.query is not None and self.query_index is not None:
            y, x = self.place.frame_to_input(
                self.query.y * self.place.frame_height, self.query.x * self.place.frame_width
            )
            coordinates = (float(self.query_index), y - 0.5, x - 0.5)
            _take_out(values, [self.grid.nearest(axis, place) for axis, place in enumerate(coordinates)])
        found = []
        for _ in range(count):
            cell = [int(index) for index in np.unravel_index(int(np.argmax(values)), values.shape)]
            if values[tuple(cell)] <= 0:
                break
            found.append(self._target(cell))
            _take_out(values, cell)
        return found

    @property
    def entropy_nats(self) -> float | None:
        """Entropy of the attention over the M cells, 0 to `maximum_entropy_nats`; None for what is no distribution."""
        shares = self._shares()
        if shares is None:
            return None
        seen = shares[shares > 0]
        return float(-(seen * np.log(seen)).sum())

    @property
    def maximum_entropy_nats(self) -> float:
        """ln M: the same weight on every cell."""
        return float(np.log(self.cells.size))

    @property
    def temporal_spread_seconds(self) -> float | None:
        """Standard deviation of the time that attention goes to, in seconds; None for what is no distribution."""
        shares = self._shares()
        return None if shares is None else self._deviation(shares.sum(axis=(1, 2)))

    @property
    def even_temporal_spread_seconds(self) -> float:
        """What `temporal_spread_seconds` is for the same weight on every cell."""
        return self._deviation(np.full(self.cells.shape[0], 1 / self.cells.shape[0]))

    def value_range(self) -> tuple[float, float]:
        """What overlays show as nothing and as full: 0 and the 99.5th percentile of the positive part of the cells."""
        top = float(np.quantile(np.maximum(self.cells, 0), 0.995))
        return 0.0, top if top > 0 else float(max(self.cells.max(), 1e-12))

    def save_overlay(self, path: str | os.PathLike[str], *, frames_per_second: float | None = None) -> Path:
        """Write the frames with their maps over them as an H.264 video that browsers play.

        It plays as fast as the clip and lasts as long as the view, whatever the clip's rate and however uneven it is:
        the network sees pictures at equal steps, and each is shown for one of them. A clip that is shorter than the
        view is shown as the network saw it: again and again, or held at its last picture, for the view's length;
        spread over it, for its own.

        Args:
            path: The file, ending in .mp4.
            frames_per_second: Playing speed; None is the speed of the clip.
        """
        from nonlocal_video.video.encode import write_video

        if frames_per_second is None:
            frames_per_second = len(self) / self.film_seconds
        write_video(path, map(self.drawn, range(len(self))), fps=frames_per_second)
        return Path(path)

    def save_frames(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write every overlay frame as `NNN_SECONDSs.png` and return the paths; such files of an earlier map go."""
        from PIL import Image

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob("[0-9][0-9][0-9]_*s.png"):
            earlier.unlink()
        paths = []
        for index, picture in enumerate(map(self.drawn, range(len(self)))):
            paths.append(folder / f"{index:03d}_{self.seconds[index]:.3f}s.png")
            Image.fromarray(picture).save(paths[-1])
        return paths

    def save_arrays(self, path: str | os.PathLike[str]) -> Path:
        """Write an .npz: `maps` (T, height, width) float16, `seconds` (T,), `cells` (T', H', W'), `stride`, `offset`.

        The maps are written frame by frame, since all of them at full size may not fit into memory.
        """
        path = Path(path)
        height, width = self.frame(0).shape[:2]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open("maps.npy", "w", force_zip64=True) as stream:
                header = {"descr": "<f2", "fortran_order": False, "shape": (len(self), height, width)}
                np.lib.format.write_array_header_1_0(stream, header)
                for values in self.maps():
                    stream.write(values.astype("<f2").tobytes())
            for name, array in (
                ("seconds", self.seconds),
                ("cells", self.cells),
                ("stride", np.array(self.grid.stride)),
                ("offset", np.array(self.grid.offset)),
            ):
                buffer = io.BytesIO()
                np.save(buffer, array)
                archive.writestr(f"{name}.npy", buffer.getvalue())
        return path

    def _shares(self) -> NDArray[np.float64] | None:
        """Attention as weights that sum to 1; None for class evidence and for kernels without normalised weights."""
        shares = self.cells.astype(np.float64) / self.cells.size
        is_attention = self.method != "evidence" and shares.min() >= 0 and np.isclose(shares.sum(), 1, atol=1e-3)
        return shares if is_attention else None

    def _deviation(self, shares_of_time: NDArray[np.float64]) -> float:
        seconds = self.seconds[[self._frame_of_cell(index) for index in range(self.cells.shape[0])]]
        mean = shares_of_time @ seconds
        return float(np.sqrt(shares_of_time @ (seconds - mean) ** 2))

    def _frame_of_cell(self, time_index: int) -> int:
        """The sampled frame nearest to a cell's centre."""
        return min(max(round(self.grid.centre(0, time_index)), 0), len(self) - 1)

    def _target(self, cell: Sequence[int]) -> Target:
        index = self._frame_of_cell(cell[0])
        y, x = self.place.input_to_frame(self.grid.centre(1, cell[1]) + 0.5, self.grid.centre(2, cell[2]) + 0.5)
        return Target(
            index=index,
            seconds=float(self.seconds[index]),
            x=min(max(x / self.place.frame_width, 0.0), 1.0),
            y=min(max(y / self.place.frame_height, 0.0), 1.0),
            value=float(self.cells[cell[0], cell[1], cell[2]]),
        )

    def _pixels(self, axis: int, length: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Interpolation weights of the frame's rows (axis 1) or columns (axis 2), and which of them the network saw."""
        whole = self.place.frame_height if axis == 1 else self.place.frame_width
        # Positions are continuous, a pixel's centre at + 0.5; the frame may be drawn at another size than its own.
        position = (np.arange(length) + 0.5) * whole / length
        y, x = self.place.frame_to_input(position, position)
        seen = y if axis == 1 else x
        inside = (seen >= 0) & (seen < self.place.size)
        return self.grid.interpolation(axis, seen - 0.5), inside


def spaced_frames(frame_of_time: NDArray[np.int64], count: int) -> list[int]:
    """Up to `count` evenly spaced sampled frames, of which `frame_of_time` (T,) says the frame each of them is.

    A frame that was sampled more than once (a looped clip, a low frame rate) counts once.
    """
    first_of_frame: dict[int, int] = {}
    for index, frame in enumerate(frame_of_time):
        first_of_frame.setdefault(int(frame), index)
    distinct = list(first_of_frame.values())
    count = min(len(distinct), count)
    return [distinct[(position * (len(distinct) - 1)) // max(count - 1, 1)] for position in range(count)]


def _take_out(values: NDArray[np.float64], cell: Sequence[int]) -> None:
    """Let neither a cell nor a neighbour of it be the greatest."""
    values[tuple(slice(max(index - 1, 0), index + 2) for index in cell)] = -np.inf
