"""The guide to search says what was measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from nonlocal_video.retrieval.moments import JOIN_SHARE

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "search.md").read_text("utf-8")
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "search.json").read_text("utf-8"))


def test_tables_are_the_results() -> None:
    spec = importlib.util.spec_from_file_location("search_tables", ROOT / "docs" / "make_search_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page_with_tables(PAGE) == PAGE
    assert "colour histogram | 0." in PAGE


def test_what_is_shipped_was_measured() -> None:
    assert RESULTS["join_share"] == JOIN_SHARE
    assert f"at least {JOIN_SHARE} of it" in PAGE
    for found in RESULTS["sets"].values():
        assert found["search"]["average_precision"]["mean"] > found["colours"]["average_precision"]["mean"]
