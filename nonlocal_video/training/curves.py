"""Plot of a run's metrics: losses, accuracies, learning rate, and the gates of non-local blocks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.io import atomic_write
from nonlocal_video.training.metrics import EPOCH, STEP, MetricsRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACCURACIES = ("top1", "top5", "mean_class")
"""Metrics of any split that are drawn in percent, besides `topK` for any K."""
_WIDTH_INCHES, _PANEL_INCHES, _DOTS_PER_INCH = 8.0, 2.6, 110
_COLOURS = ("#1f77b4", "#d1495b", "#2e933c", "#f2a541", "#7b5ea7", "#8c564b", "#5f6b73", "#17a2b8")
_STYLES = {"train": (0, (4, 2)), "validation": "solid"}


@dataclass(frozen=True)
class _Panel:
    title: str
    columns: tuple[str, ...]
    scale: float = 1.0


def draw_curves(
    rows: Sequence[MetricsRow], path: str | os.PathLike[str], *, title: str, best_step: int | None = None
) -> None:
    """Draw the curves of a run: training dashed, validation solid.

    Args:
        rows: Rows of the run's `metrics.csv`, see `read_metrics`.
        path: Path of the PNG file to write.
        title: Title of the figure.
        best_step: Step of the best weights, marked in every panel.

    Raises:
        UsageError: There are no rows.
        OutputError: The file cannot be written.
    """
    from matplotlib.figure import Figure  # not pyplot, which would choose a window system

    if not rows:
        raise UsageError("There are no metrics to draw; a run has some after its first epoch.")
    panels = _panels(rows)
    figure = Figure(figsize=(_WIDTH_INCHES, _PANEL_INCHES * len(panels)), dpi=_DOTS_PER_INCH, layout="constrained")
    figure.suptitle(title, fontsize=10, x=0.01, ha="left", parse_math=False)
    best = next((row[EPOCH] for row in rows if row[STEP] == best_step), None)
    for axes, panel in zip(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels, strict=True):
        _draw_panel(axes, panel, rows, best)
    axes.set_xlabel("epoch")
    file_path = Path(path)
    try:
        with atomic_write(file_path) as file:
            figure.savefig(file, format="png", metadata={"Software": None})
    except OSError as error:
        raise OutputError(f"{str(path)!r} cannot be written: {error.strerror}. Make room and try again.") from error


def _panels(rows: Sequence[MetricsRow]) -> list[_Panel]:
    """Group the columns by name (see `MetricsWriter`) into panels; columns without a value are left out."""
    columns = [name for name in rows[0] if name not in (STEP, EPOCH) and any(row[name] is not None for row in rows)]
    rates = tuple(name for name in columns if name.startswith("learning_rate"))
    gates = tuple(name for name in columns if name.startswith("gate/"))
    accuracies = tuple(name for name in columns if is_accuracy(name))
    losses = tuple(name for name in columns if "/" in name and name not in (*gates, *accuracies, *rates))
    others = tuple(name for name in columns if name not in (*rates, *gates, *accuracies, *losses))
    panels = [
        _Panel("loss", losses),
        _Panel("accuracy (%)", accuracies, scale=100),
        _Panel("learning rate", rates),
        _Panel("gate of non-local blocks", gates),
        *(_Panel(name, (name,)) for name in others),
    ]
    return [panel for panel in panels if panel.columns]


def _draw_panel(axes: Axes, panel: _Panel, rows: Sequence[MetricsRow], best: float | None) -> None:
    # One colour for a quantity, in training and validation alike.
    quantities = list(dict.fromkeys(name.rpartition("/")[2] for name in panel.columns))
    for name in panel.columns:
        split, _, quantity = name.rpartition("/")
        points = [(row[EPOCH], panel.scale * value) for row in rows if (value := row[name]) is not None]
        axes.plot(
            *zip(*points, strict=True),
            label=name.removeprefix("gate/"),
            color=_COLOURS[quantities.index(quantity) % len(_COLOURS)],
            linestyle=_STYLES.get(split, "solid"),
            marker="o" if len(points) <= 30 else "",
            markersize=3,
            linewidth=1.4,
        )
    if best is not None:
        axes.axvline(best, color="#222222", linewidth=0.8, linestyle=":", label="best weights")
    axes.set_title(panel.title, fontsize=9, loc="left", parse_math=False)
    axes.grid(color="#dddddd", linewidth=0.4)
    axes.tick_params(labelsize=8)
    for text in axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False).get_texts():
        text.set_parse_math(False)


def is_accuracy(name: str) -> bool:
    """Return whether a column of `metrics.csv` is an accuracy."""
    quantity = name.rpartition("/")[2]
    return quantity in ACCURACIES or (quantity.startswith("top") and quantity[3:].isdecimal())
