"""The page about non-local means over time says what was measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "nonlocal_over_time.md").read_text("utf-8")
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "nonlocal_over_time.json").read_text("utf-8"))


def test_tables_are_the_results() -> None:
    spec = importlib.util.spec_from_file_location("nonlocal_tables", ROOT / "docs" / "make_nonlocal_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page_with_tables(PAGE) == PAGE
    assert "each window alone | 75.5" in PAGE


def test_the_default_is_what_won() -> None:
    """Its mean is above alone and above the best smoothing, the operation takes no time, and mixing does not grow."""
    shipped = RESULTS["nested"]["families"]["shipped"]
    assert shipped["over_alone"]["points"] > 0
    assert shipped["over_best_smoothing"]["points"] > 0
    assert all(row["ended_percent_of_forward"] < 1 for row in RESULTS["time"])
    assert all(row["growing scale"] > row["alone"] for row in RESULTS["growing"])
