"""From a run's settings and its checked clips to a folder with a trained model in it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from torch import nn

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.device import choose_device
from nonlocal_video.models.checkpoint import read_card
from nonlocal_video.training.batch_size import find_batch_size
from nonlocal_video.training.clip_cache import GIBIBYTE, ClipCache
from nonlocal_video.training.config import TrainConfig, make_config, resolved
from nonlocal_video.training.curves import draw_curves
from nonlocal_video.training.dataset import ClipDataset
from nonlocal_video.training.distillation import Distillation
from nonlocal_video.training.engine import Progress, Training, TrainResult
from nonlocal_video.training.frozen_features import FrozenFeatures, check_room, feature_shape
from nonlocal_video.training.learning_part import checkpoint_activations, freeze, last_frozen_layer
from nonlocal_video.training.loading import TrainingData
from nonlocal_video.training.manifest import VALIDATION, Manifest, ManifestRow, read_manifest, write_manifest
from nonlocal_video.training.metrics_log import MetricsLog, read_metrics
from nonlocal_video.training.objective import Batch, CrossEntropy, Objective, one_hot
from nonlocal_video.training.run_card import RunCard
from nonlocal_video.training.run_folder import RunFolder
from nonlocal_video.training.starting_point import NewModel, StartingPoint, read_new_model, start_from
from nonlocal_video.training.stills import StillDataset, StillRow
from nonlocal_video.training.teacher_cache import AnswerCache, Teacher
from nonlocal_video.training.teacher_view import viewing_spec
from nonlocal_video.training.training_set import TrainingSet
from nonlocal_video.training.unlabelled import NO_LABEL, UnlabelledClips
from nonlocal_video.zoo.catalogue import find


@dataclass(frozen=True)
class RunSettings:
    """All that decides a run's result besides its clips."""

    model: str | NewModel
    train: TrainConfig
    fast: bool = False
    """Train on the model's cheaper view."""
    new_weights: bool = False
    validation: str = VALIDATION
    """The split that is measured on."""
    device: str = "auto"
    processes: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `config.json`."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunSettings:
        """The inverse of `to_dict`."""
        model = values["model"]
        return cls(
            **{
                **values,
                "model": model if isinstance(model, str) else read_new_model(model, "config.json"),
                "train": make_config(values["train"]),
            }
        )


@dataclass(frozen=True, repr=False)
class RunClips:
    """What a run learns from and is measured on."""

    labelled: Manifest
    unlabelled: Manifest = field(default_factory=lambda: Manifest(()))
    stills: tuple[StillRow, ...] = ()

    def write(self, folder: Path) -> None:
        """Beside the run's manifest of labelled clips."""
        if self.unlabelled.rows:
            write_manifest(folder / "unlabelled.csv", self.unlabelled)
        if self.stills:
            (folder / "stills.json").write_text(json.dumps([asdict(row) for row in self.stills]), "utf-8")

    @classmethod
    def read(cls, folder: RunFolder) -> RunClips:
        """What a run was begun with."""
        unlabelled, stills = folder.path / "unlabelled.csv", folder.path / "stills.json"
        return cls(
            folder.read_manifest(),
            read_manifest(unlabelled) if unlabelled.is_file() else Manifest(()),
            tuple(StillRow(**row) for row in json.loads(stills.read_text("utf-8"))) if stills.is_file() else (),
        )


def make_fabric(device: str, config: TrainConfig) -> Fabric:
    """One process on one device, or those that torchrun has started, each on its own.

    Raises:
        UsageError: The device is not here.
    """
    chosen = choose_device(device)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    devices: Any = local
    if world == 1 and chosen.type == "cuda":
        devices = [chosen.index or 0]
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    fabric = Fabric(
        accelerator=chosen.type,
        devices=devices,
        num_nodes=world // local,
        strategy=DDPStrategy() if world > 1 else "auto",
        precision=config.precision,
    )
    fabric.launch()
    return fabric


