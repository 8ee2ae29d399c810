"""A training run: from settings and checked clips to a folder with a trained model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nonlocal_video.datasets.manifest import VALIDATION
from nonlocal_video.errors import DeviceError, ModelError, TrainingError, UsageError
from nonlocal_video.inference.device_errors import failure_of, first_line
from nonlocal_video.models.checkpoint import read_card
from nonlocal_video.training.batch_size import find_batch_size, max_batch_size_per_process
from nonlocal_video.training.config import TrainConfig, make_config, resolved
from nonlocal_video.training.curves import draw_curves
from nonlocal_video.training.determinism import deterministic_algorithms
from nonlocal_video.training.disk_cache import GIBIBYTE, MAX_CLIP_BYTES, DiskCache
from nonlocal_video.training.distillation.alignment import viewing_spec
from nonlocal_video.training.distillation.objective import Distillation
from nonlocal_video.training.distillation.teacher import AnswerCache, Teacher
from nonlocal_video.training.engine import Training, TrainingProgress, TrainResult
from nonlocal_video.training.feature_cache import FeatureCache, bytes_needed, check_room, feature_shape, frozen_part
from nonlocal_video.training.freezing import Gates, checkpoint_activations, freeze, last_frozen_layer, share_statistics
from nonlocal_video.training.initialization import Initialization, NewModel, check_trainable, initialize, read_new_model
from nonlocal_video.training.loading import TrainingData
from nonlocal_video.training.metrics import MetricsWriter, read_metrics
from nonlocal_video.training.mixed_data import MixedDataset
from nonlocal_video.training.model_card import RunModelCard
from nonlocal_video.training.objective import Batch, CrossEntropy, Objective, one_hot
from nonlocal_video.training.optim import state_bytes
from nonlocal_video.training.run_data import RunData, classes_of, split_unlabelled
from nonlocal_video.training.run_datasets import make_datasets
from nonlocal_video.training.run_folder import RunFolder
from nonlocal_video.zoo.catalogue import find

if TYPE_CHECKING:
    from lightning.fabric import Fabric


@dataclass(frozen=True)
class RunSettings:
    """Everything besides its clips that determines the result of a run."""

    model: str | NewModel
    """Catalogue name, weights file, folder of a run, or description of a new network."""
    train: TrainConfig
    fast: bool = False
    """Whether to train on the model's cheaper input, `fast_input` of its card."""
    new_weights: bool = False
    """Whether to use only the architecture of `model`, with random weights."""
    validation: str = VALIDATION
    """Name of the validation split."""
    device: str = "auto"
    """Device: `auto`, `cpu`, `cuda`, `cuda:1`."""
    processes: int = 1
    """Number of training processes."""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for `config.json`."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunSettings:
        """Make settings from the values of `to_dict`."""
        model = values["model"] if isinstance(values["model"], str) else read_new_model(values["model"], "config.json")
        return cls(**{**values, "model": model, "train": make_config(values["train"])})


