"""One map over the sampled frames of a clip: its values, the cells they belong to, and the cells' positions."""

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
from nonlocal_video.io import atomic_write
from nonlocal_video.notebook import FRAMES_IN_STRIP, card, heading, strip
from nonlocal_video.video.transforms import SpatialView

Method = Literal["attention", "query", "evidence"]


@dataclass(frozen=True)
class QueryPoint:
    """A point of the clip: seconds from its beginning, and fractions of the frame's width and height.

    Raises:
        UsageError: If the fractions are not within 0 to 1, or the seconds are negative.

    Example:
        >>> QueryPoint(seconds=1.5, x=0.5, y=0.4)
        QueryPoint(seconds=1.5, x=0.5, y=0.4)
        >>> QueryPoint.parse((1.5, 0.5, 0.4)).x
        0.5
    """

    seconds: float
    """Time from the beginning of the file."""
    x: float
    """Fraction of the frame's width, from the left."""
    y: float
    """Fraction of the frame's height, from the top."""

    def __post_init__(self) -> None:
        if not (0 <= self.x <= 1 and 0 <= self.y <= 1):
            raise UsageError(
                f"query x = {self.x}, y = {self.y} should be fractions of the frame's width and height, 0 to 1."
            )
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise UsageError(f"query seconds = {self.seconds} should be a number, 0 or above.")

    @classmethod
    def parse(cls, values: Sequence[float]) -> QueryPoint:
        """Create a point from (seconds, x, y).

        Raises:
            UsageError: If the values are not three numbers, or not those of a point.
        """
        try:
            seconds, x, y = (float(value) for value in values)
        except (TypeError, ValueError):
            raise UsageError(f"query = {values!r} should be (seconds, x, y), three numbers.") from None
        return cls(seconds, x, y)


@dataclass(frozen=True)
class Target:
    """A position in the clip, and the value of a map there."""

    index: int
    """Index of its sampled frame, 0 to T - 1."""
    seconds: float
    """Time of that frame."""
    x: float
    """Fraction of the frame's width."""
    y: float
    """Fraction of the frame's height."""
    value: float
    """Value of the map."""


