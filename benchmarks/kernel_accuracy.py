"""The four kernels on one task, accuracy beside cost; and a block that joins progressively against one there at once.

    python benchmarks/kernel_accuracy.py --write-docs

The networks, clips, steps, optimiser and seeds are those of `long_range.py`; only the block's kernel differs, or when
it joins. Runs that the output file already has are kept. `--table` trains nothing and prints the tables of the stored
runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parent))

from long_range import ROOT, SPACETIME, Settings, as_json, build_network, interval, load, train_network
from long_range_data import HEIGHT, NUM_FRAMES, WIDTH

from nonlocal_video.analysis import ProgressiveSchedule, measure_speed, network_complexity
from nonlocal_video.blocks import NonLocalConfig

RESULTS = ROOT / "benchmarks" / "results" / "kernel_accuracy.json"
KERNEL_COSTS = ROOT / "benchmarks" / "results" / "ops.json"
DOCS = ROOT / "docs" / "tutorial.md"
SETTINGS = Settings(curve_every=5)
SEEDS = (11, 12, 13, 14, 15)
BLOCKS: dict[str, NonLocalConfig] = {
    "gaussian": replace(SPACETIME, nonlocal_type="gaussian"),
    "embedded_gaussian": SPACETIME,
    "dot_product": replace(SPACETIME, nonlocal_type="dot_product"),
    "concatenation": replace(SPACETIME, nonlocal_type="concatenation"),
}
PROGRESSIVE = "progressive"
STEPWISE = ProgressiveSchedule(warmup_epochs=60, ramp_epochs=60, stages=(2,))
"""Steps instead of epochs: 60 without the block, which stands in stage 2, and 60 in which its gate opens."""
LEARNT_LOSS = 0.1
"""Nats; a run has learnt the task from the step after which its training loss stays below this."""
NUM_TIMED_RUNS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="train nothing, print the tables of the output file")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/tutorial.md")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    results = load(arguments.output, SETTINGS)
    if not arguments.table:
        results.setdefault("cost", measure_cost())
        done = {(run["variant"], run["seed"]) for run in results["runs"]}
        for seed in arguments.seeds:
            for variant in (*BLOCKS, PROGRESSIVE):
                if (variant, seed) not in done:
                    results["runs"].append(train_and_test(variant, seed, SETTINGS))
                    results["runs"].sort(key=lambda run: ([*BLOCKS, PROGRESSIVE].index(run["variant"]), run["seed"]))
                    arguments.output.write_text(as_json(results), encoding="utf-8")
                    print(f"{variant}, seed {seed}", flush=True)
    tables = markdown(results, json.loads(KERNEL_COSTS.read_text("utf-8")))
    for table in tables.values():
        print(table, end="\n\n")
    if arguments.write_docs:
        text = DOCS.read_text("utf-8")
        for name, table in tables.items():
            before, rest = text.split(f"<!-- {name} -->\n")
            text = f"{before}<!-- {name} -->\n{table}\n<!-- /{name} -->{rest.split(f'<!-- /{name} -->')[1]}"
        DOCS.write_text(text, encoding="utf-8")


def train_and_test(variant: str, seed: int, settings: Settings) -> dict[str, Any]:
    """One run. The seed settles the initial weights, the training clips and the test clips."""
    torch.manual_seed(seed)
    network = build_network(BLOCKS.get(variant, SPACETIME))
    blocks = network.nonlocal_layers().values()

    def open_gates(step: int) -> None:
        for block in blocks:
            block.gate = STEPWISE.gates(step)[2]

    run = train_network(network, seed, settings, *([open_gates] if variant == PROGRESSIVE else []))
    return {"variant": variant, "seed": seed} | run


def measure_cost() -> dict[str, dict[str, float]]:
    """Kernel -> multiply-accumulates of the block, and milliseconds of a forward pass of the network, for one clip."""
    shape = (1, 3, NUM_FRAMES, HEIGHT, WIDTH)
    networks = {name: build_network(block) for name, block in BLOCKS.items()}
    speeds = measure_speed(networks, (32, *shape[1:]), num_runs=NUM_TIMED_RUNS, memory=False)
    return {
        speed.network: {
            "block_macs": network_complexity(networks[speed.network], shape).nonlocal_macs,
            "milliseconds": round(1000 * speed.median_seconds / 32, 3),
        }
        for speed in speeds
    }


def learnt_after(run: Mapping[str, Any], every: int) -> int | None:
    """The number of steps after which the training loss stays below `LEARNT_LOSS`; None if it never does."""
    losses = run["training_loss"]
    high = [index for index, loss in enumerate(losses) if loss >= LEARNT_LOSS]
    first = high[-1] + 1 if high else 0
    return None if first == len(losses) else first * every


def markdown(results: Mapping[str, Any], kernel_costs: Mapping[str, Any]) -> dict[str, str]:
    """Section of the docs -> its table."""
    every = results["settings"]["curve_every"]
    runs = {
        name: [run for run in results["runs"] if run["variant"] == name and run["seed"] in SEEDS]
        for name in (*BLOCKS, PROGRESSIVE)
    }
    large = {row["kernel"]: row for row in kernel_costs["blocks"] if tuple(row["size"]) == (8, 32, 32)}
    lines = [
        "| kernel | accuracy, % | cross-entropy | steps until learnt | this block, MMAC | network, ms a clip | "
        f"a large block, ms |\n|{' --- |' * 7}"
    ]
    for name in BLOCKS:
        cost = results["cost"][name]
        lines.append(
            f"| {name} | {_measured(runs[name], every)} | {cost['block_macs'] / 1e6:.2f} | "
            f"{cost['milliseconds']:.2f} | {large[name]['ours']['milliseconds']:.0f} |"
        )
    kernels = "\n".join(lines)
    lines = [f"| block | accuracy, % | cross-entropy | steps until learnt |\n|{' --- |' * 4}"]
    for name, title in (("embedded_gaussian", "there from the start"), (PROGRESSIVE, "joins progressively")):
        lines.append(f"| {title} | {_measured(runs[name], every)} |")
    return {"kernels": kernels, "progressive": "\n".join(lines)}


def _measured(runs: Sequence[Mapping[str, Any]], every: int) -> str:
    """Three cells: mean and half of the 95% interval over seeds, and the steps of the fastest to the slowest seed."""
    accuracy, half_accuracy = interval([100 * run["accuracy"]["all"] for run in runs])
    loss, half_loss = interval([run["cross_entropy"]["all"] for run in runs])
    steps = [learnt_after(run, every) for run in runs]
    learnt = sorted(step for step in steps if step is not None)
    words = f"median {statistics.median(learnt):.0f}, {learnt[0]} to {learnt[-1]}" if learnt else "never"
    if len(learnt) < len(steps):
        words += f" ({len(steps) - len(learnt)} of {len(steps)} never)"
    return f"{accuracy:.1f} ± {half_accuracy:.1f} | {loss:.4f} ± {half_loss:.4f} | {words}"


if __name__ == "__main__":
    main()
