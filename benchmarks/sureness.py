"""Measure how often the page's words for confidence are right: `python benchmarks/sureness.py ../shared/data`.

Classifies the 40 labelled clips of `clips/` and `windows/` with the quick look and with the standard one, and counts
how often the first answer was right where the page would say each of its four words.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from nonlocal_video import load
from nonlocal_video.app.sureness import WORDS, sureness_of
from nonlocal_video.benchmark.machine import describe_machine

RESULTS = Path(__file__).parent / "results" / "sureness.json"
VIEWS = {"quick look": {"fast": True}, "standard": {"views": "1x1"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    clips = sorted(
        path for part in ("clips", "windows") for path in (arguments.data / part).glob("*/*") if path.is_file()
    )
    report: dict[str, object] = {"clips": len(clips)}
    with load("default", device="cpu") as recognizer:
        for name, how in VIEWS.items():
            rows = []
            for clip in clips:
                first, second = recognizer.classify(clip, **how).top(2)
                right = first.label == clip.parent.name.replace("_", " ")
                rows.append((first.score, first.score - second.score, right))
            report[name] = {
                "right": sum(right for *_, right in rows),
                "words": {word: _counted(rows, word) for word in WORDS},
                "answers": [
                    {"probability": round(score, 3), "lead": round(lead, 3), "right": right}
                    for score, lead, right in sorted(rows, reverse=True)
                ],
            }
    report["machine"] = describe_machine()
    arguments.output.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps({name: report[name]["words"] for name in VIEWS}, indent=1))  # type: ignore[index]


def _counted(rows: list[tuple[float, float, bool]], word: str) -> dict[str, int]:
    said = [right for score, lead, right in rows if sureness_of(score, lead) == word]
    return {"said": len(said), "right": sum(said)}


if __name__ == "__main__":
    main()