@dataclass(frozen=True, repr=False)
class AttentionMaps:
    """A map with a value for every pixel of every sampled frame, stored on the cells for which it was computed.

    `Recognizer.explain` returns it.

    Example:
        >>> maps = recognizer.explain("clip.mp4")
        >>> maps.frame_map(0).shape
        (240, 320)
        >>> maps.save_overlay("overlay.mp4").name
        'overlay.mp4'
    """

    method: Method
    """Kind of map: attention received in a non-local block, attention of a query point, or class evidence."""
    quantity: str
    """Description of the values, with their unit."""
    layer: str
    """Dotted name of the layer."""
    cells: NDArray[np.float32]
    """Values (T', H', W')."""
    grid: CellGrid
    """Positions of the cells in the network's input."""
    crop: SpatialView
    """Position of the network's square input in the frame."""
    frames: Sequence[NDArray[np.uint8]]
    """Distinct frames, upright RGB (height, width, 3)."""
    frame_of_time: NDArray[np.int64]
    """Index in `frames` of each sampled frame, (T,)."""
    seconds: NDArray[np.float64]
    """Time of each sampled frame, (T,), from the beginning of the file."""
    playback_seconds: float
    """Playback time of all sampled frames: the length of the view, so that an overlay plays as fast as the clip."""
    caption: str = ""
    """Text that overlays show."""
    query: QueryPoint | None = None
    """Query point of the attention; None for other methods."""
    query_index: int | None = None
    """Index of the query's sampled frame."""

    def __post_init__(self) -> None:
        if self.cells.shape != self.grid.size:
            raise ValueError(f"{self.cells.shape = } should be the grid's {self.grid.size}.")
        if not len(self.frame_of_time) == len(self.seconds):
            raise ValueError(f"{len(self.frame_of_time) = } should be {len(self.seconds) = }.")

    def __repr__(self) -> str:
        return f"AttentionMaps({self.method}, {self.layer}, cells={self.cells.shape}, frames={len(self)})"

    def _repr_html_(self) -> str:
        """Show some of the overlays side by side in a notebook."""
        chosen = evenly_spaced_frames(self.frame_of_time, FRAMES_IN_STRIP)
        if self.query_index is not None:  # the frame with the marked point is always one of them
            chosen = sorted({*chosen, self.query_index})
        overlays = [self.draw_frame(index) for index in chosen]
        title = f"{self.method} at {self.layer}"
        return card(
            heading(title, f"{self.caption}. {self.quantity}".removeprefix(". ")),
            strip(overlays, [float(self.seconds[index]) for index in chosen]),
        )

    def __len__(self) -> int:
        """Number of sampled frames, T."""
        return len(self.frame_of_time)

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Return sampled frame `index`, (height, width, 3)."""
        return self.frames[self.frame_of_time[index]]

    def frame_map(self, index: int) -> NDArray[np.float32]:
        """Return the values on the pixels of sampled frame `index`, (height, width); NaN outside the network's crop."""
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
        """Yield `frame_map` of every sampled frame."""
        return (self.frame_map(index) for index in range(len(self)))

    def draw_frame(self, index: int, *, lines: int = 24) -> NDArray[np.uint8]:
        """Draw sampled frame `index` with its map, its time, the caption, and the query point if it is in this frame.

        Args:
            index: Index of the sampled frame.
            lines: Number of lines of text that would fill the frame's height, which sets the size of the text.

        Returns:
            RGB image (height, width, 3).
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
        """Return the cells with the greatest values, best first, without neighbours of a better one or of the query."""
        values = self.cells.astype(np.float64)
        if self.query is not None and self.query_index is not None:
            y, x = self.crop.frame_to_input(self.query.y * self.crop.frame_height, self.query.x * self.crop.frame_width)
            coordinates = (float(self.query_index), y - 0.5, x - 0.5)
            _take_out(values, [self.grid.nearest(axis, coordinate) for axis, coordinate in enumerate(coordinates)])
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
        """Entropy of the attention over the M cells, 0 to `maximum_entropy_nats`; None without a distribution."""
        shares = self._shares()
        if shares is None:
            return None
        seen = shares[shares > 0]
        return float(-(seen * np.log(seen)).sum())

    @property
    def maximum_entropy_nats(self) -> float:
        """Entropy of equal weights on all cells: ln M."""
        return float(np.log(self.cells.size))

    @property
    def temporal_spread_seconds(self) -> float | None:
        """Standard deviation of the attended time, in seconds; None without a distribution."""
        shares = self._shares()
        return None if shares is None else self._deviation(shares.sum(axis=(1, 2)))

    @property
    def even_temporal_spread_seconds(self) -> float:
        """The `temporal_spread_seconds` of equal weights on all cells."""
        return self._deviation(np.full(self.cells.shape[0], 1 / self.cells.shape[0]))

    def value_range(self) -> tuple[float, float]:
        """Values that overlays draw as transparent and as full, the same for all frames of the clip.

        For attention the median of the cells (not below 0) and their 99th percentile, so that each frame shows where it
        is strong and no single cell decides; for class evidence 0 and the 99.5th percentile of what is above 0.
        """
        if self.method == "evidence":
            top = float(np.quantile(np.maximum(self.cells, 0), 0.995))
            return 0.0, top if top > 0 else float(max(self.cells.max(), 1e-12))
        low, top = (float(value) for value in np.quantile(self.cells, (0.5, 0.99)))
        low = max(low, 0.0) if top > 0 else low
        # Few cells above the rest, or none: the strongest is drawn as full, and an even map stays transparent.
        return low, top if top > low else max(float(self.cells.max()), low + max(abs(low), 1.0) * 1e-6)

    def save_overlay(self, path: str | os.PathLike[str], *, frames_per_second: float | None = None) -> Path:
        """Write the frames with their maps over them as an H.264 video that browsers play.

        It plays as fast as the clip and lasts as long as the view, for any and even for a variable frame rate: the
        network samples frames at equal steps, and each is shown for one step. A clip shorter than the view is shown as
        the network saw it: looped, or held at its last frame, for the length of the view; or spread over it, for its
        own length.

        Args:
            path: The file to write, ending in .mp4.
            frames_per_second: Playback rate; None is the speed of the clip.

        Returns:
            The path.

        Raises:
            UsageError: If the path does not end in .mp4.
        """
        from nonlocal_video.video.encode import write_video

        if frames_per_second is None:
            frames_per_second = len(self) / self.playback_seconds
        write_video(path, map(self.draw_frame, range(len(self))), fps=frames_per_second)
        return Path(path)

    def save_frames(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write every overlay frame as `NNN_SECONDSs.png`, replacing those of an earlier map, and return the paths."""
        from PIL import Image

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob("[0-9][0-9][0-9]_*s.png"):
            earlier.unlink()
        paths = []
        for index, picture in enumerate(map(self.draw_frame, range(len(self)))):
            paths.append(folder / f"{index:03d}_{self.seconds[index]:.3f}s.png")
            # Photographs hardly shrink further at higher levels, which take three times as long.
            Image.fromarray(picture).save(paths[-1], compress_level=1)
        return paths

    def save_arrays(self, path: str | os.PathLike[str]) -> Path:
        """Write an .npz: `maps` (T, height, width) float16, `seconds` (T,), `cells` (T', H', W'), `stride`, `offset`.

        The maps are written frame by frame, since all of them at full size may not fit into memory. A link of this name
        is replaced; the file that it leads to stays.
        """
        path = Path(path)
        height, width = self.frame(0).shape[:2]
        with (
            atomic_write(path, sync=False) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
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
        """Return attention as weights that sum to 1; None for class evidence and where a weight is below 0."""
        shares = self.cells.astype(np.float64) / self.cells.size
        is_attention = self.method != "evidence" and shares.min() >= 0 and np.isclose(shares.sum(), 1, atol=1e-3)
        return shares if is_attention else None

    def _deviation(self, shares_of_time: NDArray[np.float64]) -> float:
        seconds = self.seconds[[self._frame_of_cell(index) for index in range(self.cells.shape[0])]]
        mean = shares_of_time @ seconds
        return float(np.sqrt(shares_of_time @ (seconds - mean) ** 2))

    def _frame_of_cell(self, time_index: int) -> int:
        """Return the sampled frame nearest to a cell's centre."""
        return min(max(round(self.grid.centre(0, time_index)), 0), len(self) - 1)

    def _target(self, cell: Sequence[int]) -> Target:
        index = self._frame_of_cell(cell[0])
        y, x = self.crop.input_to_frame(self.grid.centre(1, cell[1]) + 0.5, self.grid.centre(2, cell[2]) + 0.5)
        return Target(
            index=index,
            seconds=float(self.seconds[index]),
            x=min(max(x / self.crop.frame_width, 0.0), 1.0),
            y=min(max(y / self.crop.frame_height, 0.0), 1.0),
            value=float(self.cells[cell[0], cell[1], cell[2]]),
        )

    def _pixels(self, axis: int, length: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return interpolation weights of the frame's rows (axis 1) or columns (axis 2), and which are in the crop."""
        whole = self.crop.frame_height if axis == 1 else self.crop.frame_width
        # Positions are continuous, a pixel's centre at + 0.5. The frame may be drawn at another size than its own.
        position = (np.arange(length) + 0.5) * whole / length
        y, x = self.crop.frame_to_input(position, position)
        seen = y if axis == 1 else x
        inside = (seen >= 0) & (seen < self.crop.size)
        return self.grid.interpolation(axis, seen - 0.5), inside


def evenly_spaced_frames(frame_of_time: NDArray[np.int64], count: int) -> list[int]:
    """Return up to `count` evenly spaced sampled frames; `frame_of_time` (T,) has the distinct frame of each.

    A frame that was sampled more than once (a looped clip, a low frame rate) counts once.
    """
    first_of_frame: dict[int, int] = {}
    for index, frame in enumerate(frame_of_time):
        first_of_frame.setdefault(int(frame), index)
    distinct = list(first_of_frame.values())
    count = min(len(distinct), count)
    return [distinct[(position * (len(distinct) - 1)) // max(count - 1, 1)] for position in range(count)]


def _take_out(values: NDArray[np.float64], cell: Sequence[int]) -> None:
    """Exclude a cell and its neighbours from the maximum."""
    values[tuple(slice(max(index - 1, 0), index + 2) for index in cell)] = -np.inf
