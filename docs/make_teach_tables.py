"""Write the tables of docs/teach.md from benchmarks/results/teach.json and teach_3_views.json.

python docs/make_teach_tables.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "teach.md"
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    PAGE.write_text(page_with_tables(), "utf-8")


def page_with_tables() -> str:
    """Return docs/teach.md with the tables of the results."""
    text = PAGE.read_text("utf-8")
    for mark, file in (("measured", "teach.json"), ("three views", "teach_3_views.json")):
        before, after = text.split(f"<!-- {mark} -->")[0], text.split(f"<!-- /{mark} -->")[1]
        found = json.loads((RESULTS / file).read_text("utf-8"))
        text = before + "\n".join([f"<!-- {mark} -->", *lines(found), f"<!-- /{mark} -->"]) + after
    return text


def lines(found: dict[str, Any]) -> list[str]:
    """Return the measured part of the page."""
    shots = list(found["actions"])
    seen = (
        "One view a clip, as `classify` has it."
        if found["views"] == "1x1"
        else f"Taught and asked with `--views {found['views']}`, from the beginning of a clip to its end."
    )
    rows = [
        "",
        f"Six yoga poses by 16 people in one room ({found['clips']['actions']} phone clips). In each of "
        f"{found['episodes']} episodes k examples of each pose are taught, and all clips of all people of whom there "
        f"is no example are asked. {seen} Mean of the episodes, and its 95% interval.",
        "",
        f"| | {' | '.join(f'{k} a class' for k in shots)} |",
        f"| --- |{' ---: |' * len(shots)}",
        row("right, as taught", [found["actions"][k]["accuracy"] for k in shots]),
        *(
            row(f"always {name}", [found["actions"][k][key] for k in shots])
            for name, key in (
                ("logistic regression", "logistic-regression"),
                ("ridge", "ridge"),
                ("the nearest class mean", "nearest-class-mean"),
            )
        ),
        row("asked with `--context folder`", [found["actions"][k]["folder"] for k in shots]),
        row("what the report said", [found["actions"][k].get("said by the report") for k in shots]),
        "",
        "Two of the six poses left out, in turn, and asked as unknown by the same people's rules. `far` are clips of "
        "another data set. AUROC is the chance that a known clip is more like its class than an unknown one is.",
        "",
        f"| | {' | '.join(f'{k} a class' for k in shots)} |",
        f"| --- |{' ---: |' * len(shots)}",
        *(
            row(name, [found["unknown"][k][key] for k in shots], digits)
            for name, key, digits in (
                ("AUROC, other poses", "near AUROC", 3),
                ("AUROC of the softmax, other poses", "near AUROC of the softmax", 3),
                ("AUROC, far", "far AUROC", 3),
                ("known clips accepted", "known accepted", 1),
                ("other poses found", "near found", 1),
                ("far clips found", "far found", 1),
            )
        ),
        "",
        f"Three interactions of two people in two places ({found['clips']['places']} clips). Taught in one place, "
        "asked in the other; `first five` are the first five clips a class.",
        "",
        "| | alone | refined only | mean subtracted | `--context folder` |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    ways = ("alone", "refined by the folder, no mean subtracted", "mean of the folder subtracted", "both")
    for name, result in found["places"].items():
        rows.append(f"| {name}, first five | {' | '.join(percent(result['first five clips'][way]) for way in ways)} |")
        rows += [
            f"| {name}, {k} a class | {' | '.join(percent(result[k][way]['mean']) for way in ways)} |" for k in shots
        ]
    if "windows" in found:
        rows += windows(found["windows"])
    return [*rows, *(["", found["note"]] if "note" in found else []), ""]


def windows(found: dict[str, Any]) -> list[str]:
    ways = ("alone", "refined", "less the mean, refined")
    return [
        "",
        "The same clips' views as the windows of one camera's video in the other place, both ways round: of all clips, "
        "and of those of one class alone.",
        "",
        "| the video shows | alone | refined, as `timeline` does | less the video's mean, refined |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {video}, {k} a class | {' | '.join(percent(found[k][f'{video}, {way}']['mean']) for way in ways)} |"
            for video in ("all clips", "one class")
            for k in found
        ),
    ]


def row(name: str, cells: list[dict[str, Any] | None], digits: int = 1) -> str:
    shown = ["-" if cell is None else figure(cell, digits) for cell in cells]
    return f"| {name} | {' | '.join(shown)} |"


def figure(cell: dict[str, Any], digits: int) -> str:
    if digits == 1:
        low, high = (f"{100 * end:.1f}" for end in cell["interval"])
        return f"{percent(cell['mean'])} ({low} to {high})"
    return f"{cell['mean']:.3f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


if __name__ == "__main__":
    main()
