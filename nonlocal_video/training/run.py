"""From a run's settings and its checked clips to a folder with a trained model in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from nonlocal_video.datasets.manifest import VALIDATION
from nonlocal_video.errors import ModelError, TrainingError, UsageError
from nonlocal_video.models.checkpoint import read_card
from nonlocal_video.training.batch_size import find_batch_size, most_clips_a_process
from nonlocal_video.training.clip_cache import GIBIBYTE, MAX_CLIP_BYTES, ClipCache
from nonlocal_video.training.config import TrainConfig, make_config, resolved
from nonlocal_video.training.curves import draw_curves
from nonlocal_video.training.data import ClipDataset
from nonlocal_video.training.determinism import deterministic_algorithms
from nonlocal_video.training.distillation.alignment import viewing_spec
from nonlocal_video.training.distillation.objective import Distillation
from nonlocal_video.training.distillation.teacher import AnswerCache, Teacher
from nonlocal_video.training.engine import Progress, Training, TrainResult
from nonlocal_video.training.feature_cache import FeatureCache, bytes_needed, check_room, feature_shape, frozen_part
from nonlocal_video.training.freezing import (
    Gates,
    checkpoint_activations,
    freeze,
    last_frozen_layer,
    share_statistics,
)
from nonlocal_video.training.images import ImageDataset
from nonlocal_video.training.initialization import Initialization, NewModel, initialize, read_new_model
from nonlocal_video.training.loading import TrainingData
from nonlocal_video.training.metrics import MetricsWriter, read_metrics
from nonlocal_video.training.mixed_data import MixedDataset
from nonlocal_video.training.model_card import RunModelCard
from nonlocal_video.training.objective import Batch, CrossEntropy, Objective, one_hot
from nonlocal_video.training.optim import state_bytes
from nonlocal_video.training.run_data import RunData, classes_of, split_unlabelled
from nonlocal_video.training.run_folder import RunFolder
from nonlocal_video.training.unlabelled import UnlabelledClips
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
    """Split that is the validation set."""
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


def train_run(
    folder: RunFolder,
    settings: RunSettings,
    clips: RunData,
    fabric: Fabric,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_features: Callable[[int, int], None] = lambda done, of: None,
    notify: Callable[[str], None] = lambda sentence: None,
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
        UsageError: Settings, clips and model do not fit together, or an operation of a deterministic run has no
            algorithm for that. A folder that was created for this is discarded.
        ModelError: The model cannot be had. The same.
        TrainingError: The loss is not finite, or the device's memory is too small.
        VideoError: A clip cannot be read.
        OutputError: The folder cannot be written.
    """
    try:
        with torch.random.fork_rng(devices=[]), deterministic_algorithms(settings.train.deterministic):
            torch.manual_seed(settings.train.seed)  # of what a teacher's student learns besides its network
            return _Run(folder, settings, clips, fabric, notify).train(
                resume=resume, on_progress=on_progress, on_features=on_features, should_stop=should_stop
            )
    except (UsageError, ModelError):
        folder.discard()
        raise
    except torch.OutOfMemoryError as error:
        folder.discard()
        raise TrainingError(
            f"The memory of {fabric.device} is too small: {str(error).splitlines()[0]} Begin another run with a lower "
            f"--batch-size or --batch-size auto, --set gradient_checkpointing=true, or --set precision=bf16-mixed."
        ) from error


class _StopError(Exception):
    """Asked to stop while views are computed; a resumed run continues with them."""


