"""Ways to train on a few clips of one's own: 6 yoga poses by 16 people, validated on people outside the training set.

    python benchmarks/actions.py CLIPS.csv --output benchmarks/results/actions.json

CLIPS.csv is a list `path,label,group`; it is divided by group into folds, and every clip is measured once, by the
network that was trained on the other folds. Nothing is chosen by what is measured: settings are the same for all folds,
and the weights after the last epoch count, not the best ones. The ways:

- `head`: the default with a new head, its trunk as it is.
- `top`: the default, its last stage (Mixed_5b and Mixed_5c) and a new head.
- `scratch`: a Video3DResNet on the labels alone.
- `distilled`: the same network, first on the default's answers to the same clips (no labels), then on the labels.
- `distilled_blocks`: with spacetime non-local blocks after stages 3 and 4, all from the start.
- `distilled_progressive`: with the same blocks, which join one after another.

Ways and folds that the output file has already are kept, so the command can be interrupted and started again. The ways
of a network of one's own share what is decoded and what the default answers; `head` and `top` need neither.
"""

from __future__ import annotations

import argparse
import atexit
import json
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.blocks.schedule import ProgressiveSchedule
from nonlocal_video.datasets.check import check_clips
from nonlocal_video.datasets.labelled import read_source
from nonlocal_video.datasets.manifest import Manifest, ManifestRow
from nonlocal_video.datasets.report import make_report
from nonlocal_video.datasets.splits import SplitPlan
from nonlocal_video.evaluation.answers import Answer, Truth, from_row, to_row
from nonlocal_video.evaluation.metrics import bootstrap, compute_metrics, group_numbers
from nonlocal_video.inference.folder import classify_files
from nonlocal_video.inference.load import load
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.models.card import InputSpec
from nonlocal_video.training.config import TrainConfig
from nonlocal_video.training.distillation.objective import DistillConfig
from nonlocal_video.training.distributed import make_fabric
from nonlocal_video.training.initialization import NewModel
from nonlocal_video.training.metrics import read_metrics
from nonlocal_video.training.run import RunData, RunSettings, train_run
from nonlocal_video.training.run_folder import RunFolder
from nonlocal_video.video.decode import VideoReader

WAYS = ("head", "top", "scratch", "distilled", "distilled_blocks", "distilled_progressive")
COMPARED = (
    ("distilled", "scratch"),
    ("distilled_blocks", "distilled"),
    ("distilled_progressive", "distilled_blocks"),
)
INPUT = InputSpec(16, 6.25, short_side=128, crop=112, mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))
STUDENTS: dict[str, dict[str, Any]] = {
    # Every second frame from the stem on, and a quarter of the usual width: trained on two cores in minutes.
    "slim18": {
        "width": 16,
        "blocks_per_stage": (2, 2, 2, 2),
        "stem_stride": (2, 2, 2),
        "stage_strides": ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2)),
    },
    "resnet34": {},
}
HEAD_EPOCHS, TOP_EPOCHS, DISTILL_EPOCHS, TUNE_EPOCHS = 40, 30, 25, 25
SCHEDULE = ProgressiveSchedule(warmup_epochs=5, ramp_epochs=5, stages=(4, 3))
TEACHER_VIEWS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--student", choices=tuple(STUDENTS), default="slim18")
    parser.add_argument("--model", default="default", help="The default's weights file, where it is not installed.")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--only", nargs="+", help="Folds to run, such as fold1; all without it.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="Keep decoded clips and the default's answers here.")
    parser.add_argument("--epochs-factor", type=float, default=1.0, help="Below 1 for a quick look.")
    arguments = parser.parse_args()

    found: dict[str, Any] = {"runs": []}
    if arguments.output.is_file():
        found = json.loads(arguments.output.read_text("utf-8"))
    manifest = divide(arguments.clips, arguments.folds, arguments.seed)
    settings = {"device": arguments.device, "precision": arguments.precision, "epochs_factor": arguments.epochs_factor}
    shared = arguments.cache
    if shared is None:
        shared = Path(tempfile.mkdtemp(prefix="actions-cache-"))
        atexit.register(shutil.rmtree, shared, ignore_errors=True)
    for fold in arguments.only or manifest.splits:
        for way in arguments.ways:
            key = {"way": way, "fold": fold, "student": arguments.student, "seed": arguments.seed}
            if any(all(run[name] == value for name, value in key.items()) for run in found["runs"]):
                continue
            started = time.perf_counter()
            with tempfile.TemporaryDirectory(prefix="actions-") as folder:
                answers, figures_of_run = run_fold(way, manifest, fold, Path(folder), shared, arguments)
            right = sum(answer.right for answer in answers)
            seconds = time.perf_counter() - started
            print(f"{fold} {way}: {right} of {len(answers)} right, {seconds:.0f} s", flush=True)
            found["runs"].append(
                {
                    **key,
                    **settings,
                    "machine": describe_machine(),
                    "seconds": round(seconds, 1),
                    **figures_of_run,
                    "answers": [row_of(answer) for answer in answers],
                }
            )
            write(found, len(manifest.labels), arguments.output)
    write(found, len(manifest.labels), arguments.output)


