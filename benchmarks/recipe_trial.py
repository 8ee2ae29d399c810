"""The recipe for a Kinetics-400 student, tried for an hour on what clips there are, on a machine without a GPU.

    python benchmarks/recipe_trial.py --unlabelled CLIPS --stills PICTURES --output benchmarks/results/recipe_trial.json

Everything is the recipe's but `CHANGED`, which makes it small enough for two cores. Neither labels nor Kinetics take
part. With `--folder` it can be interrupted and started again: it continues where it was, and the minutes of all starts
count. After every epoch the student is validated on clips outside its training set. To compare with: the divergence of
the one answer that fits these very clips best without looking, which is the mean of the teacher's answers to them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.datasets.manifest import Manifest, ManifestRow
from nonlocal_video.inference.files import find_files
from nonlocal_video.training.config import make_config, read_recipe
from nonlocal_video.training.distillation.teacher import Teacher
from nonlocal_video.training.distributed import make_fabric
from nonlocal_video.training.engine import TrainingProgress
from nonlocal_video.training.images import check_images
from nonlocal_video.training.initialization import read_new_model
from nonlocal_video.training.run import RunData, RunSettings, train_run
from nonlocal_video.training.run_data import split_unlabelled
from nonlocal_video.training.run_folder import RunFolder
from nonlocal_video.training.unlabelled import UnlabelledClips, check_unlabelled
from nonlocal_video.video.decode import VideoReader

RECIPE = Path(__file__).parents[1] / "weights" / "recipes" / "kinetics400_from_default.yaml"
CHANGED: dict[str, Any] = {
    "model.config.width": 16,
    "batch_size": 16,
    "precision": "32-true",
    "workers": 1,
    "cache_gib": 8,
    "epochs": 40,
    "warmup_epochs": 2,
    "progressive": {"warmup_epochs": 5, "ramp_epochs": 5, "stages": [4, 3]},
    "teacher_views": 1,
    "augmentation.mixup": 0.0,
}
Item = TypeVar("Item")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unlabelled", required=True, help="Folder of clips.")
    parser.add_argument("--stills", required=True, help="Folder of pictures.")
    parser.add_argument("--clips", type=int, default=300, help="So many of the clips, evenly.")
    parser.add_argument("--pictures", type=int, default=150, help="So many of the pictures, evenly.")
    parser.add_argument("--minutes", type=float, default=60, help="Of all starts together.")
    parser.add_argument("--folder", type=Path, help="Where the run lives; to be started again after an interruption.")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    values = changed(read_recipe(RECIPE))
    model = read_new_model(values.pop("model"), str(RECIPE))
    settings = RunSettings(model, make_config(values), device="cpu")
    files = evenly(sorted(find_files([arguments.unlabelled])), arguments.clips)
    unlabelled = check_unlabelled(files, model.input, [VideoReader() for _ in range(2)]).manifest
    pictures = evenly(check_images([arguments.stills]), arguments.pictures)
    with tempfile.TemporaryDirectory(prefix="recipe-trial-") as temporary:
        folder = arguments.folder or Path(temporary)
        diary = Diary(folder / "diary.json")
        run, resume = RunFolder(folder / "run"), (folder / "run" / "config.json").is_file()
        command = ("benchmarks/recipe_trial.py",)
        begin = (
            run.open(settings.to_dict(), command=command)
            if resume
            else run.create(settings.to_dict(), Manifest(()), command=command)
        )
        with begin:
            result = train_run(
                run,
                settings,
                RunData(Manifest(()), unlabelled, tuple(pictures)),
                make_fabric("cpu", settings.train),
                resume=resume,
                on_progress=diary.note,
                on_features=lambda done, of: diary.teacher_answered(),
                should_stop=lambda: diary.minutes > arguments.minutes,
            )
    learnt, held_out = split_unlabelled(unlabelled, divide=True)
    distillation = settings.train.distillation
    assert distillation is not None
    found = {
        "machine": describe_machine(),
        "changed": CHANGED,
        "clips": len(learnt),
        "held_out": len(held_out),
        "pictures": len(pictures),
        "minutes": round(diary.minutes, 1),
        "starts": diary.starts,
        "minutes_until_the_teacher_had_answered": round(diary.teacher_minutes, 1),
        "steps": result.step,
        "finished": result.finished,
        "kl_of_one_answer": round(kl_of_one_answer(held_out, distillation.temperature), 4),
        "epochs": diary.epochs,
    }
    arguments.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


class Diary:
    """Minutes after which each event happened, over all starts of a run."""

    def __init__(self, path: Path) -> None:
        self._path, self._started = path, time.perf_counter()
        found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        self._earlier = found.get("minutes", 0.0)
        self.starts: int = found.get("starts", 0) + 1
        self.teacher_minutes: float = found.get("teacher_minutes", 0.0)
        self.epochs: list[dict[str, float]] = found.get("epochs", [])

    @property
    def minutes(self) -> float:
        return self._earlier + (time.perf_counter() - self._started) / 60

    def teacher_answered(self) -> None:
        self.teacher_minutes = self.minutes
        self._write()

    def note(self, progress: TrainingProgress) -> None:
        if progress.metrics:
            shown = {name: round(value, 4) for name, value in progress.metrics.items()}
            row = {"minutes": round(self.minutes, 2), "epoch": progress.epoch, "step": progress.step, **shown}
            self.epochs.append(row)
            print(json.dumps(row), flush=True)
            self._write()

    def _write(self) -> None:
        found = {"minutes": self.minutes, "starts": self.starts, "teacher_minutes": self.teacher_minutes}
        self._path.write_text(json.dumps({**found, "epochs": self.epochs}), "utf-8")


def changed(values: dict[str, Any]) -> dict[str, Any]:
    """The recipe's settings with `CHANGED` among them."""
    for name, value in CHANGED.items():
        *folders, last = name.split(".")
        place = values
        for folder in folders:
            place = place[folder]
        place[last] = value
    return values


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """So many of them, with equal steps between."""
    return [items[index * len(items) // min(count, len(items))] for index in range(min(count, len(items)))]


def kl_of_one_answer(rows: Sequence[ManifestRow], temperature: float) -> float:
    """T^2 KL(p || mean of p) at temperature T, the mean over the teacher's answers p to the middles of these clips."""
    teacher = Teacher.load("default")
    data = UnlabelledClips(rows, teacher.spec)
    logits = torch.cat(
        [teacher.answers(data.view(place, 0)[0][None], teacher.spec).logits for place in range(len(data))]
    )
    data.close()
    answers = torch.softmax(logits.double() / temperature, dim=1)
    mean = answers.mean(dim=0)
    return float((answers * (answers / mean).log()).nansum(dim=1).mean()) * temperature**2


if __name__ == "__main__":
    main()
