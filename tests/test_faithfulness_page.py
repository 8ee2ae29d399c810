"""The page on faithful overlays says what was measured."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "faithfulness.md").read_text("utf-8")
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "faithfulness.json").read_text("utf-8"))


def script(path: str) -> ModuleType:
    name = f"script {path}"
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_tables_are_the_results() -> None:
    tables = script("docs/make_faithfulness.py")
    assert tables.page_with_tables(PAGE, RESULTS) == PAGE
    assert all(f"<!-- {marker} -->\n" in PAGE and f"<!-- {marker} -->\n<!--" not in PAGE for marker in tables.TABLES)
    assert Image.open(tables.PICTURE).size == (900, 400)


def test_figures_follow_from_the_clips() -> None:
    assert script("benchmarks/faithfulness.py").figures(RESULTS["clips"]) == RESULTS["figures"]


def test_areas_and_gains_by_hand() -> None:
    fractions = np.array(RESULTS["settings"]["fractions"]["blur"])
    of_clips = {
        name: np.array([clip["curves"]["blur"][name][0]["deletion"] for clip in RESULTS["clips"]])
        for name in ("class evidence", "centre")
    }
    widths = np.diff(fractions)
    areas = {name: ((rows[:, 1:] + rows[:, :-1]) / 2 * widths).sum(axis=1) for name, rows in of_clips.items()}
    found = RESULTS["figures"]["blur"]
    for name, values in areas.items():
        assert found["areas"][name]["deletion"]["mean"] == pytest.approx(values.mean(), abs=1e-4)
    gain = found["gains"]["class evidence - centre"]["deletion"]
    assert gain["mean"] == pytest.approx((areas["centre"] - areas["class evidence"]).mean(), abs=1e-4)
    assert gain["clips_above_0"] == (areas["centre"] > areas["class evidence"]).sum()


def test_every_curve_of_a_clip_has_the_same_ends() -> None:
    for clip in RESULTS["clips"]:
        for curves in clip["curves"].values():
            rows = [row for draws in curves.values() for row in draws]
            ends = {(row["deletion"][0], row["insertion"][-1]) for row in rows}
            assert len(ends) == 1
            assert ends.pop() == pytest.approx((clip["score"],) * 2, abs=1e-4)
            assert len({(row["deletion"][-1], row["insertion"][0]) for row in rows}) == 1


def test_links_and_scripts_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert target.startswith("http") or (ROOT / "docs" / target).exists(), target
    for name in re.findall(r"python (\S+\.py)", PAGE):
        assert (ROOT / name).is_file(), name


BLUR, COLOUR, EITHER = ("blur",), ("mean_colour",), ("blur", "mean_colour")
DELETION, INSERTION, BOTH = ("deletion",), ("insertion",), ("deletion", "insertion")
EVIDENCE, FLAT = "class evidence", "class evidence, averaged over time"


@pytest.mark.parametrize(
    ("words", "pair", "baselines", "curves", "low", "high"),
    [
        ("It beats the same shape elsewhere at deletion and insertion, with both baselines",
         f"{EVIDENCE} - {EVIDENCE}, displaced", EITHER, BOTH, 0, 1),
        ("the middle of the frame at\ninsertion with both", f"{EVIDENCE} - centre", EITHER, INSERTION, 0, 1),
        ("what little shows with blur", f"{EVIDENCE} - centre", BLUR, DELETION, 0, 0.2),
        ("is gone with the mean colour", f"{EVIDENCE} - centre", COLOUR, DELETION, -0.1, None),
        ("the same map is better at deletion", f"{EVIDENCE} - {FLAT}", BLUR, DELETION, -1, 0),
        ("no worse at insertion", f"{EVIDENCE} - {FLAT}", BLUR, INSERTION, -0.1, None),
        ("it beats the middle of\nthe frame at both", f"{FLAT} - centre", BLUR, BOTH, 0, 1),
    ],
)  # fmt: skip
def test_what_is_said_of_the_maps_holds(
    words: str, pair: str, baselines: tuple[str, ...], curves: tuple[str, ...], low: float, high: float | None
) -> None:
    """The interval lies between two values; with None for the upper one it holds 0."""
    assert words in PAGE
    for baseline in baselines:
        for curve in curves:
            found = RESULTS["figures"][baseline]["gains"][pair][curve]["interval"]
            assert low < found[0] < found[1], (baseline, curve)
            assert found[0] < 0 < found[1] if high is None else found[1] < high, (baseline, curve)


def test_what_is_said_of_shuffled_weights_holds() -> None:
    found: dict[str, Any] = RESULTS["figures"]["rank_correlation"]
    for name in ("class evidence, head shuffled", "class evidence, trunk shuffled"):
        low, high = found[name]["interval"]
        assert low < 0 < high


def test_what_is_said_of_single_clips_holds() -> None:
    ends = [clip["curves"]["blur"]["class evidence"][0]["deletion"] for clip in RESULTS["clips"]]
    assert "One clip has more of its class when all of it is blurred" in PAGE
    assert sum(scores[-1] > scores[0] for scores in ends) == 1
    assert "loses a quarter of its places" in PAGE
    quarter = RESULTS["settings"]["fractions"]["blur"].index(0.25)
    assert any(scores[0] > 0.9999 and scores[quarter] > 0.995 for scores in ends)