def write(found: dict[str, Any], num_classes: int, output: Path) -> None:
    """The runs, and what follows from them."""
    found["figures"] = figures(found["runs"], num_classes)
    found["differences"] = differences(found["runs"], set(found["figures"]))
    output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def divide(clips: str, folds: int, seed: int) -> Manifest:
    """Every clip checked, and in one of the folds with all others of its group."""
    labelled = [replace(clip, split=None) for clip in read_source(clips, ignore_columns=["k400"]).clips]
    checked = list(check_clips(labelled, [VideoReader() for _ in range(2)]))
    return make_report(checked, INPUT, SplitPlan(None, folds, seed)).manifest


def run_fold(
    way: str, manifest: Manifest, fold: str, folder: Path, shared: Path, arguments: argparse.Namespace
) -> tuple[list[Answer], dict[str, Any]]:
    """Train without one fold; the answers for it, and figures of the trainings."""
    counts = (HEAD_EPOCHS, TOP_EPOCHS, DISTILL_EPOCHS, TUNE_EPOCHS)
    head, top, distill, tune = (max(2, round(count * arguments.epochs_factor)) for count in counts)
    common = {"seed": arguments.seed, "precision": arguments.precision, "workers": arguments.workers}
    model: Any = arguments.model
    figures_of_run: dict[str, Any] = {}
    if way == "head":
        config = TrainConfig(stage="head", epochs=head, learning_rate=3e-3, frozen_views=4, **common)
    elif way == "top":
        config = TrainConfig(stage="top", epochs=top, learning_rate=3e-4, frozen_views=4, **common)
    else:
        common["channels_last"] = True
        student = dict(STUDENTS[arguments.student])
        if way in ("distilled_blocks", "distilled_progressive"):
            last = [count - 1 for count in student.get("blocks_per_stage", (3, 4, 6, 3))]
            student["nonlocal_blocks"] = {f"layer3.{last[2]}": {}, f"layer4.{last[3]}": {}}
        model = NewModel("student", "resnet3d", INPUT, student)
        if way != "scratch":
            learn = TrainConfig(
                stage="all",
                epochs=distill,
                learning_rate=1e-3,
                teacher_views=TEACHER_VIEWS,
                distillation=DistillConfig(arguments.model, embedding_weight=1.0, label_weight=0.0),
                progressive=SCHEDULE if way == "distilled_progressive" else None,
                **common,
            )
            learnt, _ = manifest.train_val_split(fold)
            rows = Manifest(tuple(replace(row, split="train") for row in learnt))
            clips = RunData(Manifest(()), unlabelled=rows)
            distilled = fit(folder / "student", RunSettings(model, learn, device=arguments.device), clips, shared)
            figures_of_run["distillation"] = distilled
            model = str(folder / "student" / "last.safetensors")
        config = TrainConfig(
            stage="all",
            epochs=distill + tune if way == "scratch" else tune,
            learning_rate=1e-3,
            batch_norm="batch",
            label_smoothing=0.1,
            **common,
        )
    settings = RunSettings(model, config, validation=fold, device=arguments.device)
    figures_of_run |= fit(folder / "model", settings, RunData(manifest), shared)
    return list(answer_all(folder / "model" / "last.safetensors", manifest, fold, arguments.device)), figures_of_run


