"""`benchmark ops`: that it measures what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from nonlocal_video.benchmark import ops, ops_report
from nonlocal_video.benchmark.ops_cases import OpCase, build, error
from nonlocal_video.benchmark.peak_memory import Peak, measure_peak
from nonlocal_video.blocks import VideoNonLocalBlock
from nonlocal_video.cli.benchmark import _real_features, benchmark
from nonlocal_video.errors import NonlocalVideoError, UsageError

ROOT = Path(__file__).parents[2]
MIB = 2**20


@pytest.fixture
def without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "measure_peak", lambda case, implementation, threads: Peak(case.num_positions * 1000, 0.5))


@pytest.mark.parametrize("kernel", ["gaussian", "embedded_gaussian", "dot_product", "concatenation"])
@pytest.mark.parametrize("size", [(100,), (2, 8, 8)])
def test_both_ways_compute_the_same(kernel: Any, size: tuple[int, ...]) -> None:
    case = OpCase(kernel, 8, size)
    with torch.no_grad():
        torch.testing.assert_close(build(case, "naive")(), build(case, "ours")(), atol=1e-5, rtol=1e-4)
    assert 0 <= error(case, "naive") < 1e-5
    assert 0 < error(case, "ours") < 1e-5


@pytest.mark.slow
def test_peak_is_that_of_the_run_alone() -> None:
    """A kernel whose peak is known: two matrices of 2048 x 2048 and the result; ours has neither."""
    case = OpCase("dot_product", 16, (2048,))
    naive, ours = (measure_peak(case, name, threads=1) for name in ("naive", "ours"))
    assert 31 * MIB < naive.bytes < 40 * MIB
    assert ours.bytes < 4 * MIB
    assert naive.seconds > 0


@pytest.mark.slow
def test_a_case_that_fails_says_why() -> None:
    with pytest.raises(NonlocalVideoError, match=r"measures the memory of OpCase\(kernel='dot'.*should be one of"):
        measure_peak(OpCase("dot", 4, (1, 2, 2)), "ours", threads=1)


@pytest.mark.usefixtures("without_processes")
def test_command(tmp_path: Path) -> None:
    page, output = tmp_path / "kernels.md", tmp_path / "new" / "ops.json"
    page.write_text(f"before\n\n{ops_report.BEGIN}\nold\n{ops_report.END}\n\nafter\n", "utf-8")
    result = CliRunner().invoke(benchmark, ["ops", "--quick", "--output", str(output), "--write-docs", str(page)])
    assert result.exit_code == 0, result.output
    assert "Kernels alone" in result.output
    results = json.loads(output.read_text("utf-8"))
    assert results["machine"]["torch"] == torch.__version__
    assert {row["kernel"] for row in results["kernels"]} == set(ops.ALONE)
    assert {row["kernel"] for row in results["large"]} == {
        "gaussian",
        "embedded_gaussian",
        "dot_product",
        "concatenation",
    }
    for row in [*results["kernels"], *results["blocks"]]:
        assert row["time_ratio"] > 0
        assert row["memory_ratio"] == 1
        assert row["ours"]["error"] < 1e-5
    assert results["scaling"]["dot_product"]["memory"] == pytest.approx(1)
    text = page.read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| dot_product | 8 | 64 |" in text


@pytest.mark.usefixtures("without_processes")
def test_a_matrix_that_does_not_fit_is_not_made_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "NAIVE_MATRIX_LIMIT_BYTES", 4 * 100**2)
    results = ops.benchmark_ops(quick=True, notify=lambda text: None)
    small, large = (row for row in results["kernels"] if row["kernel"] == "dot_product")
    assert small["naive"] is not None
    assert large["naive"] is None
    assert "not run: its matrices take" in ops_report.markdown(results)


def test_variants_against_the_full_block() -> None:
    torch.manual_seed(0)
    block = VideoNonLocalBlock(16, sub_sample=False, bn_layer=False).eval()
    torch.nn.init.normal_(block.W.weight)
    rows = {row["variant"]: row for row in ops.benchmark_variants(block, torch.randn(1, 16, 2, 8, 8))}
    assert rows["full"]["time_of_full"] == 1
    for exact in ("full", "memory_efficient", "sparse_attention, top_k = 256", "factorized_attention, rank = 8"):
        assert rows[exact]["error_max"] < 1e-5
    assert rows["sparse_attention, top_k = 16"]["error_rms"] > rows["sparse_attention, top_k = 64"]["error_rms"] > 1e-5


@pytest.mark.slow
def test_real_features_are_what_goes_into_the_default_models_block(data_folder: Path) -> None:
    block, features = _real_features(str(sorted((data_folder / "clips").glob("*/*"))[0]))
    assert features.shape[:2] == (1, block.in_channels)
    assert features.std() > 0


def test_page_without_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing", "utf-8")
    with pytest.raises(UsageError, match="once each"):
        ops_report.write_docs({}, page)


def test_the_page_shows_the_stored_results() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "ops.json").read_text("utf-8"))
    assert ops_report.markdown(results) in (ROOT / "docs" / "kernels.md").read_text("utf-8")


def test_the_stored_results_hold_the_claims() -> None:
    """Compare docs/kernels.md and the README with the measured run."""
    results = json.loads((ROOT / "benchmarks" / "results" / "ops.json").read_text("utf-8"))
    rows = {(row["kernel"], row["num_positions"]): row for row in results["kernels"]}
    for kernel, at_3136 in (("dot_product", 14), ("concatenation", 10)):
        assert rows[kernel, 3136]["time_ratio"] >= at_3136
        assert rows[kernel, 12544]["time_ratio"] >= 50
        assert max(results["scaling"][kernel].values()) <= 1.15
    assert rows["embedded_gaussian", 3136]["time_ratio"] >= 1.4
    assert rows["embedded_gaussian", 3136]["memory_ratio"] >= 6
    assert {row["kernel"] for row in results["large"]} == {
        "gaussian",
        "embedded_gaussian",
        "dot_product",
        "concatenation",
    }
    assert all(row["peak_mib"] < 2048 for row in results["large"])
