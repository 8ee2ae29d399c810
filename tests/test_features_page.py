"""The guide on features says what was measured: a window costs what `classify` costs for the same span."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_figures_are_the_results() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "features.json").read_text("utf-8"))
    ratio, rounds = measured["features_against_classify"], measured["features_against_classify_by_round"]
    assert ratio >= 0.9
    page = " ".join((ROOT / "docs" / "features.md").read_text("utf-8").split())
    assert f"`features` computes {ratio:.2f} times as many windows a second as `classify` clips" in page
    assert "({:.2f}, {:.2f} and {:.2f} in the rounds".format(*rounds) in page
    seconds = {name: statistics.fmean(values) for name, values in measured["cpu_seconds"].items()}
    assert f"{seconds['features']:.1f} s of processor time where `classify` takes {seconds['classify']:.1f} s" in page
    assert f"a ratio of {measured['features_against_classify_in_cpu_time']:.2f}" in page
