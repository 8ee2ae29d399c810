"""Losses and accuracies on the validation set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nonlocal_video.training.loading import as_input, loaded
from nonlocal_video.training.objective import Batch, Objective, one_hot

if TYPE_CHECKING:
    from lightning.fabric import Fabric

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
        loader: This process's share of the clips; sums and counts of all processes are added up at the end.
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
    losses: dict[str, Tensor] = {}  # sums over clips
    counts = _Counts(num_classes, fabric.device)
    done = 0
    for batch in loader:
        pixels, classes, indices = loaded(batch)
        clips, is_labelled = as_input(pixels, loader, fabric.device), classes >= 0
        num_labelled, classes = int(is_labelled.sum()), classes.to(fabric.device, non_blocking=True)
        with torch.no_grad(), fabric.autocast():
            losses_of_batch = objective(Batch(clips, one_hot(classes, num_classes), indices, 0))
        for name, value in {"loss": losses_of_batch.total, **losses_of_batch.terms}.items():
            losses[name] = losses.get(name, 0) + value.double() * len(clips)  # it is the batch's mean
        if num_labelled:
            mask = is_labelled.to(fabric.device)
            counts.add(losses_of_batch.logits[mask].float(), classes[mask])
        done += len(clips)
        on_clip(done)
    # With more processes than clips some have no loss; the first one always has.
    names = fabric.broadcast(list(losses))
    none = torch.zeros((), dtype=torch.float64, device=fabric.device)
    sums = torch.stack(
        [torch.tensor(float(done), dtype=torch.float64, device=fabric.device)]
        + [losses.get(name, none) for name in names]
    )
    all_done, *totals = _added_up(sums, fabric).tolist()
    return {name: total / all_done for name, total in zip(names, totals, strict=True)} | counts.accuracies(fabric)


class _Counts:
    """Labelled clips of each class, and how many of them were answered right; on the device, without waiting for it."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._top_k = TOP_K if num_classes > TOP_K else None  # otherwise it is always 100%
        # Rows: clips, right at the first guess, right in the top k.
        self._counts = torch.zeros(3, num_classes, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, classes: Tensor) -> None:
        """Count a batch: logits (N, classes) and classes (N,)."""
        guesses = logits.topk(self._top_k or 1, dim=1).indices  # (N, k), best first
        right = guesses == classes[:, None]
        rows = torch.stack([torch.ones_like(classes, dtype=torch.bool), right[:, 0], right.any(dim=1)])
        self._counts.index_add_(1, classes, rows.double())

    def accuracies(self, fabric: Fabric) -> dict[str, float]:
        """Return the accuracies over the clips of all processes; none if no clip is labelled."""
        clips, right, in_top_k = _added_up(self._counts, fabric).cpu()
        if not clips.any():
            return {}
        found = {"top1": float(right.sum() / clips.sum())}
        if self._top_k is not None:
            found[f"top{self._top_k}"] = float(in_top_k.sum() / clips.sum())
        return found | {"mean_class": float((right[clips > 0] / clips[clips > 0]).mean())}


def _added_up(values: Tensor, fabric: Fabric) -> Tensor:
    """Return the sum of a tensor over all processes."""
    summed = fabric.all_reduce(values, reduce_op="sum")
    assert isinstance(summed, Tensor)
    return summed
