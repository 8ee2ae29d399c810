"""Whether attention helps the embedded default: its non-local block trained with the trunk frozen, against controls.

    python benchmarks/default_block.py --data DIR --labelled DIR DIR --output benchmarks/results/default_block.json

The student sees one short, small or partly hidden view of a clip; the target is the trunk's own answer averaged over
many full views of it. Only the block learns (Kullback-Leibler divergence to the target). Beside the block the same one
is trained with its attention replaced: by the identity (y_i = g(x_i)) and by the mean of g over all positions. A last
control only divides the trunk's logits by a constant. All begin with the same numbers, see the same views in the same
order and have the learning rate and the step that serve them best on validation clips. What then differs on test clips
is the attention's doing.

`--data` holds `clips/`, `stills/` and `sources.csv` (path,source). On an H100 of 80 GB the nine configurations take
12 minutes, without the decoding.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).parent))

from default_block_comparison import Evaluation, compare
from default_block_data import (
    FULL,
    Recipe,
    Sample,
    View,
    full_views,
    load_labelled,
    load_unlabelled,
    make_splits,
    scenes,
    student_view,
    with_filler,
)
from default_block_training import EVALUATED_VIEWS, VARIANTS, Bank, Configuration, Trunk, make_bank, make_targets

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.models.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "weights" / "i3d-nl-k400.safetensors"
NUM_FOLDS = 3
NUM_VIEWS = (16, 4)  # student's views of a clip and of a still
TEACHER_VIEWS = (6, 3)  # times and places; a still: places
RECIPES = {  # 160 pixels: at 112 the trunk is sure of wrong answers, and every control has much to repair
    "short": Recipe(num_frames=16),
    "hidden": Recipe(hidden=(0.2, 0.8)),
    "filled": Recipe(hidden=(0.2, 0.6), filled=True),
    "small": Recipe(resolution=80),
}
PLAIN = Configuration("hidden")
CONFIGURATIONS = {  # those with the same views together
    "filled": replace(PLAIN, recipe="filled"),
    "filled, regularised": replace(PLAIN, recipe="filled", dropout=0.3, weight_decay=0.1),
    "filled, random beginning": replace(
        PLAIN,
        recipe="filled",
        principal=False,
        block=replace(PLAIN.block, scale="inverse_sqrt"),
        learning_rates=(1e-3, 3e-3),
    ),
    "filled, after 5c": replace(PLAIN, recipe="filled", place="Mixed_5c"),
    "hidden": PLAIN,
    "hidden, regularised": replace(PLAIN, dropout=0.3, weight_decay=0.1),
    "hidden, dot product": replace(PLAIN, block=replace(PLAIN.block, nonlocal_type="dot_product", scale=None)),
    "short": replace(PLAIN, recipe="short"),
    "small": replace(PLAIN, recipe="small"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with clips/, stills/ and sources.csv")
    parser.add_argument("--labelled", type=Path, nargs="*", default=[], help="folders of clips with a Kinetics label")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    run(options.data, options.labelled, options.output, torch.device(options.device))


def run(data: Path, labelled: Sequence[Path], output: Path, device: torch.device) -> None:
    """Everything; the results are written after each configuration."""
    started = time.monotonic()

    def notify(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True)

    machine = describe_machine()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as in convolutions by default
        torch.backends.cudnn.benchmark = True
        machine["gpu"] = torch.cuda.get_device_name(device)
    network, card = load_checkpoint(WEIGHTS)
    trunk = Trunk(network, device)
    samples, folders = load(data, labelled, card.labels)
    unlabelled = samples[: folders["unlabelled"].stop]
    still = np.array([sample.is_still for sample in samples])
    scene_numbers = scenes(unlabelled)
    splits = make_splits(scene_numbers, still[: len(unlabelled)], NUM_FOLDS)
    samples = [replace(sample, frames=sample.frames.to(device)) for sample in samples]
    settings = {
        "files": {name: len(places) for name, places in folders.items()},
        "clips": int((~still[: len(unlabelled)]).sum()),
        "scenes of clips": len(np.unique(scene_numbers[~still[: len(unlabelled)]])),
        "folds": NUM_FOLDS,
        "views": NUM_VIEWS,
        "teacher_views": TEACHER_VIEWS,
        "variants": list(VARIANTS),
        "full": FULL,
    }
    notify(json.dumps(settings))
    results: dict[str, Any] = {"settings": settings, "machine": machine, "configurations": []}
    drawn = [
        full_views(sample.shape, *TEACHER_VIEWS, np.random.default_rng([0, index]), FULL)
        for index, sample in enumerate(samples)
    ]
    targets = make_targets(trunk, samples, drawn)
    notify("targets")
    test = Evaluation(
        targets, [card.labels.index(s.label) if s.label else -1 for s in samples], scene_numbers, still, folders
    )
    rng = np.random.default_rng(0)  # a middle view has nothing random
    middle = [[] if sample.is_still else full_views(sample.shape, 1, 1, rng, FULL) for sample in samples]
    full = make_bank("full", trunk, samples, middle)
    student: Bank | None = None
    for name, configuration in CONFIGURATIONS.items():
        began = time.monotonic()
        if student is None or student.name != configuration.recipe:
            student = None  # before the new features come, as both would need too much memory
            recipe = RECIPES[configuration.recipe]
            student = make_bank(configuration.recipe, trunk, samples, draw_views(recipe, samples))
        found = compare(configuration, trunk, {"student": student, "full": full}, test, splits)
        seconds = round(time.monotonic() - began, 1)
        results["configurations"].append(
            {"name": name, "seconds": seconds, "configuration": asdict(configuration)} | found
        )
        write(output, results)
        kl = ", ".join(f"{variant} {means['kl, student']:.3f}" for variant, means in found["test"].items())
        notify(f"{name!r}: KL {kl}")


def load(data: Path, labelled: Sequence[Path], labels: Sequence[str]) -> tuple[list[Sample], dict[str, range]]:
    """All files, and where those of each folder are; the unlabelled ones come first."""
    samples = load_unlabelled(data)
    folders = {"unlabelled": range(len(samples))}
    for folder in labelled:
        found = load_labelled(folder)
        unknown = sorted({str(sample.label) for sample in found} - set(labels))
        if unknown:
            sys.exit(f"{folder} has the labels {unknown}, which are not among the model's {len(labels)}.")
        folders[folder.name] = range(len(samples), len(samples) + len(found))
        samples += found
    return samples, folders


def draw_views(recipe: Recipe, samples: Sequence[Sample]) -> list[list[View]]:
    """The student's views of each sample. What fills them are stills only: no test clip is ever seen in training."""
    all_stills = [place for place, sample in enumerate(samples) if sample.is_still]
    views = []
    for index, sample in enumerate(samples):
        stills = [place for place in all_stills if place != index]
        of_sample = []
        for number in range(EVALUATED_VIEWS if sample.label else NUM_VIEWS[sample.is_still]):
            rng = np.random.default_rng([1, index, number])
            view = student_view(recipe, sample.shape, rng)
            if recipe.filled:
                other = int(rng.choice(stills))
                view = with_filler(view, recipe, samples[other].shape, other, rng)
            of_sample.append(view)
        views.append(of_sample)
    return views


def write(path: Path, results: dict[str, Any]) -> None:
    """A line per configuration; an existing file is replaced in one step."""
    head = json.dumps({key: value for key, value in results.items() if key != "configurations"}, indent=1)[:-2]
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in results["configurations"])
    temporary = path.with_suffix(".tmp")
    temporary.write_text(f'{head},\n "configurations": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    main()
