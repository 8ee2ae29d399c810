"""The study of int8 and bfloat16 by OpenVINO counts what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("int8_study", ROOT / "benchmarks" / "int8.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_agreement_is_counted_in_three_ways(study: ModuleType) -> None:
    exact = np.array([[9, 8, 7, 6, 5, 0, 0, 0]] * 4, np.float32)
    found = exact.copy()
    found[1, :2] = 8, 9  # another first class, the same five
    found[2, 4:6] = 0, 5  # the same first class, another of five
    found[3] = [0, 8, 7, 6, 5, 4, 1, 1]  # the first class is not among the five
    of_all = study.agreement(found, exact)
    assert {name: of_all[name]["count"] for name in ("same_top1", "top1_in_top5", "same_top5")} == {
        "same_top1": 2,
        "top1_in_top5": 3,
        "same_top5": 2,
    }
    assert of_all["where_sure"] == {"clips": 4, "same_top1": 2}
    assert of_all["logits"]["largest"] == pytest.approx(1)


@pytest.mark.parametrize("count", [0, 7, 291, 300])
def test_the_interval_is_the_exact_one(study: ModuleType, count: int) -> None:
    expected = binomtest(count, 300).proportion_ci(method="exact")
    assert study.interval(count, 300) == pytest.approx(list(expected), abs=1e-4)
