"""Measure what a non-local block's reach is worth: small networks on clips whose class relates two places.

    python benchmarks/long_range.py --workers 2 --write-docs

Trains the same small `Video3DResNet` without a block and with one block of each mode on the clips of
`long_range_data.py`: same steps, batches, optimiser and learning rate, several seeds. Runs that the output file already
has with the same settings are kept, so the command can be interrupted and started again. `--table` trains nothing
and only prints the tables of the stored results.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

sys.path.append(str(Path(__file__).parent))

from long_range_data import CLIPS_PER_ROUND, NUM_CLASSES, NUM_FRAMES, SEPARATIONS, draw_clips

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.blocks import NonLocalConfig
from nonlocal_video.models.resnet3d import ResNet3DConfig, Video3DResNet

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "long_range.json"
DOCS = ROOT / "docs" / "long_range.md"
PICTURE = ROOT / "docs" / "images" / "long_range.jpg"
BLOCK_AT = "layer2.0"
SPACETIME = NonLocalConfig(mode="spacetime", sub_sample=False)  # keys not pooled: nothing but the mode differs
VARIANTS: dict[str, NonLocalConfig | None] = {
    "none": None,
    # The same parameters, but each position sees only itself: groups of one frame, one place.
    "self_only": replace(SPACETIME, mode="time_only", temporal_groups=1),
    "space_only": replace(SPACETIME, mode="space_only"),
    "time_only": replace(SPACETIME, mode="time_only"),
    "spacetime": SPACETIME,
    # Theta is held at zero: all weights are 1/N whatever the positions hold.
    "uniform": SPACETIME,
}
TITLES = {
    "none": "no block",
    "self_only": "block that sees only itself",
    "space_only": "`space_only`",
    "time_only": "`time_only`",
    "spacetime": "`spacetime`",
    "uniform": "`spacetime`, equal weights",
}
COMPARISONS = (
    ("self_only", "none"),
    ("space_only", "none"),
    ("time_only", "none"),
    ("spacetime", "space_only"),
    ("spacetime", "time_only"),
    ("spacetime", "uniform"),
)
# 0.975 quantiles of Student's t by the number of seeds, which is one more than the degrees of freedom.
T_QUANTILES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


@dataclass(frozen=True)
class Settings:
    """Settings of all runs. Chosen on seeds 0 to 8 and 100, which are not among the reported ones."""

    num_steps: int = 300
    batch_size: int = 32
    learning_rate: float = 3e-3
    """Its peak: it rises linearly over the warm-up and falls to zero as a half cosine over all steps."""
    num_warmup_steps: int = 50
    weight_decay: float = 1e-4
    num_test_clips: int = 1920
    curve_every: int = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[11, 12, 13, 14, 15])
    parser.add_argument("--steps", type=int, default=Settings.num_steps)
    parser.add_argument("--workers", type=int, default=1, help="processes, each with one thread")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="train nothing, print the tables of the output file")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into the docs and draw the picture")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    settings = Settings(num_steps=arguments.steps)
    if arguments.table:
        results = json.loads(arguments.output.read_text("utf-8"))
    else:
        results = load(arguments.output, settings)
        measure(results, arguments.variants, arguments.seeds, settings, arguments.workers, arguments.output)
    table = markdown(results["runs"])
    print(table)
    if arguments.write_docs:
        before, rest = DOCS.read_text("utf-8").split("<!-- table -->\n")
        after = rest.split("<!-- /table -->")[1]
        DOCS.write_text(f"{before}<!-- table -->\n{table}\n<!-- /table -->{after}", encoding="utf-8")
        draw_picture(PICTURE)


def load(path: Path, settings: Settings) -> dict[str, Any]:
    """The results so far; new ones if there is no file."""
    if not path.exists():
        return {"settings": asdict(settings), "machine": describe_machine(), "runs": []}
    results: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if results["settings"] != asdict(settings):
        sys.exit(
            f"{path} has runs with the settings {results['settings']}, which are not {asdict(settings)}; give another "
            "--output, or move that file away."
        )
    return results


def measure(
    results: dict[str, Any],
    variants: Sequence[str],
    seeds: Sequence[int],
    settings: Settings,
    num_workers: int,
    output: Path,
) -> None:
    """Adds the runs that are missing, and writes the file after each."""
    done = {(run["variant"], run["seed"]) for run in results["runs"]}
    missing = [(variant, seed) for seed in seeds for variant in variants if (variant, seed) not in done]
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(train_and_test, variant, seed, settings) for variant, seed in missing]
        for future in as_completed(futures):
            run = future.result()
            print(f"{run['variant']}, seed {run['seed']}: {run['accuracy']} in {run['seconds']} s", flush=True)
            results["runs"].append(run)
            results["runs"].sort(key=lambda run: (list(VARIANTS).index(run["variant"]), run["seed"]))
            output.parent.mkdir(exist_ok=True)
            output.write_text(as_json(results), encoding="utf-8")


def build(variant: str) -> Video3DResNet:
    """The network of a variant, newly initialised."""
    network = build_network(VARIANTS[variant])
    if variant == "uniform":
        for layer in network.nonlocal_layers().values():
            assert layer.theta is not None
            for parameter in layer.theta.parameters():
                torch.nn.init.zeros_(parameter).requires_grad_(False)
    return network


def build_network(block: NonLocalConfig | None) -> Video3DResNet:
    """One bottleneck a stage; without a block a unit of layer 4 sees 37 of 72 pixels and 3 of 12 frames."""
    network = Video3DResNet.from_config(
        ResNet3DConfig(
            num_classes=NUM_CLASSES,
            block="bottleneck",
            blocks_per_stage=(1, 1, 1, 1),
            width=6,
            stem_kernel=(3, 5, 5),
            stem_stride=(3, 4, 4),
            stem_pool=None,
            stage_strides=((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 2, 2)),
            temporal_kernels=((1,), (1,), (1,), (1,)),
            nonlocal_blocks={} if block is None else {BLOCK_AT: block},
        )
    )
    return network.to(memory_format=torch.channels_last_3d)


def train_and_test(variant: str, seed: int, settings: Settings) -> dict[str, Any]:
    """One run. The seed settles the initial weights, the training clips and the test clips."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return {"variant": variant, "seed": seed} | train_network(build(variant), seed, settings)


