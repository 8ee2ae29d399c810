"""The training and the validation set of a run, as views of its clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nonlocal_video.errors import UsageError
from nonlocal_video.models.card import InputSpec
from nonlocal_video.training.config import TrainConfig
from nonlocal_video.training.data import ClipDataset
from nonlocal_video.training.disk_cache import DiskCache
from nonlocal_video.training.images import ImageDataset
from nonlocal_video.training.mixed_data import MixedDataset
from nonlocal_video.training.run_data import RunData, split_unlabelled
from nonlocal_video.training.unlabelled import UnlabelledClips


def make_datasets(
    clips: RunData,
    labels: Sequence[str],
    spec: InputSpec,
    config: TrainConfig,
    *,
    validation: str,
    cache: DiskCache | None,
) -> tuple[MixedDataset, MixedDataset]:
    """Return the training set, with random views, and the validation set, with the views of `classify`.

    Args:
        clips: Clips and images of the run.
        labels: Classes of the network, in the order of its outputs.
        spec: Input that the views are made for.
        config: Settings of the run.
        validation: Name of the validation split.
        cache: Cache of decoded, resized frames.

    Raises:
        UsageError: There is no validation clip, or the split does not exist.
    """
    shared: dict[str, Any] = {"region": config.seen_region, "seed": config.seed, "cache": cache}
    train_parts: list[Any] = []
    val_parts: list[Any] = []
    if clips.labelled.usable:
        train_rows, validation_rows = clips.labelled.train_val_split(validation)
        train_parts.append(ClipDataset(train_rows, labels, spec, augmentation=config.augmentation, **shared))
        val_parts.append(ClipDataset(validation_rows, labels, spec, **shared))
    if clips.unlabelled.usable:
        train_rows, validation_rows = split_unlabelled(clips.unlabelled, divide=not val_parts)
        train_parts.append(UnlabelledClips(train_rows, spec, augmentation=config.augmentation, **shared))
        if validation_rows:
            val_parts.append(UnlabelledClips(validation_rows, spec, **shared))
    images = clips.usable_images
    if images:
        train_parts.append(ImageDataset(images, spec, augmentation=config.augmentation, seed=config.seed))
    if not val_parts:
        raise UsageError("There is no validation clip: give labelled or unlabelled clips besides images.")
    return MixedDataset(train_parts, views=config.teacher_views or None), MixedDataset(val_parts)
