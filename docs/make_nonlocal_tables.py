"""Writes the measured tables of docs/nonlocal_over_time.md from benchmarks/results.

python docs/make_nonlocal_tables.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "nonlocal_over_time.md"
RESULTS = ROOT / "benchmarks" / "results" / "nonlocal_over_time.json"
NAMES = {
    "alone": "each window alone",
    "mean": "mean over the video",
    "gaussian": "Gaussian smoothing of probabilities",
    "median": "median of probabilities",
    "viterbi": "Viterbi, a cost for each change",
    "label propagation": "label propagation (Zhou et al., 2004)",
    "perplexity": "non-local, a temperature a row, logits",
    "perplexity, softened": "non-local, a temperature a row, roots",
    "dot product": "non-local, dot product (linear time)",
    "shipped": "**what `timeline` does** (fixed setting)",
    "best smoothing": "the best smoothing, chosen likewise",
    "chosen": "the best of all non-local settings, chosen likewise",
}


def page_with_tables(text: str) -> str:
    """The page's text with the tables between its markers as the results say."""
    results = json.loads(RESULTS.read_text("utf-8"))
    tables = {
        "nested": _nested(results["nested"]["families"]),
        "shipped": _shipped(results["shipped"], results["fast"]),
        "growing": _growing(results["growing"]),
        "controls": _controls(results["controls"]),
        "folder": _folder(results["folder"]),
        "segments": _segments(results["segments"]),
        "time": _time(results),
    }
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
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _gain(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['points']:+.1f} ({low:+.1f} to {high:+.1f})"


def _nested(families: dict[str, Any]) -> str:
    rows = [["", "top-1 a window", "over alone (95%)", "over the best smoothing (95%)"]]
    for name, found in families.items():
        words = NAMES.get(name, name.replace("softened", "roots"))
        rows.append([words, f"{found['top1']:.1f}", _gain(found["over_alone"]), _gain(found["over_best_smoothing"])])
    return _table(*rows)


def _shipped(default: dict[str, Any], fast: dict[str, Any]) -> str:
    rows = [
        [
            "clips joined", "alone", "refined", "over alone (95%)", "knowing the cuts", "`--fast`: alone", "refined",
            "over alone (95%)",
        ]
    ]  # fmt: skip
    for name, found in default.items():
        other = fast[name]
        rows.append(
            [
                name,
                f"{found['alone']:.1f}",
                f"{found['shipped']:.1f}",
                _gain(found["over_alone"]),
                f"{found['knowing_the_cuts']:.1f}",
                f"{other['alone']:.1f}",
                f"{other['shipped']:.1f}",
                _gain(other["over_alone"]),
            ]
        )
    return _table(*rows)


def _growing(found: list[dict[str, Any]]) -> str:
    rows = [["windows", "alone", "scale fixed at 1 / 0.2", "scale at least ln M", "the latter over alone (95%)"]]
    for row in found:
        rows.append(
            [
                f"{row['windows']:,}",
                f"{row['alone']:.1f}",
                f"{row['fixed scale']:.1f}",
                f"{row['growing scale']:.1f}",
                _gain(row["growing_over_alone"]),
            ]
        )
    return _table(*rows)


def _controls(found: dict[str, Any]) -> str:
    one = found["one action throughout"]
    lines = [
        f"- **One action throughout** (each clip a video): {one['alone']:.1f} alone, {one['shipped']:.1f} refined, "
        f"{_gain(one['over_alone'])}."
    ]
    for name, group in found.items():
        if name == "one action throughout":
            continue
        words = (
            f"- **{name[0].upper()}{name[1:]}** ({group['clips']} clips joined, {group['windows']} windows): "
            f"{group['changed_answers']:.0%} of the answers change; {group['classes_alone']} different classes become "
            f"{group['classes_shipped']}, the mean score {group['mean_score_alone']:.2f} becomes "
            f"{group['mean_score_shipped']:.2f}."
        )
        if "known_windows" in group:
            words += (
                f" Of the {group['known_windows']} windows whose action the model knows, {group['known_alone']:.1f}% "
                f"alone and {group['known_shipped']:.1f}% refined are right, {_gain(group['known_over_alone'])}."
            )
        lines.append(words)
    return "\n" + "\n".join(lines)  # a list stands apart from the marker above it


def _folder(found: dict[str, Any]) -> str:
    rows = [["views a clip", "alone", "`--context folder`", "over alone (95%)"]]
    for name, row in found.items():
        rows.append([name, f"{row['alone']:.1f}", f"{row['folder']:.1f}", _gain(row["over_alone"])])
    return _table(*rows)


def _segments(found: list[dict[str, Any]]) -> str:
    rows = [["clips joined", "shortest, s", "answers", "frame accuracy", "edit", "F1@10", "F1@25", "F1@50", "mAP"]]
    for row in found:
        if row["clips_a_video"] != 20:
            continue
        for key, words in (("alone", "alone"), ("shipped", "refined")):
            figures = [f"{row[key][name]:.1f}" for name in ("frame_accuracy", "edit", "f1@10", "f1@25", "f1@50", "map")]
            joined = f"20, {'cut up' if row['cut_up'] else 'whole'}"
            rows.append([joined, f"{row['shortest_seconds']:g}", words, *figures])
    return _table(*rows)


def _time(results: dict[str, Any]) -> str:
    rows = [["windows", "once, s", "share of the forward passes", "a window at a time, s", "share"]]
    for row in results["time"]:
        rows.append(
            [
                f"{row['windows']:,}",
                f"{row['ended_seconds']:.3f}",
                f"{row['ended_percent_of_forward']:.3f}%",
                f"{row['while_it_runs_seconds']:.3f}",
                f"{row['while_it_runs_percent_of_forward']:.3f}%",
            ]
        )
    machine = results["machine"]
    return (
        f"{_table(*rows)}\n\nOn {machine['threads']} thread of {machine['processor']}, busy with other work, where a "
        f"window's forward pass took {results['forward_seconds_a_window']:.2f} s."
    )


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text("utf-8")), "utf-8")
