"""Whether attention helps the embedded default: its non-local block trained with the trunk frozen, against controls.

    python benchmarks/default_block.py --data DIR --labelled DIR --output OUT --minutes 12 --device cuda

The student sees one short, small or partly hidden view of a clip; the target is the trunk's own answer averaged over
many full views of it. Only the block learns (Kullback-Leibler divergence to the target). Beside the block the same one
is trained with its attention replaced: by the identity (y_i = g(x_i)), by the mean of g over all positions, and, if
asked for, by one softmax for all queries. A last control only divides the trunk's logits by a constant. All begin with
the same numbers, see the same views in the same order and have the learning rate and the step that serve them best on
validation clips. What then differs on test clips is the attention's doing.

DIR holds `clips/`, `stills/` and `sources.csv` (path,source). Configurations that the output already has are skipped,
so the command can be interrupted and started again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).parent))

from default_block_comparison import Evaluation, compare, margin
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
from default_block_training import (
    EVALUATED_VIEWS,
    NONE,
    VARIANTS,
    Bank,
    Configuration,
    OutOfTime,
    Trunk,
    make_bank,
    make_targets,
)

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.models.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[1]
MAX_BLOCK_FILES = 5
RECIPES = {  # 160 pixels: at 112 the trunk is sure of wrong answers, and every control has much to repair
    "short": Recipe(num_frames=16),
    "hidden": Recipe(hidden=(0.2, 0.8)),
    "filled": Recipe(hidden=(0.2, 0.6), filled=True),
    "dropped": Recipe(dropped=(0.4, 0.9)),
    "small": Recipe(resolution=80),
    "hidden short": Recipe(num_frames=16, hidden=(0.2, 0.8), cube=(4, 40)),
    "quick": Recipe(num_frames=8, size=32, hidden=(0.2, 0.8), cube=(4, 16), filled=True),
}
PLAIN = Configuration("hidden")
THREE = ("Mixed_4b", "Mixed_4d", "Mixed_4f")
CONFIGURATIONS = {  # the most promising first, those with the same views together
    "filled": replace(PLAIN, recipe="filled"),
    "filled, regularised": replace(PLAIN, recipe="filled", dropout=0.3, weight_decay=0.1),
    "filled, random beginning": replace(
        PLAIN,
        recipe="filled",
        principal=False,
        block=replace(PLAIN.block, scale="inverse_sqrt"),
        learning_rates=(1e-3, 3e-3),
    ),
    "filled, after 5c": replace(PLAIN, recipe="filled", places=("Mixed_5c",)),
    "hidden": PLAIN,
    "hidden, regularised": replace(PLAIN, dropout=0.3, weight_decay=0.1),
    "hidden, dot product": replace(PLAIN, block=replace(PLAIN.block, nonlocal_type="dot_product", scale=None)),
    "short": replace(PLAIN, recipe="short"),
    "small": replace(PLAIN, recipe="small"),
    "dropped": replace(PLAIN, recipe="dropped"),
    "filled, after 4b, 4d and 4f": replace(
        PLAIN, recipe="filled", places=THREE, start="Mixed_4b", learning_rates=(3e-4,)
    ),
    "hidden, after 4b, 4d and 4f": replace(PLAIN, places=THREE, start="Mixed_4b", learning_rates=(3e-4,)),
    "hidden, wide": replace(PLAIN, block=replace(PLAIN.block, inter_channels=416, scale=0.5 * 416**-0.5)),
    "hidden, space": replace(PLAIN, block=replace(PLAIN.block, mode="space_only")),
    "hidden, time": replace(PLAIN, block=replace(PLAIN.block, mode="time_only")),
    "hidden, batch norm": replace(PLAIN, block=replace(PLAIN.block, bn_layer=True)),
    "hidden, no stills": replace(PLAIN, stills=0.0),
    "hidden short, after 3c": replace(
        PLAIN,
        recipe="hidden short",
        places=("Mixed_3c",),
        start="Mixed_3c",
        learning_rates=(3e-4,),
        batch_size=32,
    ),
}
QUICK = replace(PLAIN, recipe="quick", num_steps=4, batch_size=4, evaluate_every=2, learning_rates=(1e-3,))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with clips/, stills/ and sources.csv")
    parser.add_argument("--labelled", type=Path, nargs="*", default=[], help="folders of clips with a Kinetics label")
    parser.add_argument("--output", type=Path, required=True, help="folder for results.json, targets and blocks")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "i3d-nl-k400.safetensors")
    parser.add_argument("--minutes", type=float, default=12, help="from the start on; what is not finished is left out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--decoder", choices=("av", "cv2"), default="av")
    parser.add_argument("--workers", type=int, default=16, help="decoding threads")
    parser.add_argument("--clips", type=int, help="take only so many clips, stills and labelled clips of each folder")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--views", type=int, nargs=2, default=[16, 4], help="student views of a clip and of a still")
    parser.add_argument("--teacher-views", type=int, nargs=2, default=[6, 3], help="times and places; a still: places")
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=["block", "self", "mean"])
    parser.add_argument("--only", nargs="+", choices=tuple(CONFIGURATIONS), default=list(CONFIGURATIONS))
    parser.add_argument("--quick", action="store_true", help="tiny views and few steps: shows that it runs, no more")
    run(parser.parse_args(arguments))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything; returns what `results.json` holds."""
    started = time.monotonic()
    deadline = started + 60 * arguments.minutes

    def notify(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True)

    arguments.output.mkdir(parents=True, exist_ok=True)
    device = torch.device(arguments.device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as in convolutions by default
        torch.backends.cudnn.benchmark = True
    network, card = load_checkpoint(arguments.weights)
    trunk = Trunk(network, device)
    samples, folders = load(arguments, card.labels)
    notify(f"{len(samples)} files decoded")
    unlabelled = samples[: folders["unlabelled"].stop]
    still = np.array([sample.is_still for sample in samples])
    scene_numbers = scenes(unlabelled)
    splits = make_splits(scene_numbers, still[: len(unlabelled)], arguments.folds)
    samples = [replace(sample, frames=sample.frames.to(device)) for sample in samples]
    full = (8, 32) if arguments.quick else FULL
    settings = {
        "files": {name: len(places) for name, places in folders.items()},
        "clips": int((~still[: len(unlabelled)]).sum()),
        "scenes of clips": len(np.unique(scene_numbers[~still[: len(unlabelled)]])),
        "folds": arguments.folds,
        "views": arguments.views,
        "teacher_views": arguments.teacher_views,
        "variants": arguments.variants,
        "full": full,
    }
    notify(json.dumps(settings))
    results = load_results(arguments.output / "results.json", settings, device)
    targets = load_targets(arguments.output / "targets.safetensors", trunk, samples, arguments.teacher_views, full)
    notify("targets")
    test = Evaluation(
        targets, [card.labels.index(s.label) if s.label else -1 for s in samples], scene_numbers, still, folders
    )

    configurations = {"quick": QUICK} if arguments.quick else {name: CONFIGURATIONS[name] for name in arguments.only}
    banks: dict[str, Bank] = {}
    seconds = 0.0
    for name, configuration in configurations.items():
        if name in {entry["name"] for entry in results["configurations"]}:
            continue
        if time.monotonic() + seconds > deadline:
            notify(f"stopped before {name!r}: the last one took {seconds:.0f} s")
            break
        began = time.monotonic()
        try:
            banks = make_banks(configuration, banks, trunk, samples, arguments.views, full, deadline)
            notify(f"views for {name!r}: {tuple(banks['student'].features.shape)}")
            entry, state = compare(configuration, arguments.variants, trunk, banks, test, splits, deadline)
        except OutOfTime as error:
            notify(f"stopped in {name!r}: out of time {error}")
            break
        except torch.OutOfMemoryError as error:
            notify(f"left out {name!r}: {error}")
            banks = {}
            torch.cuda.empty_cache()
            continue
        seconds = time.monotonic() - began
        entry = {"name": name, "seconds": round(seconds, 1), "configuration": asdict(configuration)} | entry
        results["configurations"].append(entry)
        save_block(arguments.output, entry, state, results["configurations"])
        write(arguments.output / "results.json", results)
        notify(f"{name!r}: {line(entry)}")
    print(table(results["configurations"]))
    return results


def load(arguments: argparse.Namespace, labels: Sequence[str]) -> tuple[list[Sample], dict[str, range]]:
    """All files, and where those of each folder are; the unlabelled ones come first."""
    reading = (arguments.decoder, arguments.workers, arguments.clips)
    samples = load_unlabelled(arguments.data, *reading)
    folders = {"unlabelled": range(len(samples))}
    for folder in arguments.labelled:
        found = load_labelled(folder, *reading)
        unknown = sorted({str(sample.label) for sample in found} - set(labels))
        if unknown:
            sys.exit(f"{folder} has the labels {unknown}, which are not among the model's {len(labels)}.")
        folders[folder.name] = range(len(samples), len(samples) + len(found))
        samples += found
    return samples, folders


def load_targets(
    path: Path, trunk: Trunk, samples: Sequence[Sample], views: tuple[int, int], full: tuple[int, int]
) -> torch.Tensor:
    """The trunk's mean answers, from the file if they are of the same views of the same files."""
    key = json.dumps([[sample.path, sample.shape] for sample in samples] + [list(views), list(full)])
    digest = hashlib.sha256(key.encode()).hexdigest()
    if path.is_file():
        with safe_open(path, framework="pt") as file:
            if file.metadata()["views"] == digest:
                stored: torch.Tensor = file.get_tensor("targets")
                return stored.to(trunk.device)
    drawn = [
        full_views(sample.shape, *views, np.random.default_rng([0, index]), full)
        for index, sample in enumerate(samples)
    ]
    targets = make_targets(trunk, samples, drawn)
    save_file({"targets": targets.cpu()}, path, metadata={"views": digest})
    return targets


def make_banks(
    configuration: Configuration,
    banks: dict[str, Bank],
    trunk: Trunk,
    samples: Sequence[Sample],
    num_views: tuple[int, int],
    full: tuple[int, int],
    deadline: float,
) -> dict[str, Bank]:
    """Features of the student's views ("student") and of each clip's middle view ("full"); those there are kept."""
    recipe, start = RECIPES[configuration.recipe], configuration.start
    names = {"student": f"{configuration.recipe} at {start}", "full": f"full at {start}"}
    for role in [role for role, bank in banks.items() if bank.name != names[role]]:
        del banks[role]  # before the new features come, as both would need too much memory
    if "student" not in banks:
        views = [
            draw_views(recipe, samples, index, EVALUATED_VIEWS if sample.label else num_views[sample.is_still])
            for index, sample in enumerate(samples)
        ]
        banks["student"] = make_bank(names["student"], trunk, samples, views, start, deadline)
    if "full" not in banks:
        rng = np.random.default_rng(0)  # a middle view has nothing random
        views = [[] if sample.is_still else full_views(sample.shape, 1, 1, rng, full) for sample in samples]
        banks["full"] = make_bank(names["full"], trunk, samples, views, start, deadline)
    return banks


def draw_views(recipe: Recipe, samples: Sequence[Sample], index: int, count: int) -> list[View]:
    """The student's views of a sample. What fills them are stills only: no test clip is ever seen in training."""
    stills = [place for place, sample in enumerate(samples) if sample.is_still and place != index]
    views = []
    for number in range(count):
        rng = np.random.default_rng([1, index, number])
        view = student_view(recipe, samples[index].shape, rng)
        if recipe.filled:
            other = int(rng.choice(stills))
            view = with_filler(view, recipe, samples[other].shape, other, rng)
        views.append(view)
    return views


def save_block(
    folder: Path, entry: dict[str, Any], state: dict[str, torch.Tensor], entries: list[dict[str, Any]]
) -> None:
    """Keep the first fold's blocks of the configurations with the largest margins."""
    best = sorted(entries, key=margin, reverse=True)[:MAX_BLOCK_FILES]
    names = {one["name"]: one["name"].replace(",", "").replace(" ", "_") + ".safetensors" for one in best}
    if entry["name"] in names and state:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
        save_file(
            tensors, folder / names[entry["name"]], metadata={"configuration": json.dumps(entry["configuration"])}
        )
    for path in folder.glob("*.safetensors"):
        if path.name not in names.values() and path.name != "targets.safetensors":
            path.unlink()


def load_results(path: Path, settings: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The results so far; new ones if there is no file."""
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        machine = describe_machine()
        if device.type == "cuda":
            machine["gpu"] = torch.cuda.get_device_name(device)
        return {"settings": settings, "machine": machine, "configurations": []}
    results: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if results["settings"] != settings:
        sys.exit(f"{path} has results with the settings {results['settings']}, not {settings}; give another --output.")
    return results


def write(path: Path, results: dict[str, Any]) -> None:
    """A line per configuration; an existing file is replaced in one step."""
    head = json.dumps({key: value for key, value in results.items() if key != "configurations"}, indent=1)[:-2]
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in results["configurations"])
    temporary = path.with_suffix(".tmp")
    temporary.write_text(f'{head},\n "configurations": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    temporary.replace(path)


def line(entry: dict[str, Any]) -> str:
    kl = ", ".join(f"{variant} {means['kl, student']:.3f}" for variant, means in entry["test"].items())
    against = "; ".join(
        f"{name} {value['kl, student'][0]:+.3f} ({value['kl, student'][1]:+.3f} to {value['kl, student'][2]:+.3f})"
        for name, value in entry["differences"].items()
    )
    return f"KL {kl}; {against}; {entry['seconds']} s"


def table(entries: Sequence[dict[str, Any]]) -> str:
    """Every measure of every configuration and variant."""
    if not entries:
        return "no configuration was finished"
    names = list(entries[0]["test"][NONE])
    rows = [f"| configuration | variant | {' | '.join(names)} |", "| --- " * (len(names) + 2) + "|"]
    for entry in entries:
        for variant, means in entry["test"].items():
            rows.append(f"| {entry['name']} | {variant} | {' | '.join(f'{means[name]:.3f}' for name in names)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
