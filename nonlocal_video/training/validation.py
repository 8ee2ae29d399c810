"""What the network answers for the clips that were held out."""

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

    Returns:
        A loss that is not finite for any clip is not finite here. Classes without a clip have no part in `mean_class`.

    Raises:
        VideoError: A clip cannot be read.
    """
    objective.eval()
    losses: dict[str, Metric] = {}
    accuracies: dict[str, Metric] = {"top1": MulticlassAccuracy(num_classes, average="micro")}
    if num_classes > TOP_K:  # else it is 100% whatever the network answers
        accuracies[f"top{TOP_K}"] = MulticlassAccuracy(num_classes, top_k=TOP_K, average="micro")
    accuracies["mean_class"] = _MeanClassAccuracy(num_classes, average=None)
    for metric in accuracies.values():
        metric.to(fabric.device)
    done = labelled = 0
    for batch in loader:
        pixels, classes, places = loaded(batch)
        clips, known = as_input(pixels, loader, fabric.device), classes >= 0
        num_known, classes = int(known.sum()), classes.to(fabric.device, non_blocking=True)
        with torch.no_grad(), fabric.autocast():
            found = objective(Batch(clips, one_hot(classes, num_classes), places, 0))
        for name, value in {"loss": found.total, **found.terms}.items():
            # Unless told so, it leaves out what is not a number, and the mean of the others looks well.
            metric = losses.setdefault(name, MeanMetric(nan_strategy="disable").to(fabric.device))
            metric.update(value.float().expand(len(clips)))  # a batch's mean counts for each of its clips
        if num_known:
            labelled += num_known
            mask = known.to(fabric.device)
            logits, of_clips = found.logits[mask].float(), classes[mask]
            for metric in accuracies.values():
                metric.update(logits, of_clips)
        done += len(clips)
        on_clip(done)
    labelled = int(fabric.all_reduce(torch.tensor(float(labelled), device=fabric.device), reduce_op="sum"))
    metrics = losses | (accuracies if labelled else {})
    return {name: float(metric.compute()) for name, metric in metrics.items()}


class _MeanClassAccuracy(MulticlassStatScores):
    """Over the classes that have clips. torchmetrics' own mean counts others as 0 once a clip is taken for them."""

    def compute(self) -> Tensor:
        right, *_, clips = super().compute().unbind(dim=-1)  # (classes, 5) -> (classes,), the first and the last
        return (right[clips > 0] / clips[clips > 0]).mean()
