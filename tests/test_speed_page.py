"""The page on speed and the README say what was measured."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from nonlocal_video.inference.runtimes.traceable import TOLERANCE

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "speed.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "model_cpu.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("speed_tables", ROOT / "docs" / "make_speed_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_the_results(tables: ModuleType) -> None:
    assert tables.page_with_tables(PAGE) == PAGE
    assert all(f"<!-- {marker} -->\n| view |" in PAGE for marker in ("views", "folder"))
    assert "<!-- precision -->\n|  | logits |" in PAGE


def test_everything_took_turns() -> None:
    rounds = RESULTS["network"]["rounds"]
    rows = [(row["view"], row["runtime"]) for row in RESULTS["network"]["rows"]]
    assert rows == [(view, runtime) for view in ("full", "fast") for runtime in ("eager", "torch", "openvino")]
    assert all(len(row["seconds"]) == rounds >= 3 for row in RESULTS["network"]["rows"])
    turns = [(run["view"], run["turn"], run["runtime"]) for run in RESULTS["folders"]]
    assert turns == [
        (view, turn, runtime)
        for view in ("full", "fast")
        for turn in range(len(turns) // 4)
        for runtime in ("torch", "openvino")
    ]


def test_the_readme_has_the_same_figure(tables: ModuleType) -> None:
    (told,) = re.findall(r"`--runtime openvino` does the network's part (\S+) times as fast", README)
    assert told == f"{tables.speed(RESULTS, 'full', 'openvino'):.1f}"


def test_the_tolerance_is_the_codes() -> None:
    assert f"differ by more than {TOLERANCE:.4f} of the largest" in PAGE


def test_the_commands_exist() -> None:
    for script in re.findall(r"python (\S+\.py)", PAGE):
        assert (ROOT / script).is_file(), script
