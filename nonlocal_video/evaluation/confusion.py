"""Plot of the confusion matrix, readable with 6 classes and with 400."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.evaluation.fonts import can_be_drawn, families_for, is_extra_missing

_MAX_WITH_NUMBERS = 40
"""Largest number of classes at which every cell shows its count."""
_CELL_INCHES = (0.32, 0.1)
"""Side of a cell with and without numbers: the line height of the class names, plus padding."""
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
    """Draw a confusion matrix as a PNG.

    A class name that cannot be drawn, as no font here has its letters or this matplotlib cannot lay them out, is shown
    as its column number, `#3`; the title refers to the first line of confusion.csv, which lists the names.

    Args:
        counts: Number of clips, (true classes, answers).
        true_labels: Names of the rows.
        answer_labels: Names of the columns: those of the rows in their order, then others.
        title: Title of the figure.
        path: Path of the PNG file, or an open binary file.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure  # not pyplot, which would choose a window system

    num_rows, num_columns = counts.shape
    families = families_for("".join(answer_labels) + title)
    answers = [name if can_be_drawn(name) else f"#{number}" for number, name in enumerate(answer_labels, start=1)]
    shown = dict(zip(answer_labels, answers, strict=True))
    title = "".join(character if can_be_drawn(character) else "?" for character in title)
    numbered = sum(one != name for name, one in shown.items())
    if numbered:
        classes = f"{numbered} of {num_columns} names"
        title += (
            f"\n#n is the n-th class in the first line of confusion.csv: {classes} cannot be drawn with the fonts here"
        )
        if is_extra_missing():
            title += "\nFonts for most scripts: pip install 'nonlocal-video[fonts]'"
    crowded = max(num_rows, num_columns) > _MAX_WITH_NUMBERS
    cell, points = _CELL_INCHES[crowded], _FONT_POINTS[crowded]
    # The cells fill the figure; saving adds the labels around it, however long they are.
    width, height = num_columns * cell, num_rows * cell
    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH)
    axes = figure.add_axes((0, 0, 1, 1))
    shares = counts / counts.sum(axis=1, keepdims=True)
    colours = PowerNorm(0.5, 0, 1)  # so that one clip in fifty is visible
    image = axes.imshow(shares, cmap="Blues", norm=colours, aspect="auto", interpolation="nearest")
    text: dict[str, Any] = {"fontsize": points, "parse_math": False, "family": families}
    axes.set_xticks(range(num_columns), answers, rotation=90, **text)
    axes.set_yticks(range(num_rows), [shown[name] for name in true_labels], **text)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(num_columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(num_rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    if num_columns > num_rows:  # right of the line are classes without clips
        axes.axvline(num_rows - 0.5, color="#d1495b", linewidth=1)
    axes.set_xlabel("answer" + (" (right of the line: classes without clips)" if num_columns > num_rows else ""))
    axes.set_ylabel("true class")
    axes.set_title(title, fontsize=10, loc="left", parse_math=False, family=families)
    if not crowded:
        for row, column in zip(*np.nonzero(counts), strict=True):
            ink = "white" if shares[row, column] > 0.4 else "#222222"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=ink, fontsize=points)
    bar = figure.add_axes((1 + 0.25 / width, 1 - _BAR_INCHES / height, 0.15 / width, _BAR_INCHES / height))
    figure.colorbar(image, cax=bar, label="share of the class's clips", ticks=[0, 0.01, 0.1, 0.25, 0.5, 1])
    figure.savefig(path, metadata={"Software": None}, bbox_inches="tight", pad_inches=0.15)
