"""The picture of a run's metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.training.curves import draw_curves
from nonlocal_video.training.metrics import MetricsRow

ROWS: list[MetricsRow] = [
    {
        "step": 5 * n,
        "epoch": n / 2,
        "train/cross_entropy": 2 - n / 5,
        "validation/cross_entropy": None if n % 2 else 2 - n / 10,
        "validation/top1": None if n % 2 else n / 10,
        "validation/top3": None,
        "learning_rate": 0.1 / (n + 1),
        "gate/layer3.nonlocal1": min(1.0, n / 4),
        "gate/layer4.nonlocal1": min(1.0, n / 2),
        "gradient_norm": 1.0 + n,
    }
    for n in range(9)
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **how: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **how)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def lines_of(figure: Figure) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Panel -> curve -> epochs and values."""
    return {
        axes.get_title(loc="left"): {
            str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()
        }
        for axes in figure.axes
    }


def test_each_quantity_stands_in_its_panel_with_its_numbers(tmp_path: Path, drawn: list[Figure]) -> None:
    path = tmp_path / "curves.png"
    draw_curves(ROWS, path, title="run $x$: 3 classes", best_step=30)
    with Image.open(path) as picture:
        assert picture.width > 600
    panels = lines_of(drawn[0])
    assert list(panels) == ["loss", "accuracy (%)", "learning rate", "gate of non-local blocks", "gradient_norm"]
    best = ([3.0, 3.0], [0, 1])
    assert all(panel.pop("best weights") == best for panel in panels.values())
    assert panels["loss"]["validation/cross_entropy"] == ([0, 1, 2, 3, 4], pytest.approx([2, 1.8, 1.6, 1.4, 1.2]))
    assert set(panels["loss"]) == {"train/cross_entropy", "validation/cross_entropy"}
    assert panels["accuracy (%)"] == {"validation/top1": ([0, 1, 2, 3, 4], pytest.approx([0, 20, 40, 60, 80]))}
    assert set(panels["gate of non-local blocks"]) == {"layer3.nonlocal1", "layer4.nonlocal1"}
    assert panels["learning rate"]["learning_rate"][0] == [n / 2 for n in range(9)]


def test_training_is_dashed_and_in_the_colour_of_its_validation(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_curves(ROWS, tmp_path / "curves.png", title="run")
    trained, measured = drawn[0].axes[0].get_lines()
    assert (trained.get_linestyle(), measured.get_linestyle()) == ("--", "-")
    assert trained.get_color() == measured.get_color()


def test_panels_without_a_measurement_are_left_out(tmp_path: Path, drawn: list[Figure]) -> None:
    rows: list[MetricsRow] = [{"step": 1, "epoch": 1, "train/kl": 2.0, "validation/top1": None}]
    draw_curves(rows, tmp_path / "curves.png", title="run", best_step=1)
    assert list(lines_of(drawn[0])) == ["loss"]


def test_no_rows_and_no_place_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no metrics to draw"):
        draw_curves([], tmp_path / "curves.png", title="run")
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        draw_curves(ROWS, tmp_path / "none" / "curves.png", title="run")
    assert not list(tmp_path.iterdir())
