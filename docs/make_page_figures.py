"""Writes the measured figures of docs/page.md from benchmarks/results.

python docs/make_page_figures.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "page.md"
RESULTS = ROOT / "benchmarks" / "results"


def page_with_figures(text: str) -> str:
    """The page's text with what stands between its markers as the results say."""
    figures = _first_answer(json.loads((RESULTS / "page_first_answer.json").read_text("utf-8")))
    return re.sub(
        r"<!-- first-answer -->\n.*?<!-- /first-answer -->",
        lambda _: f"<!-- first-answer -->\n{figures}\n<!-- /first-answer -->",
        text,
        flags=re.DOTALL,
    )


def _first_answer(results: dict[str, Any]) -> str:
    machine, median, slowest = results["machine"], results["median_seconds"], results["slowest_seconds"]
    rows = [f"| {stage} | {median[stage]:.1f} s | {slowest[stage]:.1f} s |" for stage in median]
    table = "\n".join(["| from the choice of the clip until | median | slowest |", "| --- | --- | --- |", *rows])
    return (
        f"{table}\n\nA clip of {results['clip']}, {results['view']}, warm model, {results['visits']} visits, "
        f"{machine['cores']} cores of {machine['processor']}, which had a load of "
        f"{results['load_of_the_machine_before']} from other work before."
    )


if __name__ == "__main__":
    PAGE.write_text(page_with_figures(PAGE.read_text("utf-8")), "utf-8")
