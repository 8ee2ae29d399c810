"""The training loop: epochs of optimisation steps, a measurement after each, and a state to go on from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

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
from nonlocal_video.training.optim import learning_rate, make_optimizer, moving_average, set_learning_rate
from nonlocal_video.training.run_folder import RunFolder
from nonlocal_video.training.validation import measure

VALIDATION = "validation/"


@dataclass(frozen=True)
class Progress:
    """Where a run is."""

    step: int
    """Optimisation steps done."""
    steps: int
    """Optimisation steps of the whole run."""
    epoch: float
    """Epochs done."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """After a measurement, as in `metrics.csv`."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    step: int
    best: dict[str, float]
    """The measurement of the best weights, by column, with `epoch` and `step`."""
    finished: bool
    """Or it was asked to stop before its end."""
    early: bool
    """It stopped as it got no better."""
    train_seconds: float
    """Spent in training steps by this start of the run, loading included, measuring not."""
    train_clips: int
    """Clips that went through them, in all processes together."""


class Training:
    """One start of a run, new or resumed.

    Everything random depends on the seed, the epoch, the step and a clip's place alone, and everything else is in the
    state, so a run that is killed at any moment and resumed ends with the same bits as one that never was; on a GPU
    with deterministic algorithms.
    """

    def __init__(
        self,
        objective: Objective,
        card: ModelCard,
        config: TrainConfig,
        *,
        train: TrainingData,
        validation: TrainingData,
        names: Callable[[int], str],
        frozen: str | None,
        fabric: Fabric,
        folder: RunFolder,
        batch_size: int,
    ) -> None:
        """Prepare.

        Args:
            objective: Around the network as it begins.
            card: What is saved with the weights.
            config: The settings, resolved.
            train: Training set.
            validation: Validation set, evaluated after every epoch.
            names: Place in `train` -> what the clip is called in messages.
            frozen: The last layer that does not learn.
            fabric: Launched. Of its processes only the first writes.
            folder: Created or opened by the first process.
            batch_size: Clips of all processes in one forward pass; a multiple of the number of processes.
        """
        self.config, self.card, self.fabric, self.folder = config, card, fabric, folder
        self._names, self._frozen = names, frozen
        self.objective = objective.to(fabric.device)
        self._gates = Gates(objective.network, config.progressive)
        self._averaged: AveragedModel | None = None
        if config.ema_decay is not None:
            # Statistics of batch norms are means already, and are copied: averaged once more they would stay those of a
            # new network for a thousand steps.
            self._averaged = AveragedModel(objective, multi_avg_fn=moving_average(config.ema_decay))
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
        """Go on from what `_state` gave."""
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
        on_progress: Callable[[Progress], None] = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> TrainResult:
        """Train to the end, or until asked to stop.

        Args:
            log: Of the first process.
            on_progress: Called after every step and every measurement.
            should_stop: Asked in every step, which is the last one then; the state is saved.

        Raises:
            TrainingError: The loss is not finite; the message names the batch.
            VideoError: A clip cannot be read.
            OutputError: Something cannot be written.
        """
        seconds, clips, stopped = 0.0, 0, False
        alone = self.fabric.world_size == 1  # several processes agree within a step, and need no other message
        self._batches.first = self.step * self.config.accumulate
        try:
            batches = iter(self._loader)  # of all epochs: while one is measured, the next one's clips are loaded
            while not self._finished and not stopped:
                epoch = self.step // self.steps_per_epoch
                started = time.perf_counter()
                while self.step < (epoch + 1) * self.steps_per_epoch and not stopped:
                    seen, stopped = self._one_step(batches, epoch, None if alone else should_stop)
                    stopped = stopped or (alone and should_stop())
                    clips += seen
                    on_progress(Progress(self.step, self.steps, self.step / self.steps_per_epoch))
                    every = self.config.save_every_steps
                    # Not after the epoch's last step: a state without its measurement would never be measured.
                    if self.step % self.steps_per_epoch and (stopped or (every and self.step % every == 0)):
                        self._save_state()
                seconds += time.perf_counter() - started
                if self.step % self.steps_per_epoch == 0:
                    metrics = self._end_epoch(log)
                    on_progress(Progress(self.step, self.steps, self.step / self.steps_per_epoch, metrics))
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
        """One optimisation step: the number of clips it saw in all processes, and whether any was asked to stop.

        The device is waited for once, when all of the step but the update of the weights has been handed to it.
        """
        config, fabric = self.config, self.fabric
        self.objective.train()
        set_training(self.objective.network, self._frozen, config.batch_norm or "frozen")
        self._gates.move(self.step / self.steps_per_epoch)
        set_learning_rate(self.optimizer, learning_rate(config, self.step, self.steps_per_epoch))
        # Dropout draws from the global generators: seeded for each step they need not be saved.
        torch.manual_seed(_seed(config.seed, self.step, fabric.global_rank))
        sums: dict[str, Tensor] = {}
        parts: list[tuple[Tensor, Tensor]] = []
        for part in range(config.accumulate):
            pixels, classes, places = loaded(next(batches))
            clips, classes = as_input(pixels, self._loader, fabric.device), classes.to(fabric.device, non_blocking=True)
            if config.channels_last and clips.ndim == 5:
                clips = clips.contiguous(memory_format=torch.channels_last_3d)
            number = self.step % self.steps_per_epoch * config.accumulate + part
            targets = one_hot(classes, len(self.card.labels))
            if config.augmentation.mixup or config.augmentation.cutmix:
                clips, targets = self._mixer(clips, classes, seed=config.seed, epoch=epoch, batch=number)
            with fabric.no_backward_sync(self._wrapped, enabled=part + 1 < config.accumulate):
                losses: Losses = self._wrapped(Batch(clips, targets, places, epoch))
                fabric.backward(losses.total / config.accumulate)
            for name, value in {"loss": losses.total.detach(), **losses.terms}.items():
                sums[name] = sums.get(name, 0) + value.double() / config.accumulate
            parts.append((losses.total.detach(), places))
        stopped = self._add_up(sums, parts, stop=should_stop is not None and should_stop())
        if config.clip_norm is not None:
            fabric.clip_gradients(self._wrapped, self._optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._averaged is not None:
            self._averaged.update_parameters(self.objective)
        self.step += 1
        return self._batches.batch_size * config.accumulate, stopped

    def _add_up(self, sums: dict[str, Tensor], parts: Sequence[tuple[Tensor, Tensor]], stop: bool) -> bool:
        """Add a step's means over all processes to the epoch's, and say whether any process was asked to stop.

        All of them travel together, and are then the one thing of a step that the host waits for.

        Args:
            sums: This process's mean losses, by name.
            parts: Loss and places of each batch.
            stop: Whether this process was asked to.

        Raises:
            TrainingError: A loss is not finite, in any process.
        """
        asked = torch.full((), float(stop), dtype=torch.float64, device=self.fabric.device)
        means = self.fabric.all_reduce(torch.stack([*sums.values(), asked]), reduce_op="mean")
        read = dict(zip([*sums, "asked"], means.tolist(), strict=True))
        if not math.isfinite(read["loss"]):
            self._refuse_loss(parts)
        for name, mean in zip(sums, means.unbind(), strict=False):
            self._sums[name] = self._sums.get(name, torch.zeros_like(mean)) + mean
        return read["asked"] > 0

    def _refuse_loss(self, parts: Sequence[tuple[Tensor, Tensor]]) -> NoReturn:
        found = "not finite in another process"
        for loss, places in parts:
            if not torch.isfinite(loss):
                found = f"{loss.item()}, for the clips {', '.join(map(self._names, places.tolist()))}"
                break
        raise TrainingError(
            f"The loss of step {self.step + 1} is {found}. What was saved before stays usable. Try a lower "
            f"--learning-rate, --set clip_norm=1, or --set precision=32-true."
        )

    def _end_epoch(self, log: MetricsWriter | None) -> dict[str, float]:
        """Measure, write the row, and keep the weights if they are the best so far."""
        epoch = self.step / self.steps_per_epoch
        measured: Objective = self.objective if self._averaged is None else self._averaged.module  # type: ignore[assignment]
        self._copy_gates(measured)
        measured.finalize()
        if self.fabric.world_size > 1:  # each process's batch norms saw other clips; the first one's are saved
            copy_buffers_from_first(measured)
        found = measure(measured, self._validation, len(self.card.labels), self.fabric)
        metrics = {f"train/{name}": float(total / self.steps_per_epoch) for name, total in self._sums.items()}
        metrics |= {f"{VALIDATION}{name}": value for name, value in found.items()}
        if not math.isfinite(found["loss"]):
            raise TrainingError(
                f"After step {self.step} the loss of held-out clips is {found['loss']}. What was saved before stays "
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
            network = with_absorbed_gates(measured.network)
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
    """Higher is better: top-1 where there are labels, and among equals the lower loss."""
    return metrics.get(f"{VALIDATION}top1", 0.0), -metrics[f"{VALIDATION}loss"]
