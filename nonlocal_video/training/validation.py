"""Losses and accuracies on the validation set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassStatScores

from nonlocal_video.training.loading import as_input, loaded
from nonlocal_video.training.objective import Batch, Objective, one_hot

TOP_K = 5


def validate(
    objective: Objective,
    loader: DataLoader[tuple[Tensor, Tensor, Tensor]],
    num_classes: int,
    fabric: Fabric,
    *,
    on_clip: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """Return the mean losses over all clips, and accuracies over the labelled ones.

    The accuracies, from 0 to 1, are `top1`, `mean_class` and, with more than five classes, `top5`.

    Args:
        objective: Objective, not wrapped for DDP, as processes have unequal shares. It is in eval mode afterwards.
        loader: This process's share of the clips; torchmetrics combines the processes.
        num_classes: Number of classes of the network.
        fabric: Provides device and precision.
        on_clip: Called with the number of clips done in this process.

    Returns:
        Metrics by name. If the loss of any clip is not finite, neither is the mean. `mean_class` is over classes with
        clips.

    Raises:
        VideoError: A clip cannot be read.
    """
    objective.eval()
    losses: dict[str, Metric] = {}
    accuracies: dict[str, Metric] = {"top1": MulticlassAccuracy(num_classes, average="micro")}
    if num_classes > TOP_K:  # otherwise it is always 100%
        accuracies[f"top{TOP_K}"] = MulticlassAccuracy(num_classes, top_k=TOP_K, average="micro")
    accuracies["mean_class"] = _MeanClassAccuracy(num_classes, average=None)
    for metric in accuracies.values():
        metric.to(fabric.device)
    done = labelled = 0
    for batch in loader:
        pixels, classes, indices = loaded(batch)
        clips, is_labelled = as_input(pixels, loader, fabric.device), classes >= 0
        num_labelled, classes = int(is_labelled.sum()), classes.to(fabric.device, non_blocking=True)
        with torch.no_grad(), fabric.autocast():
            losses_of_batch = objective(Batch(clips, one_hot(classes, num_classes), indices, 0))
        for name, value in {"loss": losses_of_batch.total, **losses_of_batch.terms}.items():
            # By default it skips NaN, which would hide a diverged loss.
            metric = losses.setdefault(name, MeanMetric(nan_strategy="disable").to(fabric.device))
            metric.update(value.float().expand(len(clips)))  # weights the batch's mean by its clips
        if num_labelled:
            labelled += num_labelled
            mask = is_labelled.to(fabric.device)
            logits, labels = losses_of_batch.logits[mask].float(), classes[mask]
            for metric in accuracies.values():
                metric.update(logits, labels)
        done += len(clips)
        on_clip(done)
    labelled = int(fabric.all_reduce(torch.tensor(float(labelled), device=fabric.device), reduce_op="sum"))
    metrics = losses | (accuracies if labelled else {})
    return {name: float(metric.compute()) for name, metric in metrics.items()}


class _MeanClassAccuracy(MulticlassStatScores):
    """Mean class accuracy over the classes with clips; torchmetrics counts other predicted classes as 0."""

    def compute(self) -> Tensor:
        right, *_, clips = super().compute().unbind(dim=-1)  # (classes, 5) -> (classes,), the first and the last
        return (right[clips > 0] / clips[clips > 0]).mean()
