"""Features by the processes of several devices, here two on the CPU: the rows of one process.

Those by Ray are in `tests/inference/test_ray_engine.py`, which starts it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from nonlocal_video.cli.main import app
from nonlocal_video.errors import DeviceError, UsageError
from nonlocal_video.features.extract import extract_features
from nonlocal_video.features.folder import extract_arrays
from nonlocal_video.inference.many_devices import _Process
from nonlocal_video.inference.recognizer import Recognizer

pytestmark = pytest.mark.slow
TWO = ["cpu", "cpu"]


@pytest.fixture
def many(clips: Path) -> Path:
    """Nine files, one of which is no video."""
    for number in range(5):
        shutil.copy(clips / ("a.mp4" if number % 2 else "b/c.mp4"), clips / f"clip{number}.mp4")
    return clips


def rows(table: Path) -> list[dict[str, Any]]:
    found = pq.read_table(table).to_pylist()
    return [row | {"feature": row["feature"] and pytest.approx(row["feature"], rel=1e-5, abs=1e-4)} for row in found]


def test_two_processes_write_the_rows_of_one(recognizer: Recognizer, many: Path, tmp_path: Path) -> None:
    one = extract_features(recognizer, many, output=tmp_path / "one.parquet")
    two = extract_features(recognizer, many, output=tmp_path / "two.parquet", devices=TWO, workers=1)
    assert two.counts == one.counts == {"ok": 8, "not_a_video": 1}
    assert pq.read_table(tmp_path / "two.parquet").to_pylist() == rows(tmp_path / "one.parquet")
    extract_arrays(recognizer, many, output=tmp_path / "arrays", devices=TWO, workers=1)
    assert len(list((tmp_path / "arrays").rglob("*.npy"))) == 8


def test_what_a_lost_process_did_not_do_is_done_by_the_next_run(
    recognizer: Recognizer, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[_Process] = []
    start = _Process.__init__

    def started(self: _Process, *arguments: Any) -> None:
        start(self, *arguments)
        made.append(self)

    monkeypatch.setattr(_Process, "__init__", started)
    output = tmp_path / "t.parquet"

    def kill(_: object) -> None:  # both: one may be done before the first row is read
        for process in made:
            process._process.kill()

    with pytest.raises(DeviceError, match="was killed by signal 9"):
        extract_features(recognizer, many, output=output, devices=TWO, workers=1, on_progress=kill)
    done = extract_features(recognizer, many, output=output, resume=True)
    assert (done.counts + done.done_before).total() == 9
    extract_features(recognizer, many, output=tmp_path / "one.parquet")
    by_path = sorted(rows(tmp_path / "one.parquet"), key=lambda row: (row["path"], row["window_index"] or 0))
    found = sorted(pq.read_table(output).to_pylist(), key=lambda row: (row["path"], row["window_index"] or 0))
    assert found == by_path


def test_options_of_ray_need_ray(recognizer: Recognizer, many: Path, tmp_path: Path) -> None:
    arguments = ["features", str(many), "--output", str(tmp_path / "t.parquet"), "--ray-actors", "2"]
    assert "--ray-actors only act with --engine ray" in str(CliRunner().invoke(app, arguments).exception)
    recognizer.source, source = None, recognizer.source
    try:
        with pytest.raises(UsageError, match=r"needs a recognizer from nlv\.load"):
            extract_features(recognizer, many, output=tmp_path / "t.parquet", devices=TWO)
    finally:
        recognizer.source = source
