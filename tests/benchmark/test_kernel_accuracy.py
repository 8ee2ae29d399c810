"""`benchmarks/kernel_accuracy.py`: only the kernel differs, a gate opens as planned, docs say what the results say."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import kernel_accuracy
from kernel_accuracy import BLOCKS, PROGRESSIVE, SEEDS, SETTINGS, STEPWISE, learnt_after
from long_range import Settings, build_network

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    results: dict[str, Any] = json.loads(kernel_accuracy.RESULTS.read_text("utf-8"))
    return results


def test_docs_have_the_stored_tables(stored: dict[str, Any]) -> None:
    page = kernel_accuracy.DOCS.read_text("utf-8")
    costs = json.loads(kernel_accuracy.KERNEL_COSTS.read_text("utf-8"))
    for name, table in kernel_accuracy.markdown(stored, costs).items():
        assert f"<!-- {name} -->\n{table}\n<!-- /{name} -->" in page
    assert stored["settings"] == asdict(SETTINGS)
    assert [(run["variant"], run["seed"]) for run in stored["runs"]] == [
        (variant, seed) for variant in (*BLOCKS, PROGRESSIVE) for seed in SEEDS
    ]


def test_the_embedded_gaussians_runs_are_those_of_the_study_of_reach(stored: dict[str, Any]) -> None:
    """The same network, seed and clips: what differs are the times."""
    reach = json.loads((ROOT / "benchmarks" / "results" / "long_range.json").read_text("utf-8"))
    before = {run["seed"]: run["accuracy"] for run in reach["runs"] if run["variant"] == "spacetime"}
    ours = {run["seed"]: run["accuracy"] for run in stored["runs"] if run["variant"] == "embedded_gaussian"}
    assert ours == before


def test_networks_differ_in_the_kernel_alone() -> None:
    for name, config in BLOCKS.items():
        assert replace(config, nonlocal_type="embedded_gaussian") == BLOCKS["embedded_gaussian"]
        (block,) = build_network(config).nonlocal_layers().values()
        assert block.nonlocal_type == name
    assert replace(SETTINGS, curve_every=Settings().curve_every) == Settings()


def test_the_gate_is_shut_and_then_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    gates: list[float] = []

    def record(network: Any, seed: int, settings: Settings, before_step: Any = None) -> dict[str, Any]:
        (block,) = network.nonlocal_layers().values()
        for step in range(settings.num_steps):
            if before_step is not None:
                before_step(step)
            gates.append(block.gate)
        return {}

    monkeypatch.setattr(kernel_accuracy, "train_network", record)
    kernel_accuracy.train_and_test(PROGRESSIVE, 0, SETTINGS)
    assert set(gates[:61]) == {0.0}
    assert gates[90] == 0.5
    assert set(gates[120:]) == {1.0}
    assert STEPWISE.total_epochs == 120
    gates.clear()
    kernel_accuracy.train_and_test("embedded_gaussian", 0, SETTINGS)
    assert set(gates) == {1.0}


@pytest.mark.parametrize(
    ("losses", "steps"),
    [([0.7, 0.05, 0.2, 0.09, 0.01], 15), ([0.05, 0.01], 0), ([0.01, 0.7], None), ([0.7, 0.1], None)],
)
def test_when_a_run_has_learnt(losses: list[float], steps: int | None) -> None:
    assert learnt_after({"training_loss": losses}, every=5) == steps


def test_a_run_of_a_few_steps() -> None:
    torch.set_num_threads(1)
    tiny = Settings(num_steps=2, batch_size=16, num_warmup_steps=1, num_test_clips=16, curve_every=1)
    first, again = (kernel_accuracy.train_and_test("concatenation", 1, tiny) for _ in range(2))
    assert first | {"seconds": 0} == again | {"seconds": 0}
    assert (first["variant"], first["seed"], len(first["training_loss"])) == ("concatenation", 1, 2)
