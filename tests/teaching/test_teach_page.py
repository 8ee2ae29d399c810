"""The guide on teaching says what was measured."""

from __future__ import annotations

import importlib.util
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
