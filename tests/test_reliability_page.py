"""The reliability page says what was measured, and what it names is there."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")


def test_tables_are_the_results() -> None:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "make_reliability_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page_with_tables(PAGE) == PAGE
    assert "| seed |" in PAGE


def test_nothing_unexpected_was_measured() -> None:
    results = {name: json.loads((ROOT / f"benchmarks/results/{name}.json").read_text()) for name in ("fuzz", "soak")}
    assert results["fuzz"]["unexpected"] == []
    assert results["fuzz"]["files"] >= 10_000
    assert results["soak"]["outcomes"] == {"ok": results["soak"]["files"]}


def test_an_hour_under_pressure_lost_nothing_and_left_nothing() -> None:
    results = json.loads((ROOT / "benchmarks/results/server_pressure.json").read_text("utf-8"))
    assert results["minutes"] >= 60
    answers = {name: set(phase["answers"]) for name, phase in results["phases"].items()}
    assert answers["free"] == answers["free again"] == {"answered"}
    assert answers["disk"] <= {"503 disk_full", "answered"}
    assert answers["memory"] <= {"503 busy", "answered"}
    assert set(results["health"]["answers"]) == {"200"}
    first, last = (results["phases"][name]["held_at_its_end"] for name in ("free", "free again"))
    assert last["server_mib"] < 1.02 * first["server_mib"]
    for held in ("open_files", "threads", "children", "temporary_files"):
        assert last[held] <= first[held] + 2


def test_the_tests_that_it_names_exist() -> None:
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    for folder, name in re.findall(r"`(tests/\w+/)?(test_\w+\.py)`", PAGE):
        assert (ROOT / folder / name).is_file() if folder else name in there, name
