"""The guide on teaching says what was measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tables_are_the_results() -> None:
    spec = importlib.util.spec_from_file_location("teach_tables", ROOT / "docs" / "make_teach_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "teach.md").read_text("utf-8")
    assert module.page_with_tables() == page
    assert "<!-- measured -->\n<!-- /measured -->" not in page


def test_what_is_shipped_was_measured() -> None:
    """Unseen people, three views of a clip, 200 episodes; then unknown actions, and another place."""
    one_view, three_views = (
        json.loads((ROOT / "benchmarks" / "results" / name).read_text("utf-8"))
        for name in ("teach.json", "teach_3_views.json")
    )
    for number, least in {"1": 0.83, "3": 0.93, "5": 0.95}.items():
        found = three_views["actions"][number]
        assert found["accuracy"]["mean"] >= least
        assert len(found["accuracy"]["interval"]) == 2
    assert one_view["episodes"] == three_views["episodes"] == 200
    for results in (one_view, three_views):
        assert all(results["unknown"][number]["near AUROC"]["mean"] >= 0.85 for number in ("3", "5"))
        for way in results["places"].values():
            assert way["first five clips"]["alone"] >= 0.6
            assert way["first five clips"]["both"] >= 0.8
