"""A tiny network, clips in memory, and a run without the command line around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from nonlocal_video.blocks.config import NonLocalConfig
from nonlocal_video.datasets.manifest import Manifest
from nonlocal_video.errors import VideoError
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.checkpoint import build_network
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.training.config import TrainConfig, resolved
from nonlocal_video.training.engine import Training, TrainResult
from nonlocal_video.training.freezing import freeze, last_frozen_layer
from nonlocal_video.training.loading import BatchLoader, EveryClip, TrainingData, as_input, loaded
from nonlocal_video.training.metrics import MetricsWriter
from nonlocal_video.training.objective import CrossEntropy
from nonlocal_video.training.run_folder import RunFolder

VIEW = InputSpec(4, 5.0, short_side=40, crop=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
LABELS = ("jump", "wave")


def tiny_card(*, blocks: bool = False, dropout: float = 0.0) -> ModelCard:
    """Card of a network of nine layers, at most 64 channels wide; with blocks after stages 3 and 4."""
    nonlocal_blocks = {index: asdict(NonLocalConfig(inter_channels=4)) for index in ("layer3.0", "layer4.0")}
    return ModelCard(
        name="tiny",
        architecture="resnet3d",
        config={
            "num_classes": len(LABELS),
            "width": 8,
            "blocks_per_stage": [1, 1, 1, 1],
            "dropout": dropout,
            "nonlocal_blocks": nonlocal_blocks if blocks else {},
        },
        input=VIEW,
        labels=LABELS,
    )


def tiny_network(card: ModelCard, *, seed: int = 1) -> Video3DResNet:
    """Return a network with random batch norm statistics, gains and biases, whose blocks are the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(card)
        assert isinstance(network, Video3DResNet)
        for name, tensor in network.state_dict().items():
            if "nonlocal" in name:
                continue
            if name.endswith(("running_mean", "bn.bias", "fc.weight")):
                tensor.normal_(std=0.1)
            elif name.endswith(("running_var", "bn.weight")):
                tensor.uniform_(0.5, 1.5)
    return network


def wake_blocks(network: Video3DResNet) -> Video3DResNet:
    """Blocks that change something, as after training."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(2)
        for block in network.nonlocal_layers().values():
            block.bn.weight.normal_()
            block.bn.bias.normal_()
    return network


class MemoryClips:
    """Random clips that can be told apart by class, with a random view in every epoch."""

    def __init__(self, count: int, *, broken: int | None = None, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.classes = torch.arange(count) % len(LABELS)
        self.clips = torch.randn(count, 3, 4, 32, 32, generator=draw) + self.classes[:, None, None, None, None] * 0.5
        self.broken, self.closed = broken, False
        self.asked: list[tuple[int, int]] = []

    def close(self) -> None:
        self.closed = True

    def __len__(self) -> int:
        return len(self.clips)

    def view(self, index: int, epoch: int) -> tuple[Tensor, int]:
        if index == self.broken:
            raise VideoError("corrupt", f"clip {index} is broken.")
        self.asked.append((epoch, index))
        return self.clips[index].roll(epoch, dims=-1), int(self.classes[index])


class SameClips(MemoryClips):
    """The same view in every epoch."""

    def view(self, index: int, epoch: int) -> tuple[Tensor, int]:
        return super().view(index, 0)


def every_view(data: TrainingData, epoch: int = 0, workers: int = 0) -> list[tuple[Tensor, int]]:
    """All clips of an epoch as the network takes them, in order, by however many loading processes."""
    loader = BatchLoader(data, EveryClip(len(data), 1, epoch=epoch), workers=workers, pin_memory=False)
    cpu = torch.device("cpu")
    try:
        return [(as_input(clips, loader, cpu)[0], int(classes)) for clips, classes, _ in map(loaded, loader)]
    finally:
        loader.close()


def fabric(precision: Any = "32-true") -> Fabric:
    made = Fabric(accelerator="cpu", devices=1, precision=precision)
    made.launch()
    return made


def training(
    path: Path,
    network: Video3DResNet,
    card: ModelCard,
    config: TrainConfig,
    *,
    train: TrainingData | None = None,
    validation: TrainingData | None = None,
    sees_features: bool = False,
) -> Training:
    """Return a training in a new folder, or in one that holds a run of this process."""
    config = resolved(config, has_weights=True)
    frozen = last_frozen_layer(network, config.stage)
    freeze(network, frozen)
    folder = RunFolder(path)
    if not folder.config.exists():
        folder.create({}, Manifest(()), command=("train",))
    return Training(
        CrossEntropy(network, config.label_smoothing, frozen=frozen if sees_features else None),
        card,
        config,
        train=SameClips(8) if train is None else train,
        validation=SameClips(4, seed=1) if validation is None else validation,
        clip_name=lambda index: f"clip {index}",
        frozen=frozen,
        fabric=fabric(config.precision),
        folder=folder,
        batch_size=config.batch_size or 4,
    )


def run(of: Training, *, resume_step: int | None = None, **calls: Any) -> TrainResult:
    """Return the result with its log."""
    log = MetricsWriter(of.folder.metrics, of.folder.tensorboard, resume_step=resume_step)
    with torch.random.fork_rng(devices=[]), log:
        return of.run(log, **calls)


def stop_after(steps: int) -> Callable[[], bool]:
    """Return a `should_stop` that is true from a given call on."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked >= steps

    return should_stop
