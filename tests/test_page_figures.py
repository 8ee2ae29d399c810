"""The figures in the page's guide are those that were measured."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_figures_are_the_results() -> None:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "make_page_figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "page.md").read_text("utf-8")
    assert module.page_with_figures(page) == page
    assert "| scores |" in page
    assert "200 visits" in page
