"""The page on speed and the README say what was measured."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nonlocal_video.inference.runtimes.traceable import TOLERANCE

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "speed.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "model_cpu.json").read_text("utf-8"))


def script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return script("docs/make_speed_tables.py")


@pytest.fixture(scope="module")
def comparisons() -> ModuleType:
    return script("docs/make_comparison_tables.py")


def test_tables_are_the_results(tables: ModuleType, comparisons: ModuleType) -> None:
    assert tables.page_with_tables(PAGE) == PAGE
    assert comparisons.page_with_tables(PAGE) == PAGE
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


def test_time_and_memory_grow_as_the_page_says(tables: ModuleType) -> None:
    sizes = json.loads((ROOT / "benchmarks" / "results" / "scaling.json").read_text("utf-8"))["files"]["sizes"]
    assert [size["files"] for size in sizes] == [10, 100, 1_000, 10_000]
    smallest, *_, thousand, largest = sizes
    assert largest["journal_bytes"] / 10_000 == pytest.approx(thousand["journal_bytes"] / 1_000, rel=0.05)
    first, last = (float(tables.processor(smallest, size)) for size in (thousand, largest))
    assert last < 1.2 * first
    assert largest["child_peak_mib"] < 1.1 * smallest["child_peak_mib"]
    (grown,) = re.findall(r"peak grew by (\S+)%", PAGE)
    assert grown == f"{100 * (largest['peak_mib'] / smallest['peak_mib'] - 1):.1f}"
    assert largest["resume"]["cpu_seconds"] - smallest["resume"]["cpu_seconds"] < 9_990 * 0.1e-3
    (told,) = re.findall(r"10,000 files took the processor (\d+) ms each", PAGE)
    assert float(told) == last


def test_cores_took_turns(tables: ModuleType) -> None:
    cores = json.loads((ROOT / "benchmarks" / "results" / "scaling.json").read_text("utf-8"))["cores"]
    cases = [(case["runtime"], case["cores"]) for case in cores["cases"]]
    assert cases == [("torch", 1), ("torch", 2), ("openvino", 1), ("openvino", 2)]
    assert all(len(case["runs"]) == cores["rounds"] >= 2 for case in cores["cases"])
    made = [{"runtime": "torch", "cores": 1, "runs": [{"seconds_a_file": 4.0, "cpu_seconds": 30.0}] * 2}]
    made += [{"runtime": "torch", "cores": 2, "runs": [{"seconds_a_file": 2.5, "cpu_seconds": 40.0}] * 2}]
    table = tables.by_cores({**cores, "clips": 8, "cases": made})
    assert "| `torch` | 2 | 2.50 | 2.50, 2.50 | 5.0 | x1.60 |" in table


def test_the_readme_has_the_same_figure(tables: ModuleType) -> None:
    (told,) = re.findall(r"`--runtime openvino` does the network's part (\S+) times as fast", README)
    assert told == f"{tables.speed(RESULTS, 'full', 'openvino'):.1f}"


def test_the_tolerance_is_the_codes() -> None:
    assert f"differ by more than {TOLERANCE:.4f} of the largest" in PAGE


def test_the_commands_exist() -> None:
    for script in re.findall(r"python (\S+\.py)", PAGE):
        assert (ROOT / script).is_file(), script


def test_the_page_opens_with_the_peers() -> None:
    assert PAGE.index("<!-- peers -->") < PAGE.index("\n## ")


@pytest.mark.parametrize(("ratio", "said"), [(2.3, "reached (x2.30)"), (1.94, "not reached (x1.94)")])
def test_peers_whose_speed_is_told_or_who_could_not_be_run(comparisons: ModuleType, ratio: float, said: str) -> None:
    def measured(ratio: float) -> dict[str, Any]:
        return {"peer_seconds": 3.0, "our_seconds": 1.5, "ratio": ratio, "smallest_and_largest": [1.25, 2.75]}

    about = {"peer": {"torch": "2.9"}, "ours": {"torch": "2.9", "openvino": "2026.4"}}
    slow = {"single": measured(ratio), "folder": measured(2.6), "our_runtime": "openvino", "versions": about}
    machine = {"cores": 2, "threads": 2, "processor": "Some CPU"}
    cases = {
        "slow_r50": {**slow, "peer": "PyTorchVideo", "leaves_out": "much"},
        "lost": {"error": "fatal: no such place", "peer": "another", "leaves_out": ""},
    }
    results = {"machine": machine, "load_average": [0.1, 2.0], "rounds": 2, "num_clips": 8, "cases": cases}
    text = comparisons.peers(results)
    assert f"| `slow_r50` | PyTorchVideo | 3.00 | 1.50 | **x{ratio:.2f}** (1.25 to 2.75) | 3.00 | 1.50 |" in text
    assert f"one after another: {said}; and 2.5 times for a folder: reached (x2.60)." in text
    assert "another could not be run: `fatal: no such place`." in text


@pytest.mark.parametrize(
    ("top1", "low", "said"),
    [
        (291, 0.95, "bfloat16 passed. The intervals of bfloat16 reach below the rule."),
        (300, 0.99, "bfloat16 passed."),
        (290, 0.95, "Nothing passed."),
    ],
)
def test_the_rule_decides_what_passes(comparisons: ModuleType, top1: int, low: float, said: str) -> None:
    def count(number: int) -> dict[str, Any]:
        return {"count": number, "interval": [low, 1.0]}

    found = {
        "clips": 300, "same_top1": count(top1), "top1_in_top5": count(297), "same_top5": count(150),
        "where_sure": {"clips": 80, "same_top1": 80}, "logits": {"median": 0.01, "largest": 0.1},
        "cpu_speed": 2.0, "layers": 58, "quantised_layers": 0,
    }  # fmt: skip
    machine = {"cores": 2, "processor": "Some CPU", "instructions": ["amx_bf16"]}
    about = {"calibration": 100, "control": 50, "rounds": 5, "openvino": "1", "nncf": "2", "load_average": [0.0, 1.0]}
    text = comparisons.coarse({"fast": {**about, "machine": machine, "modes": {"float32": {}, "bf16": found}}})
    assert text.endswith(said)
    assert f"{top1 / 300:.1%} of 300" in text
    assert script("benchmarks/int8.py").NEEDED == comparisons.NEEDED
