"""Figures that are measured: batches of any size give those of all clips."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
import torchmetrics.classification
from absent import needs
from engine_parts import fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nonlocal_video.training.config import TrainConfig
from nonlocal_video.training.distributed import make_fabric
from nonlocal_video.training.objective import Batch, Losses, Objective, cross_entropy
from nonlocal_video.training.validation import validate


class Answered(Objective):
    """The clips are the answers."""

    def forward(self, batch: Batch) -> Losses:
        return Losses(cross_entropy(batch.clips, batch.targets), {}, batch.clips)


def figures(logits: Tensor, classes: Tensor) -> dict[str, float]:
    """Validate clips in batches of 4."""
    clips = list(zip(logits, classes, torch.arange(len(classes)), strict=True))
    loader: DataLoader[tuple[Tensor, Tensor, Tensor]] = DataLoader(clips, batch_size=4)
    return validate(Answered(), loader, logits.shape[1], fabric())


def test_five_guesses_are_counted_where_there_are_more_classes() -> None:
    logits, classes = torch.randn(30, 7), torch.arange(30) % 7
    found = figures(logits, classes)
    order = logits.argsort(dim=1, descending=True)
    right = [(order[:, :k] == classes[:, None]).any(dim=1).float() for k in (1, 5)]
    assert found.keys() == {"loss", "top1", "top5", "mean_class"}
    assert (found["top1"], found["top5"]) == pytest.approx([one.mean().item() for one in right])
    assert found["mean_class"] == pytest.approx(torch.stack([right[0][classes == n].mean() for n in range(7)]).mean())
    assert found["loss"] == pytest.approx(nn.functional.cross_entropy(logits, classes).item())


@pytest.mark.parametrize("num_classes", [2, 5])
def test_guesses_that_cannot_be_wrong_are_not(num_classes: int) -> None:
    found = figures(torch.randn(8, num_classes), torch.arange(8) % num_classes)
    assert found.keys() == {"loss", "top1", "mean_class"}


def test_a_class_without_a_clip_has_no_part_in_the_mean_of_the_classes() -> None:
    answers = torch.eye(4)[[0, 0, 2, 1, 1]]  # class 2 is answered and class 3 is not; there is no clip of either
    assert figures(answers, torch.tensor([0, 0, 0, 1, 1]))["mean_class"] == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", ["nan", "inf"])
def test_one_loss_that_is_not_finite_is_not_left_out(odd: str) -> None:
    logits = torch.randn(8, 3)
    logits[5, 1] = float(odd)
    assert not math.isfinite(figures(logits, torch.arange(8) % 3)["loss"])


def test_figures_are_those_of_torchmetrics() -> None:
    logits, classes = torch.randn(50, 8), torch.arange(50) % 8
    found = figures(logits, classes)
    for name, metric in {
        "top1": torchmetrics.classification.MulticlassAccuracy(8, average="micro"),
        "top5": torchmetrics.classification.MulticlassAccuracy(8, average="micro", top_k=5),
        "mean_class": torchmetrics.classification.MulticlassAccuracy(8, average="macro"),
    }.items():
        assert found[name] == pytest.approx(float(metric(logits, classes))), name


LOGITS = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
CLASSES = torch.tensor([0, 1, 2, 3, 3, 5, 0])


def _share(rank: int, world_size: int, port: int, folder: str) -> None:
    """Validate the clips of one of two processes: 4 and 3 clips, and then 1 and none."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
    launched = make_fabric("cpu", TrainConfig())
    found = []
    for num_clips in (len(CLASSES), 1):
        clips = list(zip(LOGITS, CLASSES, torch.arange(7), strict=True))[:num_clips][rank::world_size]
        loader: DataLoader[tuple[Tensor, Tensor, Tensor]] = DataLoader(clips, batch_size=2, sampler=range(len(clips)))
        found.append(validate(Answered(), loader, 6, launched))
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.slow
@needs(torch.distributed.is_available(), "PyTorch was built without torch.distributed")
def test_two_processes_with_unequal_shares_give_the_figures_of_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_share, args=(rank, 2, port, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    all_of_them, one = figures(LOGITS, CLASSES), figures(LOGITS[:1], CLASSES[:1])
    assert 0 < all_of_them["top1"] < all_of_them["top5"] < 1
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found == [pytest.approx(all_of_them), pytest.approx(one)]
