"""The table of metrics and TensorBoard's points, also after a run was cut off."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.training.metrics import MetricsWriter, read_metrics

COLUMNS = ("train/cross_entropy", "learning_rate", "validation/top1")


def values_at(step: int) -> dict[str, float]:
    values = {"train/cross_entropy": 1 / (1 + step), "learning_rate": 0.1 * 0.9**step}
    return values if step % 2 else {**values, "validation/top1": step / 7}


def log_of(folder: Path, **how: object) -> MetricsWriter:
    return MetricsWriter(folder / "metrics.csv", folder / "tensorboard", **{"columns": COLUMNS, **how})


def write(folder: Path, steps: range, **how: object) -> bytes:
    with log_of(folder, **how) as log:
        for step in steps:
            log.add(step, step / 2, values_at(step), timings={"seconds/decode": 0.5 * step})
    return (folder / "metrics.csv").read_bytes()


def points(folder: Path, name: str) -> list[tuple[int, float]]:
    """Return the values as TensorBoard shows them."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_rows_come_back_exactly(tmp_path: Path) -> None:
    write(tmp_path, range(1, 5))
    rows = read_metrics(tmp_path / "metrics.csv")
    assert rows == [{"step": n, "epoch": n / 2, "validation/top1": None, **values_at(n)} for n in range(1, 5)]
    assert list(rows[0]) == ["step", "epoch", *COLUMNS]


def test_tensorboard_has_the_same_points_and_the_timings(tmp_path: Path) -> None:
    write(tmp_path, range(1, 5))
    for name in COLUMNS:
        expected = [(step, values_at(step)[name]) for step in range(1, 5) if name in values_at(step)]
        found = points(tmp_path, name)
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-6)
    assert points(tmp_path, "seconds/decode") == [(step, 0.5 * step) for step in range(1, 5)]
    assert "seconds" not in (tmp_path / "metrics.csv").read_text()


@pytest.mark.parametrize("resume_step", [-1, 0, 2, 5])
@pytest.mark.parametrize("end", [b"", b"6,3.", b"6"])
def test_a_resumed_table_is_that_of_an_uninterrupted_run(tmp_path: Path, resume_step: int, end: bytes) -> None:
    whole = write(tmp_path / "whole", range(9))
    cut_off = tmp_path / "cut_off"
    write(cut_off, range(6))
    with open(cut_off / "metrics.csv", "ab") as file:
        file.write(end)  # a row that a kill cut short
    assert write(cut_off, range(resume_step + 1, 9), resume_step=resume_step) == whole


def test_tensorboard_shows_a_resumed_steps_points_once(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6))
    write(tmp_path, range(4, 7), resume_step=3)
    assert [step for step, _ in points(tmp_path, "learning_rate")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("left", [None, b"", b"step,epo"])
def test_a_run_killed_before_its_first_row_can_be_resumed(tmp_path: Path, left: bytes | None) -> None:
    whole = write(tmp_path / "whole", range(3))
    cut_off = tmp_path / "cut_off"
    cut_off.mkdir()
    if left is not None:
        (cut_off / "metrics.csv").write_bytes(left)
    assert write(cut_off, range(3), resume_step=-1) == whole


def test_the_first_row_fixes_the_columns(tmp_path: Path) -> None:
    with log_of(tmp_path, columns=None) as log:
        log.add(1, 1, {"a": 1.0, "b": 2.0})
        log.add(2, 2, {"b": 3.0})
        with pytest.raises(UsageError, match=r"c of step 3 have no column .*which has step, epoch, a, b"):
            log.add(3, 3, {"a": 1.0, "c": 2.0})
    with log_of(tmp_path, columns=None, resume_step=2) as log:
        log.add(3, 3, {"a": 4.0})
    assert [row["a"] for row in read_metrics(tmp_path / "metrics.csv")] == [1.0, None, 4.0]
    with pytest.raises(
        UsageError, match=r"has the columns step, epoch, a, b, and the resumed run has step, epoch, b, a"
    ):
        log_of(tmp_path, columns=("b", "a"), resume_step=2)


def test_steps_go_up(tmp_path: Path) -> None:
    write(tmp_path, range(4))
    with log_of(tmp_path, resume_step=2) as log, pytest.raises(UsageError, match="step = 2 should be above"):
        log.add(2, 1, {})


def test_a_new_log_keeps_its_hands_off_an_earlier_one(tmp_path: Path) -> None:
    before = write(tmp_path, range(2))
    with pytest.raises(UsageError, match="exists; resume its run"):
        log_of(tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na,b\n", "first columns are not step and epoch"),
        ("step,epoch,a\n1,0.5\n", "line 2: "),
        ("step,epoch,a\n1,0.5,x\n", "line 2: .*'x'"),
        ("step,epoch,a\n1,1,1\n1.5,1,1\n", "line 3: .*'1.5'"),
    ],
)
def test_another_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_metrics(tmp_path / "metrics.csv")


def test_a_resumed_table_that_is_damaged_is_refused_and_kept(tmp_path: Path) -> None:
    text = "step,epoch,a\none,0.5,1\n"
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(UsageError, match="does not start with a step"):
        log_of(tmp_path, columns=None, resume_step=3)
    assert (tmp_path / "metrics.csv").read_text() == text


def test_a_row_that_was_cut_short_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, range(3))
    with open(tmp_path / "metrics.csv", "ab") as file:
        file.write(b"3,1.")
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == [0, 1, 2]


def test_no_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_metrics(tmp_path / "metrics.csv")


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").touch()
    with pytest.raises(OutputError, match=r"cannot be written: .*--resume"):
        log_of(tmp_path)


def test_without_tensorboard_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'nonlocal-video\[train\]'"):
        log_of(tmp_path)
    assert not list(tmp_path.iterdir())
