"""Plot of the confusion matrix, readable with 6 classes and with 400."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_MAX_WITH_NUMBERS = 40
"""Largest number of classes at which every cell shows its count."""
_CELL_INCHES = (0.32, 0.1)
"""Side of a cell with and without numbers: the line height of the class names, plus padding."""
_FONT_POINTS = (9, 6)
_BAR_INCHES = 2.2
_DOTS_PER_INCH = 110
_SHAPED = (
    "ARABIC", "SYRIAC", "THAANA", "NKO", "HEBREW", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL",
    "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "TIBETAN", "MYANMAR", "KHMER", "MONGOLIAN",
)  # fmt: skip
"""Scripts with joining, reordered or right-to-left letters, which not every matplotlib can lay out."""


def draw_confusion(
    counts: NDArray[np.int64],
    true_labels: Sequence[str],
    answer_labels: Sequence[str],
    title: str,
    path: Path | IO[bytes],
) -> None:
    """Draw a confusion matrix as a PNG.

    A class name that cannot be drawn, as no font on this machine has its letters or they need complex layout, is shown
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
    families = _families("".join(answer_labels) + title)
    answers = [name if _can_be_drawn(name) else f"#{number}" for number, name in enumerate(answer_labels, start=1)]
    shown = dict(zip(answer_labels, answers, strict=True))
    title = "".join(character if _can_be_drawn(character) else "?" for character in title)
    numbered = sum(one != name for name, one in shown.items())
    if numbered:
        classes = f"{numbered} of {num_columns} names"
        title += (
            f"\n#n is the n-th class in the first line of confusion.csv: {classes} cannot be drawn with the fonts here"
        )
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


def _can_be_drawn(name: str) -> bool:
    """Return whether matplotlib can draw a name with the fonts of this machine."""
    return all(
        character.isprintable() and any(ord(character) in letters for letters in _letters().values())
        for character in name
    ) and not any(_is_shaped(character) for character in name)


def _is_shaped(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_SHAPED)


def _families(text: str) -> list[str]:
    """Return font families that cover the letters of a text, matplotlib's own first."""
    wanted = {ord(character) for character in text}
    families: list[str] = []
    for family, letters in _letters().items():
        if not families or wanted & letters:
            families.append(family)
            wanted -= letters
    return families


@lru_cache
def _letters() -> dict[str, frozenset[int]]:
    """Return the code points of each font family, matplotlib's own first."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    own = font_manager.findfont("DejaVu Sans")
    found: dict[str, frozenset[int]] = {}
    fonts = [
        font for font in font_manager.fontManager.ttflist if font.style == "normal" and font.weight in (400, "normal")
    ]
    for font in sorted(fonts, key=lambda font: (font.fname != own, font.name, font.fname)):
        if font.name in found or "last resort" in font.name.casefold():  # draws a box for every letter
            continue
        try:
            # The file that matplotlib chooses for this family.
            found[font.name] = frozenset(FT2Font(font_manager.findfont(font.name)).get_charmap())
        except (OSError, RuntimeError, ValueError):  # the font is damaged, or was uninstalled meanwhile
            continue
    return found
