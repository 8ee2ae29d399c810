"""The training loop: optimisation steps, validation after each epoch, and a state to resume from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from nonlocal_video.errors import TrainingError
from nonlocal_video.models.card import ModelCard
from nonlocal_video.training.augment import BatchMixer
from nonlocal_video.training.config import TrainConfig
from nonlocal_video.training.distributed import copy_buffers_from_first
from nonlocal_video.training.feature_cache import FeatureCache
from nonlocal_video.training.freezing import Gates, set_training, with_absorbed_gates
from nonlocal_video.training.loading import BatchLoader, EpochBatches, EveryClip, TrainingData, as_input, loaded
from nonlocal_video.training.metrics import MetricsWriter
from nonlocal_video.training.objective import Batch, Losses, Objective, one_hot
from nonlocal_video.training.optim import AveragedWeights, learning_rate, make_optimizer, set_learning_rate
from nonlocal_video.training.run_folder import RunFolder
from nonlocal_video.training.validation import validate

if TYPE_CHECKING:
    from lightning.fabric import Fabric

VALIDATION = "validation/"


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a training run."""

    step: int
    """Number of optimisation steps done."""
    steps: int
    """Number of optimisation steps of the whole run."""
    epoch: float
    """Number of epochs done."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics after a validation, by column of `metrics.csv`; otherwise empty."""


@dataclass(frozen=True)
class TrainResult:
    """Result of a training run."""

    step: int
    """Number of optimisation steps done."""
    best: dict[str, float]
    """Metrics of the best weights, by column of `metrics.csv`, with `epoch` and `step`."""
    finished: bool
    """Whether the run reached its end; False if it was stopped before."""
    early: bool
    """Whether it stopped early, for lack of improvement."""
    train_seconds: float
    """Seconds spent in training steps since this start of the run, with data loading, without validation."""
    train_clips: int
    """Number of clips processed in those steps, over all processes."""


