"""Figures of the default block's attention in docs/faithfulness.md are those that were measured."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from test_faithfulness_page import ROOT, script

PAGE = (ROOT / "docs" / "faithfulness.md").read_text("utf-8")
RESULTS = ROOT / "benchmarks" / "results"
FOUND: dict[str, Any] = json.loads((RESULTS / "block_attention.json").read_text("utf-8"))
FOUND_64: dict[str, Any] = json.loads((RESULTS / "block_attention_64.json").read_text("utf-8"))


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return script("benchmarks/block_attention.py")


def test_tables_are_the_results() -> None:
    tables = script("docs/make_block_attention.py")
    assert tables.page_with_tables(PAGE, FOUND, FOUND_64) == PAGE
    assert all(
        f"<!-- block_{kind} -->\n" in PAGE for kind in (*tables.TABLES, "settings_64", "maps_64", "differences_64")
    )


@pytest.mark.slow
def test_figures_follow_from_the_clips(benchmark: ModuleType) -> None:
    assert benchmark.figures(FOUND["clips"]) == FOUND["figures"]
    assert benchmark.figures(FOUND_64["clips"]) == FOUND_64["figures"]
    assert (FOUND["frames"], FOUND_64["frames"]) == (32, 64)
    asked = [row for row in FOUND["clips"] if row["part"] == "asked of"]
    assert (len(asked), len(FOUND["clips"])) == (28, 40)
    mean = np.mean([row["maps"][benchmark.SHIPPED]["correlation"] for row in asked])
    told = FOUND["figures"]["asked of"]["maps"][benchmark.SHIPPED]["correlation"]
    assert told["mean"] == pytest.approx(mean, abs=1e-4)
    assert told["interval"][0] < mean < told["interval"][1]


def test_what_the_study_calls_the_default_is_the_block_in_the_file(benchmark: ModuleType) -> None:
    """The study makes directions itself; its settings are those of the script that makes the file."""
    made = script("weights/make_default.py")
    assert (benchmark.SHIPPED_DIRECTIONS, benchmark.SHIPPED_PADDING) == (made.DIRECTIONS, made.PADDING_DIRECTIONS)
    torch.manual_seed(0)
    coarse = [torch.rand(1024, 2, 3, 3) for _ in range(3)]
    empty = torch.rand(1024, 2, 3, 3)
    kinds = benchmark.kinds
    theta = kinds.principal_directions(coarse, 5)
    rows = [made.rows_of(one) for one in coarse]
    torch.testing.assert_close(theta.abs().double(), made.principal_directions(rows, 5).abs(), rtol=0, atol=1e-4)
    ours, theirs = kinds.padding_directions(empty, 2), made.padding_directions(empty, 2)
    torch.testing.assert_close(ours.abs().double(), theirs.abs(), rtol=0, atol=1e-4)
    keys = kinds.without(theta, ours)
    torch.testing.assert_close(keys @ ours.T, torch.zeros(5, 2), rtol=0, atol=1e-5)


def test_the_dot_product_received_is_the_mean_of_the_products(benchmark: ModuleType) -> None:
    torch.manual_seed(0)
    kinds = benchmark.kinds
    coarse = torch.rand(8, 2, 3, 3)
    features = kinds.Features(torch.rand(8, 4, 6, 6), coarse, torch.rand(8, 2, 3, 3), torch.rand(2, 3, 3))
    rows = coarse.flatten(1).T
    products = torch.einsum("nc,mc->nm", rows, rows)
    torch.testing.assert_close(kinds.dot_product(features).flatten(), products.mean(0) / len(rows))
    query = features.query()
    one = kinds.dot_product_row(features, query, torch.eye(8)).flatten()
    torch.testing.assert_close(one, products[query])
    above = kinds.above(one, products.mean(0))
    assert float(above.mean()) == pytest.approx(0, abs=1e-6)


def test_a_map_on_the_border_alone_has_all_of_its_share_there(benchmark: ModuleType) -> None:
    values = np.zeros((2, 28, 28), np.float32)
    values[:, :4] = 1
    evidence = np.arange(values.size, dtype=np.float32).reshape(values.shape)
    assert benchmark.looks(values, evidence)["border"] == 1
    assert benchmark.looks(evidence, evidence)["correlation"] == 1
    assert benchmark.looks(np.ones_like(values) + 1e-3 * evidence, evidence)["border"] == pytest.approx(0.49, abs=0.01)


OTHERS = (
    "former block",
    "dot product",
    "cosine",
    "norm",
    "centre",
    "dot product, without 4 of the padding, finer, root of the norm",
)


@pytest.mark.parametrize("other", OTHERS)
def test_attention_comes_nearer_to_the_evidence_than(other: str) -> None:
    assert "each beyond its interval" in PAGE
    less = FOUND["figures"]["asked of"]["maps"][other]["correlation"]["less_shipped"]
    assert less["interval"][0] < less["interval"][1] < 0


def test_what_is_said_in_figures_holds(benchmark: ModuleType) -> None:
    maps = FOUND["figures"]["asked of"]["maps"]
    shipped = maps[benchmark.SHIPPED]
    assert f"a correlation of {shipped['correlation']['mean']:.2f} with that of the evidence" in PAGE
    assert f"rank correlation {shipped['correlation']['mean']:.2f}" in " ".join(
        (ROOT / "README.md").read_text("utf-8").split()
    )
    assert maps["evidence"]["border"]["mean"] < shipped["border"]["mean"] < maps["evidence"]["border"]["mean"] + 0.05
    # Padding: four directions do what an empty clip's features do, and eight no more.
    for name in ("dot product, less empty", "dot product, without 8 of the padding"):
        assert abs(maps[name]["correlation"]["less_shipped"]["mean"]) < 0.02
    # Blurring.
    former, norm, centre = maps["former block"], maps["norm"], maps["centre"]
    assert FOUND["figures"]["asked of"]["perturbed"] == FOUND["figures"]["asked of"]["clips"]
    told = [f"{one[figure]['mean']:.2f}" for figure in ("lost", "kept") for one in (shipped, former)]
    words = "cost as much as the former block's ({} and {}), within the interval, "
    words += "and only they bring back more ({} and {}), beyond it"
    assert words.format(*told) in " ".join(PAGE.split())
    for within in (former["lost"], norm["lost"]):
        low, high = within["less_shipped"]["interval"]
        assert low < 0 < high
    for beyond in (former["kept"], norm["kept"], centre["lost"], centre["kept"]):
        assert beyond["less_shipped"]["interval"][1] < 0
    at_64 = FOUND_64["figures"]["asked of"]["maps"]
    assert "They do neither more nor less than the length of the features" in PAGE
    assert at_64["former block"]["kept"]["less_shipped"]["interval"][1] < 0
    for figure in ("lost", "kept"):
        low, high = at_64["norm"][figure]["less_shipped"]["interval"]
        assert low < 0 < high
    assert at_64["norm"]["correlation"]["less_shipped"]["interval"][1] < 0
