"""The README of a run: a model card with nothing but recorded facts."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nonlocal_video.datasets.manifest import VALIDATION, Manifest, ManifestRow
from nonlocal_video.inference.prediction import printable
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.hub_front_matter import front_matter
from nonlocal_video.training.curves import is_accuracy
from nonlocal_video.training.metrics import EPOCH, STEP, MetricsRow
from nonlocal_video.training.provenance import flatten_settings
from nonlocal_video.training.run_folder import RunFolder
from nonlocal_video.video.region import Region

FEW_CLIPS = 100
"""Number of validation clips below which the card warns that percentages are coarse."""


@dataclass(frozen=True, kw_only=True)
class RunModelCard:
    """Contents of a run's README."""

    folder: str | os.PathLike[str]
    """Folder of the run, as the commands in the card name it."""
    card: ModelCard
    """Card of the trained network."""
    start: ModelCard | None
    """Card of the weights that training started from; None for random weights."""
    teachers: Sequence[ModelCard] = ()
    """Cards of the teachers."""
    manifest: Manifest
    """Labelled clips with their splits."""
    validation: str | None = VALIDATION
    """Name of the validation split; None for a run without one."""
    settings: Mapping[str, Any]
    """Settings of the run, as in its `config.json`."""
    rows: Sequence[MetricsRow]
    """Rows of its `metrics.csv`."""
    best_step: int | None
    """Step of the row that describes `best.safetensors`."""
    region: Region | None = None
    """Part of the frame that it was trained on; None is all of it."""
    chosen_by: str = "validation/top1"
    """Column by which the best weights were chosen."""
    notes: Sequence[str] = field(default_factory=tuple)
    """Sentences on this run, such as which tensors were loaded."""

    def text(self) -> str:
        """Return the README as Markdown, with front matter for the Hugging Face Hub."""
        parts = [
            self._front_matter() + f"\n# Model card: {self.card.name}",
            self._what(),
            "## How to use it",
            self._use(),
            "## Classes",
            self._classes(),
            "## Data",
            self._data(),
            "## Weights it started from",
            self._origin(),
            "## How good it is",
            self._results(),
            "## What it is not for",
            self._limits(),
            "## Settings",
            self._settings(),
            "## Licence",
            self._licence(),
        ]
        return "\n\n".join(parts) + "\n"

    def _front_matter(self) -> str:
        figures = {} if self._best is None else dict(self._best)
        metrics = {
            name.removeprefix("validation/"): value
            for name, value in figures.items()
            if name.startswith("validation/") and is_accuracy(name) and value is not None
        }
        measured_on = f"{len(self._train_val[1])} validation clips, one view each; the epoch was chosen on them"
        sources = [*([self.start] if self.start else []), *self.teachers]
        return front_matter(self.card, sources, metrics=metrics, measured_on=measured_on)

    @property
    def _train_val(self) -> tuple[tuple[ManifestRow, ...], tuple[ManifestRow, ...]]:
        """Return the training clips and the validation clips."""
        if self.validation is None:
            return tuple(row for row in self.manifest.usable if row.split is not None), ()
        return self.manifest.train_val_split(self.validation)

    @property
    def _best(self) -> MetricsRow | None:
        return next((row for row in self.rows if row[STEP] == self.best_step), None)

    def _what(self) -> str:
        best = self._best
        after = f" after epoch {best[EPOCH]:g} (step {best[STEP]:g})" if best else ""
        lines = [
            f"Classifies clips into {len(self.card.labels)} actions. Trained by `nonlocal-video train`; "
            f"`best.safetensors` holds the weights{after}, with labels and input inside.",
            "| | |\n| --- | --- |",
            f"| Network | {self.card.architecture} |",
            f"| Input | {_input(self.card.input)} |",
        ]
        if self.card.explain_layer:
            lines.append(f"| Non-local block shown by `explain` | `{self.card.explain_layer}` |")
        text = "\n\n".join(lines[:1]) + "\n\n" + "\n".join(lines[1:])
        notes = [*self.notes, *self.card.notes]
        return text + ("\n\n" + "\n".join(f"- {note}" for note in notes) if notes else "")

    def _use(self) -> str:
        run, manifest = (shlex.quote(printable(str(path))) for path in (self.folder, RunFolder(self.folder).manifest))
        asked = "" if self.region is None else f" --region {self.region}"
        commands = [
            f"nonlocal-video classify clip.mp4 --model {run}{asked}",
            f"nonlocal-video explain clip.mp4 --model {run}{asked}",
            f"nonlocal-video serve --model {run}",
        ]
        if self.validation is not None:
            commands.append(f"nonlocal-video evaluate {manifest} --split {self.validation} --model {run}{asked}")
        return "```sh\n" + "\n".join(commands) + f"\n```\n\nIn Python: `nonlocal_video.load({str(self.folder)!r})`."

    def _classes(self) -> str:
        train_rows, validation_rows = (Counter(row.label for row in side) for side in self._train_val)
        lines = ["| class | training clips | validation clips |", "| --- | ---: | ---: |"]
        lines += [f"| {_cell(label)} | {train_rows[label]} | {validation_rows[label]} |" for label in self.card.labels]
        return "\n".join(lines)

    def _data(self) -> str:
        train_rows, validation_rows = self._train_val
        lines = [f"- Trained on {_amount(train_rows)}."]
        if self.validation is not None:
            lines.append(f"- Validated on {_amount(validation_rows)}: split `{self.validation}`.")
            groups = {row.group for row in train_rows if row.group} & {
                row.group for row in validation_rows if row.group
            }
            if groups:
                lines.append(
                    f"- **{len(groups)} groups are in both sets** ({_cell(', '.join(sorted(groups)[:5]))}): the "
                    f"figures below say little about other groups."
                )
            elif not any(row.group for row in (*train_rows, *validation_rows)):
                lines.append(
                    "- The clips have no groups. If several show the same person or come from the same video, the "
                    "figures below are too high."
                )
            contents = {row.content for row in train_rows if row.content}
            copies = [row for row in validation_rows if row.content in contents]
            if copies:
                lines.append(
                    f"- **{len(copies)} of the validation clips show the same frames as training clips** "
                    f"({_cell(', '.join(row.path for row in copies[:5]))}): the figures below are too high."
                )
        unusable = len(self.manifest.rows) - len(self.manifest.usable)
        if unusable:
            lines.append(f"- {unusable} of {len(self.manifest.rows)} clips could not be used; `manifest.csv` says why.")
        lines.append("- Every clip, its split and its SHA-256 are in `manifest.csv`.")
        return "\n".join(lines)

    def _origin(self) -> str:
        if self.start is None:
            lines = ["- Random initialization: trained from scratch on the clips above."]
        else:
            lines = [f"- Started from {_source_of(self.start)}."]
        lines += [f"- Distilled from {_source_of(teacher)}." for teacher in self.teachers]
        return "\n".join(lines)

    def _results(self) -> str:
        best, (_, validation_rows) = self._best, self._train_val
        if best is None or self.validation is None:
            return "Not measured."
        figures = {name: value for name, value in best.items() if name.startswith("validation/") and value is not None}
        lines = [
            f"After epoch {best[EPOCH]:g}, one view of each of {len(validation_rows)} validation clips:",
            "| | |\n| --- | ---: |",
            *(f"| {name.removeprefix('validation/')} | {_figure(name, value)} |" for name, value in figures.items()),
        ]
        text = f"{lines[0]}\n\n" + "\n".join(lines[1:])
        remarks = [
            f"The epoch was chosen by `{self.chosen_by}` on the same clips, so the figures are optimistic; use "
            f"separate test clips for an unbiased estimate. `evaluate` gives intervals and the confusion matrix."
        ]
        if len(validation_rows) < FEW_CLIPS:
            remarks.append(
                f"With {len(validation_rows)} clips, one clip is {100 / len(validation_rows):.1f} percentage points."
            )
        return f"{text}\n\n{' '.join(remarks)} All epochs: `metrics.csv`, `curves.png`."

    def _limits(self) -> str:
        train_rows, _ = self._train_val
        few = sorted(label for label, count in Counter(row.label for row in train_rows).items() if count < 10)
        part = "the frame" if self.region is None else f"the region {self.region} of the frame"
        lines = [
            f"- It always predicts one of its {len(self.card.labels)} classes, even for clips that show none of them.",
            f"- It sees {self.card.input.span_seconds:.2f} s in one square crop of {part}, and nothing before, after "
            "or outside it.",
            "- It was trained on the people, rooms and cameras of its clips. It has not been evaluated elsewhere.",
            "- Do not use it to judge or identify people, or where a wrong answer causes harm.",
        ]
        if few:
            lines.insert(2, f"- Classes with fewer than 10 training clips: {_cell(', '.join(few))}.")
        return "\n".join(lines)

    def _settings(self) -> str:
        lines = ["| setting | value |", "| --- | --- |"]
        lines += [
            f"| {_cell(name)} | {_cell(_plain(value))} |" for name, value in flatten_settings(self.settings).items()
        ]
        return "\n".join(lines) + "\n\nCommands and versions are in `config.json`."

    def _licence(self) -> str:
        sources = [*([self.start] if self.start else []), *self.teachers]
        if not sources:
            return "The weights were trained on the clips above alone: the terms of their owners apply."
        lines = [f"- {source.name}: {source.licence or 'its card names no licence'}." for source in sources]
        text = "These licences apply to the trained weights, in addition to the terms of the owners of the clips."
        return "\n".join(lines) + f"\n\n{text}"


def _input(spec: InputSpec) -> str:
    return (
        f"{spec.num_frames} frames at {spec.frames_per_second:g} per second ({spec.span_seconds:.2f} s), short side "
        f"{spec.short_side} pixels, centre square of {spec.crop}"
    )


def _amount(rows: Sequence[ManifestRow]) -> str:
    seconds = sum(row.duration_seconds or 0.0 for row in rows)
    groups = len({row.group for row in rows if row.group})
    groups_text = f" of {groups} groups" if groups else ""
    return f"{len(rows)} clips{groups_text} ({seconds:.0f} s)"


def _source_of(card: ModelCard) -> str:
    source = f", {card.source}" if card.source else ""
    return f"`{card.name}` ({card.licence or 'no licence named'}{source})"


def _figure(name: str, value: float) -> str:
    return f"{100 * value:.1f}%" if is_accuracy(name) else f"{value:.4g}"


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _cell(text: str) -> str:
    """Escape text for a Markdown table cell."""
    return printable(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
