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
    for name, file, describe in (
        ("first-answer", "page_first_answer", _first_answer),
        ("soak", "page_soak", _soak),
        ("sureness", "sureness", _sureness),
    ):
        results = json.loads((RESULTS / f"{file}.json").read_text("utf-8"))
        between = f"<!-- {name} -->\n{describe(results)}\n<!-- /{name} -->"
        text = re.sub(rf"<!-- {name} -->\n.*?<!-- /{name} -->", lambda _, new=between: new, text, flags=re.DOTALL)
    return text


def _first_answer(results: dict[str, Any]) -> str:
    machine, median, slowest = results["machine"], results["median_seconds"], results["slowest_seconds"]
    rows = [f"| {stage} | {median[stage]:.1f} s | {slowest[stage]:.1f} s |" for stage in median]
    table = "\n".join(["| from the choice of the clip until | median | slowest |", "| --- | --- | --- |", *rows])
    return (
        f"{table}\n\nA clip of {results['clip']}, {results['view']}, warm model, {results['visits']} visits, "
        f"{machine['cores']} cores of {machine['processor']}, which had a load of "
        f"{results['load_of_the_machine_before']} from other work before."
    )


def _soak(results: dict[str, Any]) -> str:
    idle, outcomes = results["held_when_uploads_are_deleted"], results["outcomes"]
    return (
        f"{results['visits']} visits ({outcomes['answered']} clips, the others no videos): on average "
        f"{results['server_mib_first_half']:.0f} MiB in the first half and {results['server_mib_second_half']:.0f} in "
        f"the second, the default model and {idle['open_files']} open files among them; when the uploads had gone, "
        f"{idle['temporary_files']} files were left."
    )


def _sureness(results: dict[str, Any]) -> str:
    views = ("quick look", "standard")
    rows = []
    for word in results[views[0]]["words"]:
        counts = [results[view]["words"][word] for view in views]
        rows.append(f"| {word} | " + " | ".join(f"{one['right']} of {one['said']}" for one in counts) + " |")
    head = ["| the page says | right, quick look | right, standard |", "| --- | --- | --- |"]
    table = "\n".join([*head, *rows])
    return f"{table}\n\nThe default model on {results['clips']} labelled clips of Kinetics-400 actions."


if __name__ == "__main__":
    PAGE.write_text(page_with_figures(PAGE.read_text("utf-8")), "utf-8")