def fit(folder: Path, settings: RunSettings, clips: RunData, shared: Path) -> dict[str, Any]:
    """Train; return the speed, and the figures on held-out clips after every epoch."""
    fabric = make_fabric(settings.device, settings.train)
    with RunFolder(folder).create(settings.to_dict(), clips.labelled, command=("benchmarks/actions.py",)) as run:
        (folder / "cache").mkdir()
        for name in ("clips", "answers"):  # a name in them says all that its content depends on
            (shared / name).mkdir(parents=True, exist_ok=True)
            (folder / "cache" / name).symlink_to(shared / name)
        result = train_run(run, settings, clips, fabric)
    measure_of = "top1" if clips.labelled.usable else "kl"
    curve = [round(row[f"validation/{measure_of}"], 4) for row in read_metrics(folder / "metrics.csv")]
    return {
        "train_clips_per_second": round(result.train_clips / result.train_seconds, 2),
        f"held_out_{measure_of}": curve,
    }


def answer_all(weights: Path, manifest: Manifest, fold: str, device: str) -> Iterable[Answer]:
    rows: dict[str, ManifestRow] = {row.path: row for row in manifest.of_split(fold)}
    with load(str(weights), device=device) as recognizer:
        index_of = {label: index for index, label in enumerate(recognizer.card.labels)}
        for outcome in classify_files(recognizer, iter(rows), ClipRequest()):
            row = rows[outcome.path]
            truth = Truth(row.label, index_of[row.label], row.group)
            yield from_row(to_row(outcome, truth), truth)


def row_of(answer: Answer) -> dict[str, Any]:
    path = Path(answer.path)
    return {
        "clip": f"{path.parent.name}/{path.name}",
        "label": answer.truth.label,
        "group": answer.truth.group,
        "true_rank": answer.true_rank,
        "answer": answer.top[0].label,
        "score": round(answer.top[0].score, 4),
        "true_score": round(answer.true_score or 0.0, 4),
    }


def figures(runs: list[dict[str, Any]], num_classes: int) -> dict[str, Any]:
    """Top-1 of each way over all folds that were run, with its interval by bootstrap over people."""
    from nonlocal_video.inference.prediction import ScoredLabel

    found = {}
    for name in dict.fromkeys(map(name_of, runs)):
        rows = [row for run in runs if name_of(run) == name for row in run["answers"]]
        labels = sorted({row["label"] for row in rows})
        answers = [
            Answer(
                row["clip"],
                Truth(row["label"], labels.index(row["label"]), row["group"]),
                (ScoredLabel(row["answer"], labels.index(row["answer"]), row["score"]),),
                row["true_rank"],
                row["true_score"],
            )
            for row in rows
            if row["answer"] in labels
        ]
        if len(answers) < len(rows):
            continue  # the folds so far lack a class
        metrics = compute_metrics(answers, num_classes)
        assert metrics is not None
        top1, mean_class = metrics.accuracies["top1"], metrics.accuracies["mean_class"]
        found[name] = {
            "clips": len(rows),
            "folds": len([run for run in runs if name_of(run) == name]),
            "top1": round(top1.value, 4),
            "top1_interval": None if top1.interval is None else [round(end, 4) for end in top1.interval],
            "mean_class": round(mean_class.value, 4),
        }
    return found


def differences(runs: list[dict[str, Any]], names: set[str]) -> dict[str, Any]:
    """Top-1 of a way minus that of another one on the same clips, with its interval by bootstrap over people."""
    found = {}
    for one, other in COMPARED:
        for student in STUDENTS:
            pair = (f"{one} {student}", f"{other} {student}")
            if not names.issuperset(pair):
                continue
            right = [
                {row["clip"]: float(row["answer"] == row["label"]) for run in runs if name_of(run) == name
                 for row in run["answers"]}
                for name in pair
            ]  # fmt: skip
            groups = {row["clip"]: row["group"] for run in runs for row in run["answers"]}
            clips = sorted(right[0].keys() & right[1].keys())
            gain = np.array([right[0][clip] - right[1][clip] for clip in clips])
            numbers = group_numbers([groups[clip] for clip in clips])
            ends = bootstrap({"gain": lambda times, gain=gain: float(np.average(gain, weights=times))}, numbers, seed=0)
            found[f"{pair[0]} - {pair[1]}"] = {
                "clips": len(clips),
                "top1": round(float(gain.mean()), 4),
                "interval": [round(end, 4) for end in ends["gain"] or ()],
            }
    return found


def name_of(run: dict[str, Any]) -> str:
    return run["way"] if run["way"] in ("head", "top") else f"{run['way']} {run['student']}"


if __name__ == "__main__":
    main()