class _Run:
    """The parts of a run, put together."""

    def __init__(
        self, folder: RunFolder, settings: RunSettings, clips: RunData, fabric: Fabric, notify: Callable[[str], None]
    ) -> None:
        self.folder, self.settings, self.clips, self.fabric, self.notify = folder, settings, clips, fabric, notify
        self.teacher = self._load_teacher(settings.train)
        self.start = self._start(settings)
        self.notify(self.start.loaded)
        self.config = config = resolved(settings.train, has_weights=self.start.has_weights)
        if not self.start.has_weights and config.stage != "all":
            raise UsageError(
                f"stage = {config.stage!r} keeps layers as they are, and those of this network are random numbers. "
                f"Take --stage all, or begin with weights."
            )
        self.frozen = last_frozen_layer(self.start.network, config.stage)
        freeze(self.start.network, self.frozen)
        # Refuses here what would be refused after hours of the teacher's answers.
        open_from = Gates(self.start.network, config.progressive).open_from()
        if open_from > config.epochs:
            self.notify(
                f"All blocks are open after {open_from:g} epochs, and the run has {config.epochs}: some stay partly or "
                f"wholly shut. progressive.warmup_epochs and ramp_epochs change that."
            )
        self.spec = self.start.card.input
        if self.teacher is not None:
            self.spec = viewing_spec(self.start.card.input, self.teacher.spec)
        fabric.barrier()  # no process makes a file for a run that another one refuses and discards
        self.training, self.validation = self._data()
        self.answers = self._answer_caches()
        fabric.barrier()

    def train(
        self,
        *,
        resume: bool,
        on_progress: Callable[[Progress], None],
        on_features: Callable[[int, int], None],
        should_stop: Callable[[], bool],
    ) -> TrainResult:
        network, config, fabric = self.start.network, self.config, self.fabric
        state = self.folder.load_state() if resume else None
        if state is not None and state["finished"]:
            done = TrainResult(state["step"], state["best"], True, state["early"], train_seconds=0.0, train_clips=0)
            return self._ended(done)
        train: TrainingData = self.training
        validation: TrainingData = self.validation
        if config.gradient_checkpointing:
            checkpoint_activations(network)
        objective = self._objective()
        batch_size = self._batch_size() if state is None else int(state["batch_size"])

        def on_view(done: int, of: int) -> None:
            on_features(done, of)
            if should_stop():
                raise _StopError

        try:
            if config.keeps_features:
                train, validation = self._features(batch_size, on_view)
            elif isinstance(objective, Distillation) and self._has_room_for_views(objective):
                train, validation = self._student_views(objective, batch_size, on_view)
        except _StopError:
            self.training.close()
            self.validation.close()
            step, best = (0, {}) if state is None else (state["step"], state["best"])
            return TrainResult(step, best, False, False, train_seconds=0.0, train_clips=0)
        if config.channels_last:
            objective.to(memory_format=torch.channels_last_3d)
        if config.batch_norm == "batch":
            share_statistics(objective, processes=fabric.world_size, device=fabric.device)
        training = Training(
            objective,
            self.start.card,
            config,
            train=train,
            validation=validation,
            names=self.training.path,
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
            log = MetricsWriter(self.folder.metrics, self.folder.tensorboard, resume_step=step)
        try:
            result = training.run(log, on_progress=on_progress, should_stop=should_stop)
        finally:
            train.close()
            validation.close()
            if log is not None:
                log.close()
        return self._ended(result)

    def _ended(self, result: TrainResult) -> TrainResult:
        if self.fabric.global_rank == 0 and result.best:
            self._describe(result)
        if self.fabric.global_rank == 0 and result.finished:
            shutil.rmtree(self.folder.cache, ignore_errors=True)
        return result

    def _load_teacher(self, config: TrainConfig) -> Teacher | None:
        return None if config.distillation is None else Teacher.load(config.distillation.teacher)

    def _start(self, settings: RunSettings) -> Initialization:
        return initialize(
            settings.model,
            classes_of(settings.train, self.clips, () if self.teacher is None else self.teacher.labels),
            name=self.folder.path.resolve().name,
            fast=settings.fast,
            new_weights=settings.new_weights,
            seed=settings.train.seed,
        )

    def _data(self) -> tuple[MixedDataset, MixedDataset]:
        """Return the training and the validation set, as views of the clips."""
        config, labels = self.config, self.start.card.labels
        cache = None
        if config.cache_gib and not config.keeps_features:
            room = _bytes(config.cache_gib)
            cache = ClipCache(self.folder.cache / "clips", max_bytes=room, max_clip_bytes=min(room, MAX_CLIP_BYTES))
        shared: dict[str, Any] = {"seed": config.seed, "cache": cache}
        parts: list[Any] = []
        held_out: list[Any] = []
        if self.clips.labelled.usable:
            learnt, measured = self.clips.labelled.train_val_split(self.settings.validation)
            parts.append(ClipDataset(learnt, labels, self.spec, augmentation=config.augmentation, **shared))
            held_out.append(ClipDataset(measured, labels, self.spec, **shared))
        if self.clips.unlabelled.usable:
            learnt, measured = split_unlabelled(self.clips.unlabelled, divide=not held_out)
            parts.append(UnlabelledClips(learnt, self.spec, augmentation=config.augmentation, **shared))
            if measured:
                held_out.append(UnlabelledClips(measured, self.spec, **shared))
        stills = self.clips.usable_images
        if stills:
            parts.append(ImageDataset(stills, self.spec, augmentation=config.augmentation, seed=config.seed))
        if not held_out:
            raise UsageError("There is no clip to measure on: give labelled clips, or unlabelled ones, besides stills.")
        return MixedDataset(parts, views=config.teacher_views or None), MixedDataset(held_out)

    def _answer_caches(self) -> list[AnswerCache]:
        """Return the teacher's answer caches for the training and the validation set; none without cached views."""
        if not self.config.teacher_views or self.teacher is None:
            return []
        folder, room = self.folder.cache / "answers", _bytes(self.config.cache_gib)
        return [AnswerCache(folder, data.view_name, max_bytes=room) for data in (self.training, self.validation)]

    def _objective(self, *, cached: bool = True) -> Objective:
        config, network = self.config, self.start.network
        if self.teacher is None or config.distillation is None:
            frozen = self.frozen if config.keeps_features else None
            return CrossEntropy(network, config.label_smoothing, frozen=frozen)
        caches = self.answers if cached else []
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

    def _batch_size(self) -> int:
        """Return the batch of all processes together: as asked for, or what fits; never more than there are clips."""
        world, clips = self.fabric.world_size, len(self.training)
        asked = self.config.batch_size
        if asked is None:
            shape = (3, self.spec.num_frames, self.spec.crop, self.spec.crop)
            most = most_clips_a_process(clips, world, self.config.accumulate)
            found = self._largest_batch(self._objective(cached=False), shape, most)
            asked = found * world
        size = min(asked, clips)
        size -= size % world
        if len(self.validation) < world:
            raise UsageError(f"{world} processes measure on {len(self.validation)} clips; start fewer processes.")
        if size < 1 or clips < size * self.config.accumulate:
            raise UsageError(
                f"A step takes {self.config.accumulate} x {max(size, world)} clips for {world} processes, and there "
                f"are {clips}. Lower batch_size or accumulate, or start fewer processes."
            )
        if size != asked:
            self.notify(f"batch_size is {size} instead of {asked}: there are {clips} clips for {world} processes.")
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

        reserve = state_bytes(objective, self.config)
        found = find_batch_size(step, maximum=maximum, device=device, reserve_bytes=reserve)
        self.notify(found.explanation)
        return int(self.fabric.all_reduce(torch.tensor(float(found.size), device=device), reduce_op="min"))

    def _features(self, batch_size: int, on_features: Callable[[int, int], None]) -> tuple[FeatureCache, FeatureCache]:
        """The frozen part's output for every view in the place of the clips."""
        network, frozen, config = self.start.network, self.frozen, self.config
        assert frozen is not None
        network.to(self.fabric.device)
        view = (3, self.spec.num_frames, self.spec.crop, self.spec.crop)
        shape = feature_shape(network, frozen, view, self.fabric.device)
        check_room(
            shape,
            num_clips=len(self.training),
            num_views=config.frozen_views,
            num_measured=len(self.validation),
            max_bytes=_bytes(config.cache_gib),
        )
        self.notify(
            f"{frozen} and all before it stay as they are: their features of {config.frozen_views} random views of "
            f"{len(self.training)} clips, and of the middle of {len(self.validation)}, are computed once."
        )
        make = frozen_part(network, frozen, self.fabric.device)
        return (
            self._kept(self.training, config.frozen_views, shape, make, batch_size, on_features),
            self._kept(self.validation, 1, shape, make, batch_size, on_features),
        )

    def _has_room_for_views(self, objective: Distillation) -> bool:
        """Whether the student's views can be kept, and all answers: about such views the teacher cannot be asked."""
        student, views = self.start.card.input, self.config.teacher_views
        shape = (3, student.num_frames, student.crop, student.crop)
        number, room = views * len(self.training) + len(self.validation), _bytes(self.config.cache_gib)
        return views > 0 and max(bytes_needed(shape, number), objective.answer_bytes * number) <= room

    def _student_views(
        self, objective: Distillation, batch_size: int, on_features: Callable[[int, int], None]
    ) -> tuple[FeatureCache, FeatureCache]:
        """The student's views in the place of the clips, after the teacher was asked about all of them."""
        objective.to(self.fabric.device)
        student, views = self.start.card.input, self.config.teacher_views
        shape = (3, student.num_frames, student.crop, student.crop)
        self.notify(
            f"The teacher answers {views} random views of {len(self.training)} clips, and the middle of "
            f"{len(self.validation)}, once; what the student sees of them is kept."
        )
        kept = (
            self._kept(self.training, views, shape, objective.ask, batch_size, on_features),
            self._kept(self.validation, 1, shape, objective.ask_measured, batch_size, on_features),
        )
        objective.sees_kept_views = True
        return kept

    def _kept(
        self,
        data: MixedDataset,
        views: int,
        shape: tuple[int, ...],
        make: Callable[[Batch], Tensor],
        batch_size: int,
        on_features: Callable[[int, int], None],
    ) -> FeatureCache:
        folder = self.folder.cache / ("training" if data is self.training else "validation")
        kept = FeatureCache(data, folder, num_views=views, shape=shape)
        self.fabric.barrier()
        kept.compute(make, self.fabric, batch_size=min(batch_size, 4), workers=self.config.workers, on_clip=on_features)
        return kept

    def _describe(self, result: TrainResult) -> None:
        """The picture of the curves and the model card."""
        rows = read_metrics(self.folder.metrics)
        best_step = int(result.best["step"])
        draw_curves(rows, self.folder.curves, title=self.start.card.name, best_step=best_step)
        notes = [self.start.loaded]
        learnt, measured = split_unlabelled(self.clips.unlabelled, divide=not self.clips.labelled.usable)
        if not result.finished:
            notes.append(f"Training was stopped after step {result.step}, before its end.")
        if result.early:
            notes.append(f"Training stopped after {rows[-1]['epoch']:g} epochs: it got no better.")
        if self.clips.unlabelled.rows or self.clips.stills:
            also = f", and {len(measured)} such clips were in the validation set" if measured else ""
            notes.append(
                f"Also trained on {len(learnt)} clips and {len(self.clips.usable_images)} pictures without labels"
                f"{also}."
            )
        distillation = self.config.distillation
        card = RunModelCard(
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


def _bytes(gibibytes: float) -> int:
    return max(1, int(gibibytes * GIBIBYTE))
