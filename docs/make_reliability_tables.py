"""Writes the measured tables of docs/reliability.md from benchmarks/results.

python docs/make_reliability_tables.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "benchmarks" / "results"


def page_with_tables(text: str) -> str:
    """The page's text with the tables between its markers as the results say."""
    tables = {"fuzz": _fuzz, "soak": _soak, "pipeline": _pipeline, "server_pressure": _pressure}
    for marker, make in tables.items():
        table = make(_results(marker))
        text = re.sub(
            rf"<!-- {marker} -->\n.*?<!-- /{marker} -->",
            lambda _, marker=marker, table=table: f"<!-- {marker} -->\n{table}\n<!-- /{marker} -->",
            text,
            flags=re.DOTALL,
        )
    return text


def _pressure(results: dict[str, Any]) -> str:
    rows = [["phase", "answers", "median seconds", "server, MiB", "temporary files"]]
    for name, phase in results["phases"].items():
        held = phase["held_at_its_end"]
        answers = ", ".join(f"{count:,} × {what}" for what, count in phase["answers"].items())
        seconds = "" if phase["median_seconds"] is None else f"{phase['median_seconds']:.2f}"
        rows.append([name, answers, seconds, f"{held['server_mib']:.0f}", str(held["temporary_files"])])
    free = results["phases"]["free"]["held_at_its_end"], results["phases"]["free again"]["held_at_its_end"]
    broken = sum(
        count
        for phase in results["phases"].values()
        for what, count in phase["answers"].items()
        if what.startswith("broken")
    )
    health = results["health"]
    asked = sum(health["answers"].values())
    return (
        f"{_table(*rows)}\n\n{results['minutes']:g} minutes in all, {results['programs']} programs, a small model, on "
        f"a machine that was busy with other work. Answers lost or without a sentence: {broken}. The server held "
        f"{free[0]['server_mib']:,.0f} MiB after the first phase and {free[1]['server_mib']:,.0f} at the end, with "
        f"{free[0]['open_files']} and {free[1]['open_files']} open files. `/healthz` was asked {asked:,} times: "
        f"{health['answers'].get('200', 0):,} × 200, the slowest after {health['slowest_seconds']:.1f} s."
    )


def _results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return found


def _table(*rows: list[str]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fuzz(results: dict[str, Any]) -> str:
    codes = list(results["total"])
    rows = [["seed", *codes]]
    for seed, counts in results["by_seed"].items():
        rows.append([seed, *(f"{counts.get(code, 0):,}" for code in codes)])
    rows.append(["all", *(f"{results['total'][code]:,}" for code in codes)])
    first, last = results["parent_rss_mib"][0], results["parent_rss_mib"][-1]
    return (
        f"{_table(*rows)}\n\n{results['files']:,} files, {len(results['unexpected'])} unexpected answers; the slowest "
        f"took {results['slowest_seconds']:.1f} s (limit 10 s for each of two requests); the parent held {first:.0f} "
        f"MiB after a tenth of the files and {last:.0f} MiB at the end."
    )


def _soak(results: dict[str, Any]) -> str:
    rows = [["files done", "parent, MiB", "decoding processes", "together, MiB"]]
    for point in results["memory"][::3]:
        rows.append(
            [str(point["files"]), f"{point['parent_mib']:.0f}", str(point["children"]), f"{point['children_mib']:.0f}"]
        )
    return f"{_table(*rows)}\n\nOutcomes: {', '.join(f'{n} {code}' for code, n in results['outcomes'].items())}."


def _pipeline(results: dict[str, Any]) -> str:
    rates = results["files_per_second"]
    rows = [["", "files/s"]]
    rows += [[name.replace("_", " "), f"{rate:.2f}"] for name, rate in rates.items()]
    return (
        f"{_table(*rows)}\n\n{results['files']} clips, {results['model']}, {results['input']}, "
        f"{results['threads']} threads of {results['machine']['processor']}, decoding processes: {results['workers']}. "
        f"Both reach {results['both_against_slower']:.0%} of the slower one. Starting a decoding process costs "
        f"{results['child_start_seconds']:.2f} s, once in 200 files."
    )


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text("utf-8")), "utf-8")
