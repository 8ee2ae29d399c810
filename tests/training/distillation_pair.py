"""A tiny teacher and a tiny student, and views for them."""

from __future__ import annotations

import torch

from nonlocal_video.models.card import InputSpec
from nonlocal_video.models.resnet3d import ResNet3DConfig, Video3DResNet
from nonlocal_video.training.distillation.teacher import Teacher
from nonlocal_video.training.objective import Batch

LABELS = ("clap", "jump", "wave")
TEACHER_VIEW = InputSpec(8, 8.0, short_side=36, crop=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
STUDENT_VIEW = InputSpec(4, 4.0, short_side=26, crop=24, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))


def tiny_network(seed: int, *, width: int, num_classes: int = 3, dropout: float = 0.0) -> Video3DResNet:
    """Seven layers; the last features have 8 * width channels. Neither parameters nor means are plain 0 or 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = ResNet3DConfig(num_classes, blocks_per_stage=(1, 1, 1, 1), width=width, dropout=dropout)
        network = Video3DResNet.from_config(config)
        for parameter in network.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
        network.fc.weight.data.mul_(5)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
    return network


def tiny_teacher(seed: int = 1, *, labels: tuple[str, ...] = LABELS) -> Teacher:
    return Teacher(tiny_network(seed, width=3, num_classes=len(labels)), TEACHER_VIEW, labels, digest=f"tiny {seed}")


def batch_of(count: int, *, labelled: int | None = None, epoch: int = 0, classes: int = 3) -> Batch:
    """Random clips in the teacher's view; the first `labelled` of them have classes 0, 1, 2, 0, ..."""
    clips = torch.randn(count, 3, 8, 32, 32, generator=torch.Generator().manual_seed(epoch))
    targets = torch.eye(classes)[torch.arange(count) % classes]
    targets[count if labelled is None else labelled :] = 0
    return Batch(clips, targets, torch.arange(count), epoch)
