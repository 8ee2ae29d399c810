"""`benchmarks/scaling.py`: a run's figures are those of its rows, and memory is the system's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from scaling import Run, grow, medians, peak

linux = pytest.mark.skipif(sys.platform != "linux", reason="The system does not record a process's peak memory.")


def test_the_parts_of_a_run_are_told_apart() -> None:
    run = Run(
        started=100.0, ended=110.0, cpu_seconds=7.0, rows=[104.0, 105.0, 108.0],
        parent_bytes=300 * 2**20, children_bytes={11: 50 * 2**20, 12: 60 * 2**20},
    )  # fmt: skip
    assert run.figures() == {
        "seconds": 10.0,
        "cpu_seconds": 7.0,
        "peak_mib": 300.0,
        "start_seconds": 4.0,
        "seconds_a_file": 2.0,
        "end_seconds": 2.0,
        "decoding_processes": 2,
        "child_peak_mib": 60.0,
    }


def test_a_resumed_run_has_no_rows() -> None:
    assert set(Run(started=1.0, ended=3.0).figures()) == {"seconds", "cpu_seconds", "peak_mib"}


def test_the_median_of_each_figure() -> None:
    assert medians([{"a": 1.0, "b": 9.0}, {"a": 5.0, "b": 2.0}, {"a": 2.0, "b": 4.0}]) == {"a": 2.0, "b": 4.0}


@linux
def test_the_peak_is_not_forgotten() -> None:
    code = "block = b'x' * (100 << 20); del block; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        now = psutil.Process(process.pid).memory_info().rss
        assert now < 100 << 20 < peak(process.pid)
        process.communicate(b"\n")
    assert peak(process.pid) == 0


@pytest.mark.slow
@linux
def test_folders_of_two_sizes(tmp_path: Path) -> None:
    found = grow(tmp_path, [1, 3], repeats=1)
    assert [size["files"] for size in found["sizes"]] == [1, 3]
    for size in found["sizes"]:
        rows = (size["files"] - 1) * size["seconds_a_file"]
        assert size["start_seconds"] + rows + size["end_seconds"] == pytest.approx(size["seconds"], abs=0.01)
        assert size["peak_mib"] > size["child_peak_mib"] > 0
        assert size["resume"]["seconds"] > 0
    one, three = found["sizes"]
    assert one["journal_bytes"] < three["journal_bytes"]
