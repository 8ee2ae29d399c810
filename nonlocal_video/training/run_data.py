"""The clips of a run: training set, validation set, and classes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace

from nonlocal_video.datasets.frame_size import size_problem
from nonlocal_video.datasets.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.inference.object_storage import is_remote
from nonlocal_video.io import atomic_write
from nonlocal_video.models.card import InputSpec
from nonlocal_video.models.checkpoint import read_card
from nonlocal_video.training.config import TrainConfig
from nonlocal_video.training.data import info_of
from nonlocal_video.training.images import ImageRow
from nonlocal_video.training.run_folder import RunFolder
from nonlocal_video.training.unlabelled import NO_LABEL
from nonlocal_video.video.region import Region
from nonlocal_video.zoo.catalogue import find


@dataclass(frozen=True, repr=False)
class RunData:
    """Clips and images of a run, for training and validation."""

    labelled: Manifest
    """Labelled clips with their splits."""
    unlabelled: Manifest = field(default_factory=lambda: Manifest(()))
    """Unlabelled clips."""
    images: tuple[ImageRow, ...] = ()
    """Unlabelled images."""

    def write_unlabelled(self, folder: RunFolder) -> None:
        """Write the unlabelled clips and the images to the folder of the run.

        Raises:
            UsageError: The folder has such files of another run.
            OutputError: The files cannot be written.
        """
        for path, rows_of_run in ((folder.unlabelled, self.unlabelled.rows), (folder.images, self.images)):
            if path.exists() and not rows_of_run:
                raise UsageError(
                    f"{str(path)!r} was left by a run that was interrupted at its start, and would be used for "
                    f"training. Delete it, or choose another folder."
                )
        if self.unlabelled.rows:
            write_manifest(folder.unlabelled, self.unlabelled)
        if self.images:
            rows = [
                {**asdict(row), "path": row.path if is_remote(row.path) else os.path.abspath(row.path)}
                for row in self.images
            ]
            try:
                with atomic_write(folder.images) as file:
                    file.write(json.dumps(rows).encode())
            except OSError as error:
                raise OutputError(
                    f"{str(folder.images)!r} cannot be written: {error.strerror}. Choose another folder."
                ) from error

    @property
    def usable_images(self) -> list[ImageRow]:
        """Images that could be read."""
        return [row for row in self.images if row.problem is None]

    @classmethod
    def read(cls, folder: RunFolder) -> RunData:
        """Read the clips and images of a run from its folder."""
        images = json.loads(folder.images.read_text("utf-8")) if folder.images.is_file() else ()
        return cls(
            folder.read_manifest(),
            read_manifest(folder.unlabelled) if folder.unlabelled.is_file() else Manifest(()),
            tuple(ImageRow(**row) for row in images),
        )


def without_misfits(manifest: Manifest, spec: InputSpec, region: Region | None) -> Manifest:
    """Give a problem to the usable clips whose frames the model cannot see: `check` may not have known the region.

    Args:
        manifest: Checked clips.
        spec: Input of the model.
        region: Part of the frames that is seen; None is all of them.
    """
    rows = []
    for row in manifest.rows:
        problem = size_problem(info_of(row), spec, region) if row.usable else None
        rows.append(row if problem is None else replace(row, problem=problem, split=None))
    return replace(manifest, rows=tuple(rows))


def check_clips_fit(config: TrainConfig, clips: RunData, *, validation: str) -> None:
    """Check that a run can be made of these clips, before its folder is created.

    Raises:
        UsageError: There are too few classes, they do not fit the settings, or a split is missing.
        ModelError: The teacher does not exist.
    """
    distillation = config.distillation
    labels = classes_of(config, clips, () if distillation is None else read_card(find(distillation.teacher)).labels)
    config.augmentation.check_classes(labels)
    unknown = sorted(set(clips.labelled.labels) - set(labels))
    if unknown:
        raise UsageError(
            f"Clips have the class {', '.join(map(repr, unknown))}, which the teacher does not have. With --set "
            f"distillation.second_head=true the model has the classes of the clips."
        )
    if clips.labelled.usable:
        clips.labelled.train_val_split(validation)


def classes_of(config: TrainConfig, clips: RunData, teacher: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes of the run's model, those of its clips or of its teacher, in the order of the outputs.

    Raises:
        UsageError: There are fewer than two.
    """
    labels = clips.labelled.labels
    if config.distillation is not None and not config.distillation.second_head:
        labels = teacher if config.distillation.logits_weight or not labels else labels
    if len(labels) < 2:
        raise UsageError(
            f"Training needs clips of at least two classes; these have {', '.join(labels) or 'none'}. Give a folder "
            f"with one subfolder of clips per class, or a CSV."
        )
    return labels


def split_unlabelled(manifest: Manifest, *, divide: bool) -> tuple[tuple[ManifestRow, ...], tuple[ManifestRow, ...]]:
    """Split unlabelled clips into training and validation clips.

    With `divide`, for runs without labelled clips, about a tenth is for validation; otherwise all are for training.
    Clips with the same frames (`ManifestRow.content`) stay together; the SHA-256 of the first decides.
    """
    rows = [replace(row, label=NO_LABEL) for row in manifest.usable]
    if not divide:
        return tuple(rows), ()
    number_of: dict[str, int] = {}
    for row in rows:
        number_of.setdefault(row.content or row.path, int(row.sha256 or "0", 16))
    held_out = {name for name, number in number_of.items() if number % 10 == 0}
    held_out = held_out or {min(number_of, key=lambda name: number_of[name])}
    return (
        tuple(row for row in rows if (row.content or row.path) not in held_out),
        tuple(row for row in rows if (row.content or row.path) in held_out),
    )
