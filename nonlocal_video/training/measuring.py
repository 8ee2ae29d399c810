"""What the network answers for the clips that were held out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from nonlocal_video.training.loading import loaded
from nonlocal_video.training.objective import Batch, Objective, one_hot

TOP_K = 5


def measure(
    objective: Objective,
    loader: DataLoader[tuple[Tensor, Tensor, Tensor]],
    num_classes: int,
    fabric: Fabric,
    *,
    on_clip: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """Mean losses over all clips, and over labelled ones `top1`, `mean_class`, and `top5` where there are more classes.

    Args:
        objective: Not wrapped for DDP, since processes have unequal shares. In eval mode afterwards.
        loader: This process's share of the clips; torchmetrics puts the processes together.
        num_classes: Of the network.
        fabric: Says where and in which precision.
        on_clip: Called with the clips done in this process.

    Raises:
        VideoError: A clip cannot be read.
    """
    objective.eval()
    losses: dict[str, Metric] = {}
    accuracies: dict[str, Metric] = {"top1": MulticlassAccuracy(num_classes, average="micro")}
    if num_classes > TOP_K:  # else it is 100% whatever the network answers
        accuracies[f"top{TOP_K}"] = MulticlassAccuracy(num_classes, top_k=TOP_K, average="micro")
    accuracies["mean_class"] = MulticlassAccuracy(num_classes, average="macro")
    for metric in accuracies.values():
        metric.to(fabric.device)
    done = labelled = 0
    for batch in loader:
        clips, classes, places = (part.to(fabric.device) for part in loaded(batch))
        with torch.no_grad(), fabric.autocast():
            found = objective(Batch(clips, one_hot(classes, num_classes), places, 0))
        for name, value in {"loss": found.total, **found.terms}.items():
            metric = losses.setdefault(name, MeanMetric().to(fabric.device))
            metric.update(value.float(), weight=len(clips))
        known = classes >= 0
        if known.any():
            for metric in accuracies.values():
                metric.update(found.logits[known].float(), classes[known])
            labelled += int(known.sum())
        done += len(clips)
        on_clip(done)
    labelled = int(fabric.all_reduce(torch.tensor(float(labelled), device=fabric.device), reduce_op="sum"))
    metrics = losses | (accuracies if labelled else {})
    return {name: float(metric.compute()) for name, metric in metrics.items()}