class Training:
    """The training loop of one start of a run, new or resumed.

    Random numbers depend on the seed, the epoch, the step and a clip's index alone, and everything else is in the saved
    state. So a run that is killed at any moment and resumed ends with the same bits as an uninterrupted one; on a GPU
    only with deterministic algorithms.
    """

    def __init__(
        self,
        objective: Objective,
        card: ModelCard,
        config: TrainConfig,
        *,
        train: TrainingData,
        validation: TrainingData,
        clip_name: Callable[[int], str],
        frozen: str | None,
        fabric: Fabric,
        folder: RunFolder,
        batch_size: int,
    ) -> None:
        """Make the optimizer, the loaders and the averaged weights.

        Args:
            objective: The loss, around the initialized network.
            card: Model card to save with the weights.
            config: Settings, see `resolved`.
            train: Training set.
            validation: Validation set, evaluated after every epoch.
            clip_name: Returns a training clip's name for messages, given its index.
            frozen: Name of the last frozen layer; None if all are trainable.
            fabric: Launched Fabric. Only its first process writes files.
            folder: Folder of the run, created or opened by the first process.
            batch_size: Clips per forward pass over all processes; a multiple of the number of processes.
        """
        self.config, self.card, self.fabric, self.folder = config, card, fabric, folder
        self._clip_name, self._frozen = clip_name, frozen
        self.objective = objective.to(fabric.device)
        self._gates = Gates(objective.network, config.progressive)
        self._averaged = None if config.ema_decay is None else AveragedWeights(objective, config.ema_decay)
        module: torch.nn.Module = torch.compile(objective) if config.compile else objective  # type: ignore[assignment]
        self.optimizer = make_optimizer(objective, config)
        self._wrapped, self._optimizer = fabric.setup(module, self.optimizer)
        rank, world = fabric.global_rank, fabric.world_size
        pin = fabric.device.type == "cuda"
        self._batches = EpochBatches(
            len(train),
            batch_size,
            seed=config.seed,
            epochs=config.epochs,
            group=config.accumulate,
            rank=rank,
            world_size=world,
        )
        workers = 0 if isinstance(train, FeatureCache) else config.workers
        self._loader = BatchLoader(train, self._batches, workers=workers, pin_memory=pin)
        share = max(1, batch_size // world)
        self._validation = BatchLoader(
            validation,
            EveryClip(len(validation), share, rank=rank, world_size=world),
            workers=workers,
            pin_memory=pin,
        )
        self._mixer = BatchMixer(config.augmentation, len(card.labels))
        self.steps_per_epoch = self._batches.num_batches // config.accumulate
        self.steps = config.epochs * self.steps_per_epoch
        self.step = 0
        self._sums: dict[str, Tensor] = {}
        self._best: dict[str, float] = {}
        self._epochs_since_best = 0

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state that was saved by `RunFolder.save_state`."""
        self.step, self._best = state["step"], state["best"]
        self._epochs_since_best = state["epochs_since_best"]
        self._sums = dict(state["sums"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
        for name, block in self.objective.network.nonlocal_layers().items():
            block.gate = state["gates"][name]

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "batch_size": self._batches.batch_size,
            "best": self._best,
            "epochs_since_best": self._epochs_since_best,
            "sums": self._sums,
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "averaged": None if self._averaged is None else self._averaged.state_dict(),
            "gates": self._gates.values(),
            "finished": self._finished,
            "early": self._early,
        }

    def run(
        self,
        log: MetricsWriter | None,
        *,
        on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> TrainResult:
        """Train to the end, or until `should_stop` returns True.

        Args:
            log: Metrics log in the first process; None in the others.
            on_progress: Called after every step and every validation.
            should_stop: Called in every step; if True, the state is saved after that step and training stops.

        Raises:
            TrainingError: The loss is not finite; the message names the clips.
            VideoError: A clip cannot be read.
            OutputError: A file cannot be written.
        """
        seconds, clips, stopped = 0.0, 0, False
        alone = self.fabric.world_size == 1  # several processes agree within a step, and need no other message
        self._batches.first = self.step * self.config.accumulate
        try:
            batches = iter(self._loader)  # of all epochs: the next epoch's clips are loaded during validation
            while not self._finished and not stopped:
                epoch = self.step // self.steps_per_epoch
                started = time.perf_counter()
                while self.step < (epoch + 1) * self.steps_per_epoch and not stopped:
                    seen, stopped = self._one_step(batches, epoch, None if alone else should_stop)
                    stopped = stopped or (alone and should_stop())
                    clips += seen
                    on_progress(TrainingProgress(self.step, self.steps, self.step / self.steps_per_epoch))
                    every = self.config.save_every_steps
                    # Not after the epoch's last step: that epoch would never be validated.
                    if self.step % self.steps_per_epoch and (stopped or (every and self.step % every == 0)):
                        self._save_state()
                seconds += time.perf_counter() - started
                if self.step % self.steps_per_epoch == 0:
                    metrics = self._end_epoch(log)
                    on_progress(TrainingProgress(self.step, self.steps, self.step / self.steps_per_epoch, metrics))
                    self._save_state()
        finally:
            self._loader.close()
            self._validation.close()
        return TrainResult(self.step, self._best, self._finished, self._early, seconds, clips)

    @property
    def _finished(self) -> bool:
        return self._early or self.step >= self.steps

    @property
    def _early(self) -> bool:
        patience = self.config.patience
        return self.step < self.steps and patience is not None and self._epochs_since_best >= patience

    def _one_step(self, batches: Any, epoch: int, should_stop: Callable[[], bool] | None) -> tuple[int, bool]:
        """Run one optimisation step; return its number of clips over all processes, and whether any has to stop.

        The host waits for the device once, after queueing all of the step but the weight update.
        """
        config, fabric = self.config, self.fabric
        self.objective.train()
        set_training(self.objective.network, self._frozen, config.batch_norm or "frozen")
        self._gates.set_epoch(self.step / self.steps_per_epoch)
        set_learning_rate(self.optimizer, learning_rate(config, self.step, self.steps_per_epoch))
        # Dropout draws from the global generators: seeded for each step they need not be saved.
        torch.manual_seed(_seed(config.seed, self.step, fabric.global_rank))
        sums: dict[str, Tensor] = {}
        parts: list[tuple[Tensor, Tensor]] = []
        for part in range(config.accumulate):
            pixels, classes, indices = loaded(next(batches))
            clips, classes = as_input(pixels, self._loader, fabric.device), classes.to(fabric.device, non_blocking=True)
            if config.channels_last and clips.ndim == 5:
                clips = clips.contiguous(memory_format=torch.channels_last_3d)
            number = self.step % self.steps_per_epoch * config.accumulate + part
            targets = one_hot(classes, len(self.card.labels))
            if config.augmentation.mixup or config.augmentation.cutmix:
                clips, targets = self._mixer(clips, classes, seed=config.seed, epoch=epoch, batch=number)
            with fabric.no_backward_sync(self._wrapped, enabled=part + 1 < config.accumulate):
                losses: Losses = self._wrapped(Batch(clips, targets, indices, epoch))
                fabric.backward(losses.total / config.accumulate)
            for name, value in {"loss": losses.total.detach(), **losses.terms}.items():
                sums[name] = sums.get(name, 0) + value.double() / config.accumulate
            parts.append((losses.total.detach(), indices))
        stopped = self._add_up(sums, parts, stop=should_stop is not None and should_stop())
        if config.clip_norm is not None:
            fabric.clip_gradients(self._wrapped, self._optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._averaged is not None:
            self._averaged.update(self.objective)
        self.step += 1
        return self._batches.batch_size * config.accumulate, stopped

    def _add_up(self, sums: dict[str, Tensor], parts: Sequence[tuple[Tensor, Tensor]], stop: bool) -> bool:
        """Add a step's mean losses to the sums of the epoch; return whether any process has to stop.

        One reduction carries all values, and is the only point of a step where the host waits for the device.

        Args:
            sums: Mean losses of this process, by name.
            parts: Loss and clip indices of each batch.
            stop: Whether this process has to stop.

        Raises:
            TrainingError: A loss is not finite in some process.
        """
        stop_flag = torch.full((), float(stop), dtype=torch.float64, device=self.fabric.device)
        means = self.fabric.all_reduce(torch.stack([*sums.values(), stop_flag]), reduce_op="mean")
        means_by_name = dict(zip([*sums, "stop"], means.tolist(), strict=True))
        if not math.isfinite(means_by_name["loss"]):
            self._refuse_loss(parts)
        for name, mean in zip(sums, means.unbind(), strict=False):
            self._sums[name] = self._sums.get(name, torch.zeros_like(mean)) + mean
        return means_by_name["stop"] > 0

    def _refuse_loss(self, parts: Sequence[tuple[Tensor, Tensor]]) -> NoReturn:
        found = "not finite in another process"
        for loss, indices in parts:
            if not torch.isfinite(loss):
                found = f"{loss.item()}, for the clips {', '.join(map(self._clip_name, indices.tolist()))}"
                break
        raise TrainingError(
            f"The loss of step {self.step + 1} is {found}. The files saved before stay usable. Try a lower "
            f"--learning-rate, --set clip_norm=1, or --set precision=32-true."
        )

    def _end_epoch(self, log: MetricsWriter | None) -> dict[str, float]:
        """Validate, log the metrics, and save the weights."""
        epoch = self.step / self.steps_per_epoch
        evaluated: Objective = self.objective if self._averaged is None else self._averaged.module  # type: ignore[assignment]
        self._copy_gates(evaluated)
        evaluated.finalize()
        if self.fabric.world_size > 1:  # batch norms saw different clips in each process; those of the first are saved
            copy_buffers_from_first(evaluated)
        found = validate(evaluated, self._validation, len(self.card.labels), self.fabric)
        metrics = {f"train/{name}": float(total / self.steps_per_epoch) for name, total in self._sums.items()}
        metrics |= {f"{VALIDATION}{name}": value for name, value in found.items()}
        if not math.isfinite(found["loss"]):
            raise TrainingError(
                f"After step {self.step} the validation loss is {found['loss']}. The files saved before stay "
                f"usable. Try a lower --learning-rate, --set clip_norm=1, or --set precision=32-true."
            )
        metrics["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        metrics |= {f"gate/{name}": gate for name, gate in self._gates.values().items()}
        self._sums = {}
        better = not self._best or _rank(metrics) > _rank(self._best)
        self._epochs_since_best = 0 if better else self._epochs_since_best + 1
        if better:
            self._best = {"step": self.step, "epoch": epoch, **metrics}
        if self.fabric.global_rank == 0:
            assert log is not None
            log.add(self.step, epoch, metrics)
            network = with_absorbed_gates(evaluated.network)
            self.folder.save_last(network, self.card)
            if better:
                self.folder.save_best(network, self.card)
        return metrics

    def _copy_gates(self, to: Objective) -> None:
        for name, block in to.network.nonlocal_layers().items():
            block.gate = self._gates.values()[name]

    def _save_state(self) -> None:
        if self.fabric.global_rank == 0:
            self.folder.save_state(self._state())
        self.fabric.barrier()


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _rank(metrics: Mapping[str, float]) -> tuple[float, float]:
    """Return a key for comparing epochs, higher is better: top-1 accuracy if there are labels, then the lower loss."""
    return metrics.get(f"{VALIDATION}top1", 0.0), -metrics[f"{VALIDATION}loss"]