def train_network(
    network: Video3DResNet, seed: int, settings: Settings, before_step: Callable[[int], None] = lambda step: None
) -> dict[str, Any]:
    """Train a new network and test it; `before_step` is called with the number of steps done."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min((step + 1) / settings.num_warmup_steps, 1) * (1 + math.cos(math.pi * step / settings.num_steps)) / 2
        ),
    )
    train_rng, test_rng = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    started = time.perf_counter()
    losses: list[float] = []
    network.train()
    for step in range(settings.num_steps):
        before_step(step)
        clips = draw_clips(settings.batch_size, train_rng)
        loss = F.cross_entropy(network(clips.video), clips.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    every = settings.curve_every
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "seconds": round(time.perf_counter() - started, 1),
        "training_loss": [round(statistics.fmean(losses[i : i + every]), 4) for i in range(0, len(losses), every)],
    } | evaluate(network, settings.num_test_clips, test_rng)


@torch.inference_mode()
def evaluate(network: torch.nn.Module, num_clips: int, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Accuracy and cross-entropy (nats) on new clips, of each separation and of all."""
    network.eval()
    per_batch = 5 * CLIPS_PER_ROUND
    separations, right, losses = [], [], []
    for start in range(0, num_clips, per_batch):
        clips = draw_clips(min(per_batch, num_clips - start), rng)
        logits = network(clips.video)
        separations.append(torch.from_numpy(clips.separations))
        right.append((logits.argmax(dim=1) == clips.labels).double())
        losses.append(F.cross_entropy(logits, clips.labels, reduction="none").double())
    which = torch.cat(separations)
    return {
        name: {"all": round(values.mean().item(), 4)}
        | {SEPARATIONS[index]: round(values[which == index].mean().item(), 4) for index in range(len(SEPARATIONS))}
        for name, values in (("accuracy", torch.cat(right)), ("cross_entropy", torch.cat(losses)))
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95% interval, Student's t."""
    if len(values) not in T_QUANTILES:
        raise ValueError(f"An interval needs 2 to {max(T_QUANTILES)} seeds; there are {len(values)}.")
    half_width = T_QUANTILES[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), half_width


def markdown(runs: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy and cross-entropy of every network, then their differences at the same seeds."""
    by_seed = {name: {run["seed"]: run for run in runs if run["variant"] == name} for name in TITLES}
    head = f"| all clips | near | far in space | far in time | far in both |\n|{' --- |' * 6}"
    blocks = []
    for measure_name, cell in _CELLS.items():
        lines = [f"| {measure_name.replace('_', '-')} {head}"]
        for name, title in TITLES.items():
            if found := by_seed[name].values():
                columns = ([run[measure_name][column] for run in found] for column in ("all", *SEPARATIONS))
                lines.append(f"| {title} | {' | '.join(map(cell, columns))} |")
        blocks.append("\n".join(lines))
    lines = [f"| difference at the same seeds, all clips | accuracy | cross-entropy |\n|{' --- |' * 3}"]
    for better, worse in COMPARISONS:
        if seeds := sorted(by_seed[better].keys() & by_seed[worse].keys()):
            cells = [
                cell([by_seed[better][seed][name]["all"] - by_seed[worse][seed][name]["all"] for seed in seeds])
                for name, cell in _CELLS.items()
            ]
            lines.append(f"| {TITLES[better]} − {TITLES[worse]} | {' | '.join(cells)} |")
    return "\n\n".join([*blocks, "\n".join(lines)])


def draw_picture(path: Path, scale: int = 2, every: int = 2) -> None:
    """One clip of each separation, from left to right as in `SEPARATIONS`, every other of the same colour."""
    scenes = draw_clips(CLIPS_PER_ROUND, np.random.default_rng(8)).video.unflatten(0, (len(SEPARATIONS), -1))
    columns = []
    for index, colourings in enumerate(scenes):
        clip = colourings[1 + 2 * (index % 2)]  # of (0, 0), (0, 1), (1, 0), (1, 1)
        frames = clip[:, :NUM_FRAMES:every].permute(1, 2, 3, 0)  # (3, T, H, W) -> (T, H, W, 3)
        framed = F.pad(frames, (0, 0, 2, 2, 1, 1), value=1.0)
        columns.append(framed.flatten(0, 1))  # (T (H + 2), W + 4, 3)
    sheet = (torch.cat(columns, dim=1).clamp(0, 1) * 255).to(torch.uint8).numpy()
    picture = Image.fromarray(sheet)
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    picture.save(path, quality=80, optimize=True)


def _cell(values: Sequence[float], decimals: int) -> str:
    """One seed has no interval."""
    if len(values) == 1:
        return f"{values[0]:.{decimals}f}"
    mean, half_width = interval(values)
    return f"{mean:.{decimals}f} ± {half_width:.{decimals}f}"


_CELLS: dict[str, Callable[[Sequence[float]], str]] = {
    "accuracy": lambda values: _cell([100 * value for value in values], decimals=1),  # in percent
    "cross_entropy": lambda values: _cell(values, decimals=3),
}


def as_json(results: Mapping[str, Any]) -> str:
    """One line a run, so that 30 curves stay readable."""
    head = json.dumps({key: value for key, value in results.items() if key != "runs"}, indent=1)[:-2]
    runs = ",\n".join(f"  {json.dumps(run)}" for run in results["runs"])
    return f'{head},\n "runs": [\n{runs}\n ]\n}}\n'


if __name__ == "__main__":
    main()
