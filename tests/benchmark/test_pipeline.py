"""The pipeline's benchmark measures what it says, on clips that cost next to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import nonlocal_video as nlv
from nonlocal_video.benchmark.pipeline import benchmark_pipeline


@pytest.mark.slow
def test_all_three_are_measured_in_every_round(tiny_model: Path, clip_folder: Path) -> None:
    said: list[str] = []
    with nlv.load(tiny_model, device="cpu") as recognizer:
        files = [str(clip_folder / "a.mp4"), str(clip_folder / "b" / "c.mp4")]
        results = benchmark_pipeline(recognizer, files, rounds=2, workers=2, batch_size=2, notify=said.append)
    assert len(said) == 2
    assert {name: len(times) for name, times in results["seconds"].items()} == {
        "decode_only": 2, "network_only": 2, "both": 2,
    }  # fmt: skip
    assert 0.05 < results["child_start_seconds"] < 60
    rates = results["files_per_second"]
    assert rates["both"] == pytest.approx(2 / (sum(results["seconds"]["both"]) / 2))
    assert results["both_against_slower"] == rates["both"] / min(rates["decode_only"], rates["network_only"])


def test_a_file_that_cannot_be_read_stops_it(tiny_model: Path, clip_folder: Path) -> None:
    with nlv.load(tiny_model, device="cpu") as recognizer:
        with pytest.raises(nlv.VideoError):
            benchmark_pipeline(recognizer, [str(clip_folder / "b" / "note.mp4")], rounds=1)
        with pytest.raises(nlv.UsageError, match="no file"):
            benchmark_pipeline(recognizer, [], rounds=1)
