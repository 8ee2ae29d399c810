"""Writes the measured tables of docs/search.md from benchmarks/results.

python docs/make_search_tables.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "search.md"
RESULTS = ROOT / "benchmarks" / "results"
NAMES = {
    "colours": "colour histogram",
    "frames": "mean of small frames",
    "mean of the windows, no roots, no mean": "mean of the windows, plain cosine",
    "mean of the windows, no roots": "mean of the windows, less the mean",
    "mean of the windows": "mean of the windows, roots less the mean",
    "no roots, no mean": "windows, plain cosine",
    "no roots": "windows, less the mean",
    "no mean": "windows, roots",
    "search": "**`search`**: windows, roots less the mean",
    "search, refined": "`search --refine`",
}


def page_with_tables(text: str) -> str:
    """The page's text with the tables between its markers as the results say."""
    found = json.loads((RESULTS / "search.json").read_text("utf-8"))
    scale = json.loads((RESULTS / "search_scale.json").read_text("utf-8"))
    tables = {"ways": _ways(found["sets"]), "joining": _joining(found["sets"]), "scale": _scale(scale["sizes"])}
    for marker, table in tables.items():
        text = re.sub(
            rf"<!-- {marker} -->\n.*?<!-- /{marker} -->",
            lambda _, marker=marker, table=table: f"<!-- {marker} -->\n{table}\n<!-- /{marker} -->",
            text,
            flags=re.DOTALL,
        )
    return text


def _table(*rows: list[str]) -> str:
    head, *body = rows
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *body])


def _ways(sets: dict[str, Any]) -> str:
    def cell(found: dict[str, Any]) -> str:
        low, high = found["average_precision"]["interval"]
        nearest = found["same_of_nearest_3"]["mean"]
        return f"{found['average_precision']['mean']:.2f} ({low:.2f} to {high:.2f}); {nearest:.0%}"

    head = ["mean average precision (95%); same of the nearest three"]
    head += [f"{name}, {found['examples']} examples" for name, found in sets.items()]
    return _table(head, *([words, *(cell(found[way]) for found in sets.values())] for way, words in NAMES.items()))


def _joining(sets: dict[str, Any]) -> str:
    joined = {name: found["joining"] for name, found in sets.items() if "joining" in found}
    shares = list(next(iter(joined.values()))["clip"])
    rows = [
        [f"{name}, example a {kind}", *(f"{found[kind][share]:.2f}" for share in shares)]
        for name, found in joined.items()
        for kind in ("clip", "window")
    ]
    return _table(["share", *shares], *rows)


def _scale(sizes: list[dict[str, Any]]) -> str:
    rows = [["windows", "vectors on the disk", "making the vectors", "search", "memory of its own: making, searching"]]
    for size in sizes:
        rows.append(
            [
                f"{size['windows']:,}",
                f"{size['vectors_bytes'] / 1e9:.2f} GB",
                f"{size['seconds_to_make_vectors']:.1f} s",
                f"{size['seconds_to_search']:.2f} s",
                f"{size['making']['own_bytes'] / 1e9:.2f}, {size['searching']['own_bytes'] / 1e9:.2f} GB",
            ]
        )
    return _table(*rows)


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text("utf-8")), "utf-8")