def train(
    folder: RunFolder,
    settings: RunSettings,
    clips: RunClips,
    fabric: Fabric,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_features: Callable[[int, int], None] = lambda done, of: None,
    say: Callable[[str], None] = lambda sentence: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train, and write everything into the run's folder.

    Args:
        folder: Created or opened by the first process.
        settings: Of the run.
        clips: Of the run.
        fabric: Launched.
        resume: Go on with what the folder holds.
        on_progress: Called after every step and measurement.
        on_features: Called with views done and all views, while the frozen part's features are computed.
        say: Told what was loaded and decided, a sentence at a time.
        should_stop: Asked after every step.

    Raises:
        UsageError: Settings, clips and model do not fit together.
        ModelError: The model cannot be had.
        TrainingError: The loss is not finite.
        VideoError: A clip cannot be read.
        OutputError: The folder cannot be written.
    """
    with torch.random.fork_rng(devices=[]):
        return _Run(folder, settings, clips, fabric, say).train(
            resume=resume, on_progress=on_progress, on_features=on_features, should_stop=should_stop
        )


class _Run:
    """The parts of a run, put together."""

    def __init__(
        self, folder: RunFolder, settings: RunSettings, clips: RunClips, fabric: Fabric, say: Callable[[str], None]
    ) -> None:
        self.folder, self.settings, self.clips, self.fabric, self.say = folder, settings, clips, fabric, say
        self.teacher = self._load_teacher(settings.train)
        self.start = self._start(settings)
        self.say(self.start.loaded)
        self.config = config = resolved(settings.train, has_weights=self.start.has_weights)
        self.frozen = last_frozen_layer(self.start.network, config.stage)
        freeze(self.start.network, self.frozen)
        self.spec = self.start.card.input
        if self.teacher is not None:
            self.spec = viewing_spec(self.start.card.input, self.teacher.spec)
        self.training, self.validation = self._data()

    def train(self, *, resume: bool, on_features: Callable[[int, int], None], **calls: Any) -> TrainResult:
        network, config, fabric = self.start.network, self.config, self.fabric
        state = self.folder.load_state() if resume else None
        train: TrainingData = self.training
        validation: TrainingData = self.validation
        objective = self._objective()
        batch_size = self._batch_size(objective)
        kept: list[FrozenFeatures] = []
        if config.keeps_features:
            assert self.frozen is not None
            kept = self._features(network, self.frozen, batch_size, on_features)
            train, validation = kept
        if config.gradient_checkpointing:
            checkpoint_activations(network)
        if config.channels_last:
            objective.to(memory_format=torch.channels_last_3d)
        if fabric.world_size > 1 and fabric.device.type == "cuda" and config.batch_norm == "batch":
            nn.SyncBatchNorm.convert_sync_batchnorm(objective)
        training = Training(
            objective,
            self.start.card,
            config,
            train=train,
            validation=validation,
            names=self._name_of,
            frozen=self.frozen,
            fabric=fabric,
            folder=self.folder,
            batch_size=batch_size,
        )
        if state is not None:
            training.restore(state)
        log = None
        if fabric.global_rank == 0:
            step = None if not resume else training.step if state is not None else -1
            log = MetricsLog(self.folder.metrics, self.folder.tensorboard, resume_step=step)
        try:
            result = training.run(log, **calls)
        finally:
            train.close()
            validation.close()
            if log is not None:
                log.close()
        if fabric.global_rank == 0 and result.best:
            self._describe(result)
        if result.finished and fabric.global_rank == 0:
            shutil.rmtree(self.folder.path / "cache", ignore_errors=True)
        return result

    def _load_teacher(self, config: TrainConfig) -> Teacher | None:
        return None if config.distillation is None else Teacher.load(config.distillation.teacher)

    def _start(self, settings: RunSettings) -> StartingPoint:
        labels = self.clips.labelled.labels
        distillation = settings.train.distillation
        if self.teacher is not None and distillation is not None and not distillation.second_head:
            labels = self.teacher.labels if distillation.logits_weight or not labels else labels
        if len(labels) < 2:
            raise UsageError(f"Training needs at least two classes; the clips have {', '.join(labels) or 'none'}.")
        return start_from(
            settings.model,
            labels,
            name=self.folder.path.resolve().name,
            fast=settings.fast,
            new_weights=settings.new_weights,
            seed=settings.train.seed,
        )

    def _data(self) -> tuple[TrainingSet, TrainingSet]:
        """What is learnt from and what is measured on, as views of the clips."""
        config, labels = self.config, self.start.card.labels
        cache = ClipCache(self.folder.path / "cache" / "clips", max_bytes=_bytes(config.cache_gib)) if (
            config.cache_gib and not config.keeps_features
        ) else None  # fmt: skip
        shared: dict[str, Any] = {"seed": config.seed, "cache": cache}
        parts: list[Any] = []
        held_out: list[Any] = []
        if self.clips.labelled.usable:
            learnt, measured = self.clips.labelled.sides(self.settings.validation)
            parts.append(ClipDataset(learnt, labels, self.spec, augmentation=config.augmentation, **shared))
            held_out.append(ClipDataset(measured, labels, self.spec, **shared))
        if self.clips.unlabelled.usable:
            learnt, measured = _sides_of_unlabelled(self.clips.unlabelled, divide=not held_out)
            parts.append(UnlabelledClips(learnt, self.spec, augmentation=config.augmentation, **shared))
            if measured:
                held_out.append(UnlabelledClips(measured, self.spec, **shared))
        usable = [row for row in self.clips.stills if row.problem is None]
        if usable:
            parts.append(StillDataset(usable, self.spec, augmentation=config.augmentation, seed=config.seed))
        if len(parts) > 1 and config.distillation is None:
            raise UsageError("Unlabelled clips and stills are learnt from through a teacher; name one with --teacher.")
        if not held_out:
            raise UsageError("There is no clip to measure on: give labelled clips, or unlabelled ones, besides stills.")
        return TrainingSet(parts, views=config.teacher_views or None), TrainingSet(held_out)

    def _objective(self) -> Objective:
        config, network = self.config, self.start.network
        if self.teacher is None or config.distillation is None:
            frozen = self.frozen if config.keeps_features else None
            return CrossEntropy(network, config.label_smoothing, frozen=frozen)
        folder, room = self.folder.path / "cache" / "answers", _bytes(config.cache_gib)
        of = (self.training, self.validation) if config.teacher_views else ()
        caches = [AnswerCache(folder, data.view_name, max_bytes=room) for data in of]
        return Distillation(
            network,
            self.teacher,
            config.distillation,
            student=self.start.card.input,
            labels=self.start.card.labels,
            view=self.spec,
            label_smoothing=config.label_smoothing,
            cache=caches[0] if caches else None,
            measured_cache=caches[1] if caches else None,
        )

    def _batch_size(self, objective: Objective) -> int:
        """Of all processes together: what was asked for, or what fits; never more than there are clips."""
        world, clips = self.fabric.world_size, len(self.training)
        asked = self.config.batch_size
        if asked is None:
            shape = (3, self.spec.num_frames, self.spec.crop, self.spec.crop)
            found = self._largest_batch(objective, shape, max(1, clips // world))
            asked = found * world
        size = min(asked, clips)
        size -= size % world
        if size < 1 or clips < size * self.config.accumulate:
            raise UsageError(
                f"A step takes {self.config.accumulate} x {max(size, world)} clips for {world} processes, and there "
                f"are {clips}. Lower batch_size or accumulate, or start fewer processes."
            )
        if size != asked:
            self.say(f"batch_size is {size} instead of {asked}: there are {clips} clips for {world} processes.")
        return size

    def _largest_batch(self, objective: Objective, shape: Sequence[int], maximum: int) -> int:
        device = self.fabric.device
        objective.to(device)

        def step(size: int) -> None:
            clips = torch.zeros(size, *shape, device=device)
            if self.config.keeps_features:
                assert self.frozen is not None
                with torch.no_grad(), self.fabric.autocast():
                    clips = self.start.network.eval().forward_to(self.frozen, clips)
            classes = torch.zeros(size, dtype=torch.int64, device=device)
            targets = one_hot(classes, len(self.start.card.labels))
            objective.eval()  # batch norms keep their statistics; what is kept for the gradients is the same
            with self.fabric.autocast():
                objective(Batch(clips, targets, torch.zeros_like(classes), 0)).total.backward()
            objective.zero_grad(set_to_none=True)

        found = find_batch_size(step, maximum=maximum, device=device)
        self.say(found.explanation)
        return int(self.fabric.all_reduce(torch.tensor(float(found.size), device=device), reduce_op="min"))

    def _features(
        self, network: Any, frozen: str, batch_size: int, on_features: Callable[[int, int], None]
    ) -> list[FrozenFeatures]:
        config, fabric = self.config, self.fabric
        network.to(fabric.device)
        view = (3, self.spec.num_frames, self.spec.crop, self.spec.crop)
        shape = feature_shape(network, frozen, view, fabric.device)
        check_room(shape, len(self.training), config.frozen_views, _bytes(config.cache_gib))
        self.say(
            f"{frozen} and all before it stay as they are: their features of {config.frozen_views} random views of "
            f"{len(self.training)} clips, and of the middle of {len(self.validation)}, are computed once."
        )
        found = []
        for data, name, views in (
            (self.training, "train", config.frozen_views),
            (self.validation, "validation", 1),
        ):
            features = FrozenFeatures(data, self.folder.path / "cache" / name, num_views=views, shape=shape)
            fabric.barrier()
            features.compute(
                network, frozen, fabric, batch_size=min(batch_size, 4), workers=config.workers, on_clip=on_features
            )
            found.append(features)
        return found

    def _describe(self, result: TrainResult) -> None:
        """The picture of the curves and the model card."""
        rows = read_metrics(self.folder.metrics)
        best_step = int(result.best["step"])
        draw_curves(rows, self.folder.curves, title=self.start.card.name, best_step=best_step)
        notes = [self.start.loaded]
        if result.early:
            notes.append(f"Training stopped after {rows[-1]['epoch']:g} epochs: it got no better.")
        if self.clips.unlabelled.rows or self.clips.stills:
            notes.append(
                f"It also learnt from {len(self.clips.unlabelled.usable)} clips and {len(self.clips.stills)} pictures "
                f"without labels."
            )
        distillation = self.config.distillation
        card = RunCard(
            folder=self.folder.path,
            card=self.start.card,
            start=self.start.parent,
            teachers=[read_card(find(distillation.teacher))] if distillation else [],
            manifest=self.clips.labelled,
            validation=self.settings.validation if self.clips.labelled.usable else None,
            settings=replace(self.settings, train=self.config).to_dict(),
            rows=rows,
            best_step=best_step,
            chosen_by="validation/top1" if "validation/top1" in rows[-1] else "validation/loss",
            notes=notes,
        )
        self.folder.write_readme(card.text())

    def _name_of(self, place: int) -> str:
        for part in self.training.parts:
            if place < len(part):
                return part.rows[place].path
            place -= len(part)
        raise IndexError(place)


def _bytes(gibibytes: float) -> int:
    return max(1, int(gibibytes * GIBIBYTE))


def _sides_of_unlabelled(
    manifest: Manifest, *, divide: bool
) -> tuple[tuple[ManifestRow, ...], tuple[ManifestRow, ...]]:
    """All of them to learn from; where nothing else is measured on, every tenth by its content to measure on."""
    rows = [replace(row, label=NO_LABEL) for row in manifest.usable]
    if not divide:
        return tuple(rows), ()
    held_out = {row.path for row in rows if int(row.sha256 or "0", 16) % 10 == 0}
    return (
        tuple(row for row in rows if row.path not in held_out),
        tuple(row for row in rows if row.path in held_out),
    )
