"""The clips of a run: training set, validation set, and classes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace

from nonlocal_video.datasets.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.inference.object_storage import is_remote
from nonlocal_video.models.checkpoint import read_card
from nonlocal_video.training.config import TrainConfig
from nonlocal_video.training.images import ImageRow
from nonlocal_video.training.run_folder import RunFolder
from nonlocal_video.training.unlabelled import NO_LABEL
from nonlocal_video.zoo.catalogue import find


@dataclass(frozen=True, repr=False)
class RunData:
    """Training set and validation set of a run."""

    labelled: Manifest
    unlabelled: Manifest = field(default_factory=lambda: Manifest(()))
    stills: tuple[ImageRow, ...] = ()

    def write_unlabelled(self, folder: RunFolder) -> None:
        """What the run's manifest of labelled clips does not have.

        Raises:
            UsageError: The folder has such clips of another run.
            OutputError: It cannot be written.
        """
        for path, ours in ((folder.unlabelled, self.unlabelled.rows), (folder.stills, self.stills)):
            if path.exists() and not ours:
                raise UsageError(
                    f"{str(path)!r} is left from a run that was cut off as it began, and this one would learn from it. "
                    f"Delete it, or choose another folder."
                )
        if self.unlabelled.rows:
            write_manifest(folder.unlabelled, self.unlabelled)
        if self.stills:
            rows = [
                {**asdict(row), "path": row.path if is_remote(row.path) else os.path.abspath(row.path)}
                for row in self.stills
            ]
            try:
                folder.stills.write_text(json.dumps(rows), "utf-8")
            except OSError as error:
                raise OutputError(
                    f"{str(folder.stills)!r} cannot be written: {error.strerror}. Choose another place."
                ) from error

    @property
    def usable_images(self) -> list[ImageRow]:
        return [row for row in self.stills if row.problem is None]

    @classmethod
    def read(cls, folder: RunFolder) -> RunData:
        """What a run was begun with."""
        stills = json.loads(folder.stills.read_text("utf-8")) if folder.stills.is_file() else ()
        return cls(
            folder.read_manifest(),
            read_manifest(folder.unlabelled) if folder.unlabelled.is_file() else Manifest(()),
            tuple(ImageRow(**row) for row in stills),
        )


def check_clips_fit(config: TrainConfig, clips: RunData, *, validation: str) -> None:
    """Refuse clips that a run cannot be made of, before its folder is.

    Raises:
        UsageError: There are too few classes, they do not fit the settings, or a split is missing.
        ModelError: There is no such teacher.
    """
    distillation = config.distillation
    labels = classes_of(config, clips, () if distillation is None else read_card(find(distillation.teacher)).labels)
    config.augmentation.check_classes(labels)
    unknown = sorted(set(clips.labelled.labels) - set(labels))
    if unknown:
        raise UsageError(
            f"The teacher has no class {', '.join(map(repr, unknown))}, which clips have. With --set "
            f"distillation.second_head=true the model has the clips' own classes."
        )
    if clips.labelled.usable:
        clips.labelled.train_val_split(validation)


def classes_of(config: TrainConfig, clips: RunData, teacher: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of the run's model: those of its clips or of its teacher, in the order of the outputs.

    Raises:
        UsageError: There are less than two.
    """
    labels = clips.labelled.labels
    if config.distillation is not None and not config.distillation.second_head:
        labels = teacher if config.distillation.logits_weight or not labels else labels
    if len(labels) < 2:
        raise UsageError(
            f"Training needs clips of at least two classes; they are of {', '.join(labels) or 'none'}. Give a folder "
            f"with one folder of clips a class, or a CSV."
        )
    return labels


def split_unlabelled(manifest: Manifest, *, divide: bool) -> tuple[tuple[ManifestRow, ...], tuple[ManifestRow, ...]]:
    """Divide unlabelled clips: all for training; without another validation set, every tenth by its content for that.

    Clips that show the same pictures (`ManifestRow.content`) are on one side: what the first one's bytes decide.
    """
    rows = [replace(row, label=NO_LABEL) for row in manifest.usable]
    if not divide:
        return tuple(rows), ()
    number_of: dict[str, int] = {}
    for row in rows:
        number_of.setdefault(row.content or row.path, int(row.sha256 or "0", 16))
    measured = {name for name, number in number_of.items() if number % 10 == 0}
    measured = measured or {min(number_of, key=lambda name: number_of[name])}
    return (
        tuple(row for row in rows if (row.content or row.path) not in measured),
        tuple(row for row in rows if (row.content or row.path) in measured),
    )