def train_run(
    folder: RunFolder,
    settings: RunSettings,
    clips: RunData,
    fabric: Fabric,
    *,
    resume: bool = False,
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
    on_features: Callable[[int, int], None] = lambda done, of: None,
    notify: Callable[[str], None] = lambda sentence: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train a model and write all results into the folder of the run.

    Args:
        folder: Folder of the run, created or opened by the first process.
        settings: Settings of the run.
        clips: Training and validation clips.
        fabric: Launched Fabric.
        resume: Whether to resume the run in the folder.
        on_progress: Called after every step and every validation.
        on_features: Called with the number of views done and of all views, while cached features are computed.
        notify: Called with one sentence on each decision, such as what was loaded.
        should_stop: Called after every step; if True, training stops.

    Raises:
        UsageError: Settings, clips and model do not fit together, or a deterministic run needs an operation that has no
            deterministic algorithm. A newly created folder is discarded.
        ModelError: The model is not available. A newly created folder is discarded.
        TrainingError: The loss is not finite, or the device is out of memory.
        DeviceError: The device has failed; `resume` continues.
        VideoError: A clip cannot be read.
        OutputError: The folder cannot be written.
    """
    try:
        with torch.random.fork_rng(devices=[]), deterministic_algorithms(settings.train.deterministic):
            torch.manual_seed(settings.train.seed)  # for layers that distillation adds
            return _Run(folder, settings, clips, fabric, notify).train(
                resume=resume, on_progress=on_progress, on_features=on_features, should_stop=should_stop
            )
    except (UsageError, ModelError):
        folder.discard()
        raise
    except (RuntimeError, MemoryError) as error:
        failure = failure_of(error)
        if failure is None:
            raise
        if failure == "device":
            raise DeviceError(
                f"The device {fabric.device} failed: {first_line(error).rstrip('.')}. `train --resume` with this "
                f"--output continues after the last saved step; if it fails again, run `nonlocal-video doctor`."
            ) from None
        folder.discard()
        raise TrainingError(
            f"The memory of {fabric.device} is too small: {first_line(error).rstrip('.')}. Start another run with a "
            f"lower --batch-size or --batch-size auto, --set gradient_checkpointing=true, or --set "
            f"precision=bf16-mixed."
        ) from error


class _StopError(Exception):
    """Training was stopped while cached views were computed; a resumed run continues with them."""


class _Run:
    """The parts of a run: model, data, caches and objective."""

    def __init__(
        self, folder: RunFolder, settings: RunSettings, clips: RunData, fabric: Fabric, notify: Callable[[str], None]
    ) -> None:
        self.folder, self.settings, self.clips, self.fabric, self.notify = folder, settings, clips, fabric, notify
        self.teacher = self._load_teacher(settings.train)
        self.start = self._initialize(settings)
        self.notify(self.start.loaded)
        self.config = config = resolved(settings.train, has_weights=self.start.has_weights)
        if not self.start.has_weights and config.stage != "all":
            raise UsageError(
                f"stage = {config.stage!r} freezes layers, and those of this network are random. Use --stage all, "
                f"or start from trained weights."
            )
        self.frozen = last_frozen_layer(self.start.network, config.stage)
        freeze(self.start.network, self.frozen)
        # Checks the schedule before hours of teacher inference.
        fully_open_epoch = Gates(self.start.network, config.progressive).fully_open_epoch()
        if fully_open_epoch > config.epochs:
            self.notify(
                f"All blocks are open after {fully_open_epoch:g} epochs, and the run has {config.epochs}: some "
                f"stay partly or fully closed. Lower progressive.warmup_epochs or ramp_epochs to change that."
            )
        self.spec = self.start.card.input
        if self.teacher is not None:
            self.spec = viewing_spec(self.start.card.input, self.teacher.spec)
        fabric.barrier()  # no process may write files for a run that another rejects and discards
        self.training, self.validation = self._data()
        self.answers = self._answer_caches()
        fabric.barrier()

    def train(
        self,
        *,
        resume: bool,
        on_progress: Callable[[TrainingProgress], None],
        on_features: Callable[[int, int], None],
        should_stop: Callable[[], bool],
    ) -> TrainResult:
        network, config, fabric = self.start.network, self.config, self.fabric
        state = self.folder.load_state() if resume else None
        if state is not None and state["finished"]:
            done = TrainResult(state["step"], state["best"], True, state["early"], train_seconds=0.0, train_clips=0)
            return self._finish(done)
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
            if config.caches_features:
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
            clip_name=self.training.path,
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
        return self._finish(result)

    def _finish(self, result: TrainResult) -> TrainResult:
        if self.fabric.global_rank == 0 and result.best:
            self._describe(result)
        if self.fabric.global_rank == 0 and result.finished:
            shutil.rmtree(self.folder.cache, ignore_errors=True)
        return result

    def _load_teacher(self, config: TrainConfig) -> Teacher | None:
        return None if config.distillation is None else Teacher.load(config.distillation.teacher)

    def _initialize(self, settings: RunSettings) -> Initialization:
        start = initialize(
            settings.model,
            classes_of(settings.train, self.clips, () if self.teacher is None else self.teacher.labels),
            name=self.folder.path.resolve().name,
            fast=settings.fast,
            new_weights=settings.new_weights,
            seed=settings.train.seed,
        )
        check_trainable(start)
        if (region := settings.train.seen_region) is not None:
            start = replace(start, card=replace(start.card, notes=(region.model_note,)))
        return start

    def _data(self) -> tuple[MixedDataset, MixedDataset]:
        """Return the training and the validation set, as views of the clips."""
        config, cache = self.config, None
        if config.cache_gib and not config.caches_features:
            limit = _bytes(config.cache_gib)
            cache = DiskCache(self.folder.cache / "clips", max_bytes=limit, max_clip_bytes=min(limit, MAX_CLIP_BYTES))
        validation = self.settings.validation
        return make_datasets(self.clips, self.start.card.labels, self.spec, config, validation=validation, cache=cache)

    def _answer_caches(self) -> list[AnswerCache]:
        """Return the teacher's answer caches for the training and the validation set; none without cached views."""
        if not self.config.teacher_views or self.teacher is None:
            return []
        folder, max_bytes = self.folder.cache / "answers", _bytes(self.config.cache_gib)
        return [AnswerCache(folder, data.view_name, max_bytes=max_bytes) for data in (self.training, self.validation)]

    def _objective(self, *, cached: bool = True) -> Objective:
        config, network = self.config, self.start.network
        if self.teacher is None or config.distillation is None:
            frozen = self.frozen if config.caches_features else None
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
            validation_cache=caches[1] if caches else None,
        )

    def _batch_size(self) -> int:
        """Return the batch size over all processes: the configured one or the largest that fits, at most all clips."""
        world, clips = self.fabric.world_size, len(self.training)
        wanted = self.config.batch_size
        if wanted is None:
            shape = (3, self.spec.num_frames, self.spec.crop, self.spec.crop)
            most = max_batch_size_per_process(clips, world, self.config.accumulate)
            found = self._largest_batch(self._objective(cached=False), shape, most)
            wanted = found * world
        size = min(wanted, clips)
        size -= size % world
        if len(self.validation) < world:
            raise UsageError(f"{world} processes share {len(self.validation)} validation clips; start fewer processes.")
        if size < 1 or clips < size * self.config.accumulate:
            raise UsageError(
                f"A step takes {self.config.accumulate} x {max(size, world)} clips for {world} processes, and there "
                f"are {clips}. Lower batch_size or accumulate, or start fewer processes."
            )
        if size != wanted:
            self.notify(f"batch_size is {size} instead of {wanted}: there are {clips} clips for {world} processes.")
        return size

    def _largest_batch(self, objective: Objective, shape: Sequence[int], maximum: int) -> int:
        device = self.fabric.device
        objective.to(device)

        def step(size: int) -> None:
            clips = torch.zeros(size, *shape, device=device)
            if self.config.caches_features:
                assert self.frozen is not None
                with torch.no_grad(), self.fabric.autocast():
                    clips = self.start.network.eval().forward_to(self.frozen, clips)
            classes = torch.zeros(size, dtype=torch.int64, device=device)
            targets = one_hot(classes, len(self.start.card.labels))
            objective.eval()  # keeps batch-norm statistics; the activations stored for gradients are the same
            with self.fabric.autocast():
                objective(Batch(clips, targets, torch.zeros_like(classes), 0)).total.backward()
            objective.zero_grad(set_to_none=True)

        reserve = state_bytes(objective, self.config)
        found = find_batch_size(step, maximum=maximum, device=device, reserve_bytes=reserve)
        self.notify(found.explanation)
        return int(self.fabric.all_reduce(torch.tensor(float(found.size), device=device), reduce_op="min"))

    def _features(self, batch_size: int, on_features: Callable[[int, int], None]) -> tuple[FeatureCache, FeatureCache]:
        """Return caches of the frozen part's features, which replace the clips."""
        network, frozen, config = self.start.network, self.frozen, self.config
        assert frozen is not None
        network.to(self.fabric.device)
        view = (3, self.spec.num_frames, self.spec.crop, self.spec.crop)
        shape = feature_shape(network, frozen, view, self.fabric.device)
        check_room(
            shape,
            num_clips=len(self.training),
            num_views=config.frozen_views,
            num_validation=len(self.validation),
            max_bytes=_bytes(config.cache_gib),
        )
        self.notify(
            f"All layers up to {frozen} are frozen: their features are computed once, for {config.frozen_views} random "
            f"views of the training set ({len(self.training)}) and one of the validation set ({len(self.validation)})."
        )
        make = frozen_part(network, frozen, self.fabric.device)
        return (
            self._cached(self.training, config.frozen_views, shape, make, batch_size, on_features),
            self._cached(self.validation, 1, shape, make, batch_size, on_features),
        )

    def _has_room_for_views(self, objective: Distillation) -> bool:
        """Return whether all student views and teacher outputs fit: the teacher cannot run on a cached student view."""
        student, views = self.start.card.input, self.config.teacher_views
        shape = (3, student.num_frames, student.crop, student.crop)
        number, max_bytes = views * len(self.training) + len(self.validation), _bytes(self.config.cache_gib)
        return views > 0 and max(bytes_needed(shape, number), objective.answer_bytes * number) <= max_bytes

    def _student_views(
        self, objective: Distillation, batch_size: int, on_features: Callable[[int, int], None]
    ) -> tuple[FeatureCache, FeatureCache]:
        """Return caches of the student's views, which replace the clips, and cache the teacher's outputs on them."""
        objective.to(self.fabric.device)
        student, views = self.start.card.input, self.config.teacher_views
        shape = (3, student.num_frames, student.crop, student.crop)
        self.notify(
            f"The teacher runs once on {views} random views of {len(self.training)} training clips and on "
            f"{len(self.validation)} validation clips; its outputs and the student's views are cached."
        )
        caches = (
            self._cached(self.training, views, shape, objective.cache_training_answers, batch_size, on_features),
            self._cached(self.validation, 1, shape, objective.cache_validation_answers, batch_size, on_features),
        )
        objective.uses_cached_views = True
        return caches

    def _cached(
        self,
        data: MixedDataset,
        views: int,
        shape: tuple[int, ...],
        make: Callable[[Batch], Tensor],
        batch_size: int,
        on_features: Callable[[int, int], None],
    ) -> FeatureCache:
        folder = self.folder.cache / ("training" if data is self.training else "validation")
        cache = FeatureCache(data, folder, num_views=views, shape=shape)
        self.fabric.barrier()
        cache.compute(
            make, self.fabric, batch_size=min(batch_size, 4), workers=self.config.workers, on_clip=on_features
        )
        return cache

    def _describe(self, result: TrainResult) -> None:
        """Write the plot of the curves and the model card."""
        rows = read_metrics(self.folder.metrics)
        best_step = int(result.best["step"])
        draw_curves(rows, self.folder.curves, title=self.start.card.name, best_step=best_step)
        notes = [self.start.loaded]
        train_rows, validation_rows = split_unlabelled(self.clips.unlabelled, divide=not self.clips.labelled.usable)
        if not result.finished:
            notes.append(f"Training was stopped after step {result.step}, before its end.")
        if result.early:
            notes.append(f"Training stopped early after {rows[-1]['epoch']:g} epochs, for lack of improvement.")
        if self.clips.unlabelled.rows or self.clips.images:
            also = f"; {len(validation_rows)} more were in the validation set" if validation_rows else ""
            notes.append(
                f"Also trained on {len(train_rows)} clips and {len(self.clips.usable_images)} images without labels"
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
            region=self.config.seen_region,
            chosen_by="validation/top1" if "validation/top1" in rows[-1] else "validation/loss",
            notes=notes,
        )
        self.folder.write_readme(card.text())


def _bytes(gibibytes: float) -> int:
    return max(1, int(gibibytes * GIBIBYTE))
