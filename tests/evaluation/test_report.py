"""Reports: nothing left out, the worst first, only classes that occur."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path

import matplotlib.axes
import numpy as np
import pytest
from PIL import Image

from nonlocal_video.errors import OutputError
from nonlocal_video.evaluation.answers import Answer, Truth
from nonlocal_video.evaluation.confusion import draw_confusion
from nonlocal_video.evaluation.metrics import compute_metrics
from nonlocal_video.evaluation.report import REPORT_FILES, Evaluation, occurring
from nonlocal_video.inference.prediction import ScoredLabel

LABELS = tuple(f"action {index}" for index in range(9))


def answer(path: str, true: int, answered: int, score: float, true_score: float, group: str | None = None) -> Answer:
    return Answer(
        path,
        Truth(LABELS[true], true, group),
        (ScoredLabel(LABELS[answered], answered, score),),
        1 if true == answered else 3,
        true_score,
    )


ANSWERS = (
    answer("sure and right", 4, 4, 0.9, 0.9),
    answer("small mistake", 4, 2, 0.5, 0.4),
    answer("unsure and right", 2, 2, 0.3, 0.3),
    Answer("broken", Truth(LABELS[2], 2, None), (), None, None, ("corrupt", "cut off")),
    answer("large mistake", 2, 7, 0.9, 0.0),
)


def evaluation(answers: tuple[Answer, ...] = ANSWERS) -> Evaluation:
    settings = {"model": "tiny", "views": "1x1", "fast": False}
    return Evaluation(settings, LABELS, answers, compute_metrics(answers, len(LABELS)), None, 0)


def rows(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_report_is_written_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out").mkdir()
    for name in REPORT_FILES:
        (tmp_path / "out" / name).symlink_to(tmp_path / "precious")
    evaluation().write(tmp_path / "out")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not any((tmp_path / "out" / name).is_symlink() for name in REPORT_FILES)


def test_predictions_have_the_worst_mistakes_first(tmp_path: Path) -> None:
    evaluation().write(tmp_path)
    header, *lines = rows(tmp_path / "predictions.csv")
    assert [line[0] for line in lines] == [
        "large mistake", "small mistake", "broken", "unsure and right", "sure and right",
    ]  # fmt: skip
    broken = dict(zip(header, lines[2], strict=True))
    assert (broken["status"], broken["right"], broken["error_code"]) == ("error", "", "corrupt")
    large = dict(zip(header, lines[0], strict=True))
    assert (large["label"], large["top1_label"], large["right"]) == ("action 2", "action 7", "False")
    assert (large["true_rank"], large["true_score"]) == ("3", "0.0")


def test_confusion_has_the_classes_that_occur_and_strangers_behind_them(tmp_path: Path) -> None:
    evaluation().write(tmp_path)
    assert rows(tmp_path / "confusion.csv") == [
        ["true class", "action 2", "action 4", "action 7"],
        ["action 2", "1", "0", "1"],
        ["action 4", "1", "1", "0"],
    ]
    assert occurring(np.diag([0, 2, 0, 1])) == ([1, 3], [1, 3])


def test_summary_counts_what_cannot_be_read(tmp_path: Path) -> None:
    evaluation().write(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["clips"], summary["readable"], summary["unreadable"]) == (5, 4, 1)
    assert summary["unreadable_clips"] == [{"path": "broken", "code": "corrupt", "message": "cut off"}]
    assert summary["accuracy_percent"]["top1"]["value"] == 50.0
    assert summary["accuracy_percent"]["top1"]["unreadable_as_wrong"] == 40.0
    assert summary["accuracy_percent"]["mean_class"]["unreadable_as_wrong"] == pytest.approx(41.667)
    assert (summary["classes"], summary["classes_of_model"], summary["groups"]) == (2, 9, 4)
    assert "Only 4 independent groups" in summary["notes"][0]


def test_no_readable_clip_leaves_figures_and_picture_away(tmp_path: Path) -> None:
    written = evaluation((ANSWERS[3],)).write(tmp_path)
    assert [path.name for path in written] == ["summary.json", "predictions.csv"]
    summary = json.loads(written[0].read_text())
    assert (summary["accuracy_percent"], summary["calibration"]) == (None, None)


def test_an_interval_without_width_is_not_taken_for_certainty() -> None:
    right = tuple(answer(str(number), 4, 4, 0.9, 0.9) for number in range(30))
    assert [note.split()[0] for note in evaluation(right).notes] == ["top1", "top5", "mean_class"]


def test_a_single_group_says_why_there_is_no_interval() -> None:
    same = tuple(answer(str(number), 4, 4, 0.9, 0.9, "s1") for number in range(3))
    assert evaluation(same).notes == ["All clips are from one group, so there are no intervals for other groups."]


def test_a_folder_that_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="gone"):
        evaluation().write(tmp_path / "gone")


@pytest.mark.parametrize("num_classes", [1, 6, 60])
def test_picture_grows_with_the_classes_and_has_their_colours(tmp_path: Path, num_classes: int) -> None:
    names = [f"${index}$ a name of some length" for index in range(num_classes)]
    path = tmp_path / "confusion.png"
    draw_confusion(np.eye(num_classes, dtype=int) * 3, names, names, "tiny", path)
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    side = num_classes * (0.32 if num_classes <= 40 else 0.1) * 110
    assert picture.shape[0] > side
    assert picture.shape[1] > side
    dark_blue = (np.abs(picture - [8, 48, 107]).sum(axis=2) < 12).sum()  # the last colour of matplotlib's Blues
    assert dark_blue > 0.5 * side**2 / num_classes


SCRIPTS = ("跳ぶ", "नमस्ते", "مرحبا", "안녕", "สวัสดี", "\U0001f938", "two\nlines", "cafe\u0301", "рука", "$x^2$", "jump")


def test_every_script_gives_a_picture_and_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "confusion.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as matplotlib warns of letters that its fonts do not have
        draw_confusion(np.eye(len(SCRIPTS), dtype=int), SCRIPTS, SCRIPTS, "模型, 1x1 views", path)
    assert caplog.records == []
    assert Image.open(path).size[0] > len(SCRIPTS) * 0.32 * 110


def test_names_that_cannot_be_drawn_are_numbers_that_the_table_explains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    axes = matplotlib.axes.Axes
    for method in ("set_xticks", "set_yticks"):
        whole = getattr(axes, method)

        def spy(self, ticks, labels=None, *rest, whole=whole, **options):
            drawn.extend(labels or ())
            return whole(self, ticks, labels, *rest, **options)

        monkeypatch.setattr(axes, method, spy)
    title = axes.set_title
    monkeypatch.setattr(
        axes, "set_title", lambda self, text, **options: drawn.append(text) or title(self, text, **options)
    )
    names = ["jump", "\ue000 of a private script", "рука"]
    draw_confusion(np.eye(3, dtype=int)[:2], names[:2], names, "tiny", tmp_path / "confusion.png")
    assert drawn[:5] == ["jump", "#2", "рука", "jump", "#2"]
    first, second = drawn[5].split("\n")
    assert first == "tiny"
    assert second.startswith("#n is the n-th class in the first line of confusion.csv: 1 of 3 names cannot be drawn")


@pytest.mark.parametrize("escape", [True, False])
def test_names_that_begin_like_a_formula_are_text(tmp_path: Path, escape: bool) -> None:
    labels = ("=SUM(A1)", "-jump", "+wave")
    answers = tuple(
        Answer(path, Truth(labels[true], true, "@group"), (ScoredLabel(labels[top], top, 0.5),), 1, 0.5)
        for path, true, top in (("=a.mp4", 0, 1), ("-b.mp4", 1, 1), ("c.mp4", 2, 0))
    )
    settings = {"model": "tiny", "views": "1x1", "fast": False}
    Evaluation(settings, labels, answers, compute_metrics(answers, 3), None, 0).write(tmp_path, csv_escape=escape)
    cells = [cell for name in ("predictions.csv", "confusion.csv") for row in rows(tmp_path / name) for cell in row]
    assert {"=a.mp4", "-b.mp4", "@group", *labels} <= {cell.removeprefix("'") for cell in cells}
    assert any(cell.startswith(("=", "+", "-", "@")) for cell in cells) == (not escape)
