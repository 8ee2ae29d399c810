"""The README of a run: a model card made of what is known, and of nothing else."""

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
from nonlocal_video.training.curves import is_accuracy
from nonlocal_video.training.metrics import EPOCH, STEP, MetricsRow
from nonlocal_video.training.provenance import flatten_settings
from nonlocal_video.training.run_folder import RunFolder

FEW_CLIPS = 100
"""With fewer validation clips than this, the card says how little a percentage means."""


@dataclass(frozen=True, kw_only=True)
class RunModelCard:
    """What a run's README is made of."""

    folder: str | os.PathLike[str]
    """As commands should name it."""
    card: ModelCard
    """Card of the trained network."""
    start: ModelCard | None
    """Card of the weights that training started from; None for random ones."""
    teachers: Sequence[ModelCard] = ()
    """Cards of networks whose answers were learnt."""
    manifest: Manifest
    validation: str | None = VALIDATION
    """Split that was the validation set; None if there was none."""
    settings: Mapping[str, Any]
    """Settings of the run, as in its `config.json`."""
    rows: Sequence[MetricsRow]
    """Rows of its `metrics.csv`."""
    best_step: int | None
    """Step of the row that describes `best.safetensors`."""
    chosen_by: str = "validation/top1"
    """The column by which the best weights were chosen."""
    notes: Sequence[str] = field(default_factory=tuple)
    """Sentences on this run: which tensors were loaded, that it was stopped early."""

    def text(self) -> str:
        """The README, Markdown."""
        parts = [
            f"# Model card: {self.card.name}",
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
            self._measured(),
            "## What it is not for",
            self._limits(),
            "## Settings",
            self._settings(),
            "## Licence",
            self._licence(),
        ]
        return "\n\n".join(parts) + "\n"

    @property
    def _sides(self) -> tuple[tuple[ManifestRow, ...], tuple[ManifestRow, ...]]:
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
            f"Names one of {len(self.card.labels)} actions for a clip. Made by `nonlocal-video train`; "
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
        commands = [
            f"nonlocal-video classify clip.mp4 --model {run}",
            f"nonlocal-video explain clip.mp4 --model {run}",
            f"nonlocal-video serve --model {run}",
        ]
        if self.validation is not None:
            commands.append(f"nonlocal-video evaluate {manifest} --split {self.validation} --model {run}")
        return "```sh\n" + "\n".join(commands) + f"\n```\n\nIn Python: `nonlocal_video.load({str(self.folder)!r})`."

    def _classes(self) -> str:
        trained, measured = (Counter(row.label for row in side) for side in self._sides)
        lines = ["| class | training clips | validation clips |", "| --- | ---: | ---: |"]
        lines += [f"| {_cell(label)} | {trained[label]} | {measured[label]} |" for label in self.card.labels]
        return "\n".join(lines)

    def _data(self) -> str:
        trained, measured = self._sides
        lines = [f"- Trained on {_amount(trained)}."]
        if self.validation is not None:
            lines.append(f"- Measured on {_amount(measured)}: split `{self.validation}`.")
            groups = {row.group for row in trained if row.group} & {row.group for row in measured if row.group}
            if groups:
                lines.append(
                    f"- **{len(groups)} groups are on both sides** ({_cell(', '.join(sorted(groups)[:5]))}): the "
                    f"figures below say little about other groups."
                )
            elif not any(row.group for row in (*trained, *measured)):
                lines.append(
                    "- The clips have no groups. If several show one person or are cut from one video, the figures "
                    "below are too high."
                )
            contents = {row.content for row in trained if row.content}
            copies = [row for row in measured if row.content in contents]
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
            lines = ["- Random initialization: everything was learned from the clips above."]
        else:
            lines = [f"- Started from {_source_of(self.start)}."]
        lines += [f"- Learnt from the answers of {_source_of(teacher)}." for teacher in self.teachers]
        return "\n".join(lines)

    def _measured(self) -> str:
        best, (_, measured) = self._best, self._sides
        if best is None or self.validation is None:
            return "Not measured."
        figures = {name: value for name, value in best.items() if name.startswith("validation/") and value is not None}
        lines = [
            f"After epoch {best[EPOCH]:g}, one view of each of {len(measured)} clips:",
            "| | |\n| --- | ---: |",
            *(f"| {name.removeprefix('validation/')} | {_figure(name, value)} |" for name, value in figures.items()),
        ]
        text = f"{lines[0]}\n\n" + "\n".join(lines[1:])
        remarks = [
            f"The epoch was chosen by `{self.chosen_by}` on the same clips, so the figures flatter; clips that had no "
            f"part in any choice tell more. `evaluate` gives intervals and the confusion matrix."
        ]
        if len(measured) < FEW_CLIPS:
            remarks.append(f"With {len(measured)} clips, one clip is {100 / len(measured):.1f} percentage points.")
        return f"{text}\n\n{' '.join(remarks)} All epochs: `metrics.csv`, `curves.png`."

    def _limits(self) -> str:
        trained, _ = self._sides
        few = sorted(label for label, count in Counter(row.label for row in trained).items() if count < 10)
        lines = [
            f"- It gives one of its {len(self.card.labels)} classes for anything, also for what shows none of them.",
            f"- It sees {self.card.input.span_seconds:.2f} s in one square of the picture; what happens before, after "
            "or beside that, it does not know.",
            "- It knows people, rooms and cameras like those of its clips. Elsewhere it has not been measured.",
            "- Do not use it to judge or to identify people, or where a wrong answer does harm.",
        ]
        if few:
            lines.insert(2, f"- Fewer than 10 clips were there to learn from for: {_cell(', '.join(few))}.")
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
            return "The weights come from the clips above alone: what their owners allow holds."
        lines = [f"- {source.name}: {source.licence or 'its card names no licence'}." for source in sources]
        text = "These hold for what was made of them, besides what the owners of the clips above allow."
        return "\n".join(lines) + f"\n\n{text}"


def _input(spec: InputSpec) -> str:
    return (
        f"{spec.num_frames} frames at {spec.frames_per_second:g} per second ({spec.span_seconds:.2f} s), short side "
        f"{spec.short_side} pixels, centre square of {spec.crop}"
    )


def _amount(rows: Sequence[ManifestRow]) -> str:
    seconds = sum(row.duration_seconds or 0.0 for row in rows)
    groups = len({row.group for row in rows if row.group})
    of_groups = f" of {groups} groups" if groups else ""
    return f"{len(rows)} clips{of_groups} ({seconds:.0f} s)"


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
    """Text that breaks no table, and no line."""
    return printable(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
