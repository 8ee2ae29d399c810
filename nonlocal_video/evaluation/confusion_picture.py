"""The confusion matrix as a picture that can be read with 6 classes and with 400."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

_MAX_WITH_NUMBERS = 40
"""Classes up to which every cell shows its number of clips."""
_CELL_INCHES = (0.32, 0.1)
"""Side of a cell with and without numbers: the height of a line of the names beside it, and some air."""
_FONT_POINTS = (9, 6)
_BAR_INCHES = 2.2
_DOTS_PER_INCH = 110


def draw_confusion(
    counts: NDArray[np.int64],
    true_labels: Sequence[str],
    answer_labels: Sequence[str],
    title: str,
    path: Path | IO[bytes],
) -> None:
    """Draw how each class's clips were answered.

    Args:
        counts: (true classes, answers) clips.
        true_labels: Names of the rows.
        answer_labels: Names of the columns: those of the rows, in their order, then others.
        title: Above the picture.
        path: A PNG, or a file to write one into.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure  # not pyplot, which would choose a window system

    num_rows, num_columns = counts.shape
    crowded = max(num_rows, num_columns) > _MAX_WITH_NUMBERS
    cell, points = _CELL_INCHES[crowded], _FONT_POINTS[crowded]
    # The cells fill the figure; whatever stands beside them is added when it is saved, however long the names are.
    width, height = num_columns * cell, num_rows * cell
    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH)
    axes = figure.add_axes((0, 0, 1, 1))
    shares = counts / counts.sum(axis=1, keepdims=True)
    colours = PowerNorm(0.5, 0, 1)  # so that one clip of fifty is seen
    image = axes.imshow(shares, cmap="Blues", norm=colours, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(num_columns), answer_labels, rotation=90, fontsize=points, parse_math=False)
    axes.set_yticks(range(num_rows), true_labels, fontsize=points, parse_math=False)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(num_columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(num_rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    if num_columns > num_rows:  # behind the line are classes of which there is no clip
        axes.axvline(num_rows - 0.5, color="#d1495b", linewidth=1)
    axes.set_xlabel("answer" + (" (right of the line: classes without clips)" if num_columns > num_rows else ""))
    axes.set_ylabel("true class")
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    if not crowded:
        for row, column in zip(*np.nonzero(counts), strict=True):
            ink = "white" if shares[row, column] > 0.4 else "#222222"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=ink, fontsize=points)
    bar = figure.add_axes((1 + 0.25 / width, 1 - _BAR_INCHES / height, 0.15 / width, _BAR_INCHES / height))
    figure.colorbar(image, cax=bar, label="share of the class's clips", ticks=[0, 0.01, 0.1, 0.25, 0.5, 1])
    figure.savefig(path, metadata={"Software": None}, bbox_inches="tight", pad_inches=0.15)
