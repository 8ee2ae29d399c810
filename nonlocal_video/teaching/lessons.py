"""Lessons: what the network sees of the examples, the head that they teach, and the weights that hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nonlocal_video.datasets.duplicates import connected, link_equal
from nonlocal_video.errors import ErrorCode, OutputError, UsageError, VideoError
from nonlocal_video.features.extract import FeatureProgress, extract_features
from nonlocal_video.features.store import FeatureFile
from nonlocal_video.features.table import read_features
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.checkpoint import save_checkpoint
from nonlocal_video.models.taught import to_length_1
from nonlocal_video.teaching.examples import ExampleSet
from nonlocal_video.teaching.fitting import Lesson, TaughtExamples, damping_of_head, teach_features
from nonlocal_video.teaching.folder import TaughtFolder
from nonlocal_video.teaching.heads import LinearHead
from nonlocal_video.teaching.model_card import readme
from nonlocal_video.teaching.prior import background_features
from nonlocal_video.teaching.report import TeachReport, make_report
from nonlocal_video.teaching.views import ExampleViews, find_views
from nonlocal_video.training.initialization import initialize
from nonlocal_video.video.region import Region

Array = NDArray[np.float64]


class TeachCallback:
    """Progress of `teach`; override the methods of interest."""

    def on_source(self, found: ExampleSet) -> None:
        """Take the examples that were found, before any is read."""

    def on_progress(self, done: int, total: int, error: VideoError | None) -> None:
        """Take how many views of all are done, and the error of the last one."""

    def notify(self, sentence: str) -> None:
        """Take a sentence about what was found or decided."""


def run_settings(
    recognizer: Recognizer, model: str, *, views: str, fast: bool, region: Region | None = None
) -> dict[str, object]:
    """Return all settings that the features and the head of a run depend on."""
    told: dict[str, object] = {
        "model": model,
        "weights_sha256": recognizer.weights_sha256(),
        "views": views,
        "fast": fast,
    }
    return told if region is None else told | {"region": str(region)}


@dataclass(frozen=True)
class Seen:
    """The views of all examples, and the features of those that could be read."""

    views: Sequence[ExampleViews]
    """One an example, with its problem if it has one."""
    features: Array
    """(V, C)."""
    example_of: NDArray[np.int64]
    """(V,) number of the usable example."""

    @property
    def usable(self) -> list[ExampleViews]:
        """Views of the examples that could be read."""
        return [one for one in self.views if one.problem is None]


def see_examples(
    recognizer: Recognizer,
    found: ExampleSet,
    folder: TaughtFolder,
    *,
    num_views: int,
    fast: bool,
    region: Region | None = None,
    workers: int | None,
    batch_size: int | None,
    callback: TeachCallback,
    should_stop: Callable[[], bool],
) -> Seen:
    """Compute the features that the folder does not have yet, and read all.

    Raises:
        UsageError: None of the examples can be read.
        KeyboardInterrupt: `should_stop` ended it.
    """
    views = list(_stopping(find_views(recognizer, found.examples, num_views, fast=fast), should_stop))
    parts = [part for one in views for part in one.parts]
    if not parts:
        raise UsageError(_none_readable(views))

    def tell(progress: FeatureProgress) -> None:
        done = progress.counts.total() + progress.done_before.total()
        error = progress.result if isinstance(progress.result, VideoError) else progress.result.error
        callback.on_progress(done, len(parts), error)

    extract_features(
        recognizer,
        list(dict.fromkeys(parts)),
        output=folder.features,
        resume=any(path.exists() for path in FeatureFile.files_of(folder.features)),
        fast=fast,
        region=region,
        workers=workers,
        batch_size=batch_size,
        drop_missing=True,
        should_stop=should_stop,
        on_progress=tell,
    )
    table = read_features(folder.features)
    rows_of: dict[str, list[int]] = {}
    for row, path in enumerate(table.paths):
        rows_of.setdefault(path, []).append(row)
    broken = dict(table.errors)
    checked: list[ExampleViews] = []
    rows: list[int] = []
    example_of: list[int] = []
    for one in views:
        codes = [broken[part] for part in one.parts if part in broken]
        own = [row for part in one.parts for row in rows_of.get(part, ())]
        if one.problem is None and (codes or not own):
            known: list[ErrorCode] = [code for code in get_args(ErrorCode) if code in codes]
            one = replace(one, problem=VideoError(known[0] if known else "internal", "its frames could not be read."))
        checked.append(one)
    checked = _without_contradictions(
        checked, lambda one: [row for part in one.parts for row in rows_of[part]], table.features
    )
    for one in checked:
        if one.problem is None:
            own = [row for part in one.parts for row in rows_of[part]]
            example_of += [len(set(example_of))] * len(own)
            rows += own
    return Seen(checked, table.features[rows].astype(np.float64), np.array(example_of, np.int64))


def _stopping(views: Iterator[ExampleViews], should_stop: Callable[[], bool]) -> Iterator[ExampleViews]:
    for one in views:
        if should_stop():
            raise KeyboardInterrupt
        yield one


def _without_contradictions(
    views: Sequence[ExampleViews], rows_of: Callable[[ExampleViews], list[int]], features: NDArray[np.float32]
) -> list[ExampleViews]:
    """Give examples a problem whose frames are also an example of another class."""
    labels_of: dict[bytes, set[tuple[str, ...]]] = {}
    keys = [features[rows_of(one)].tobytes() if one.problem is None else b"" for one in views]
    for one, key in zip(views, keys, strict=True):
        labels_of.setdefault(key, set()).add(one.example.labels)
    return [
        replace(one, problem=VideoError("internal", "the same frames are an example with other labels."))
        if key and len(labels_of[key]) > 1
        else one
        for one, key in zip(views, keys, strict=True)
    ]


def learn(seen: Seen, found: ExampleSet, former_head: Array, *, is_default: bool) -> tuple[Lesson, TeachReport]:
    """Fit a head to what was seen, and report what it knows of examples that are left out.

    Raises:
        UsageError: No example of a class can be used.
    """
    examples = [one.example for one in seen.usable]
    missing = set(found.labels) - {label for example in examples for label in example.labels}
    unreadable = [
        (one.example.path, f"{one.problem.code}: {one.problem.message}")
        for one in seen.views
        if one.problem is not None
    ]
    if missing:
        reasons = "; ".join(f"{path}: {problem}" for path, problem in unreadable[:3])
        raise UsageError(f"No example of {', '.join(map(repr, sorted(missing)))} can be used ({reasons}).")
    index_of = {label: index for index, label in enumerate(found.labels)}
    contents = [seen.features[seen.example_of == number].tobytes() for number in range(len(examples))]
    groups = connected(len(examples), link_equal([example.group for example in examples], contents))
    taught = TaughtExamples(
        seen.features,
        seen.example_of,
        [tuple(index_of[label] for label in example.labels) for example in examples],
        groups,
        len(found.labels),
    )
    background = background_features() if is_default else None
    lesson = teach_features(taught, former_head=former_head, background=background)
    cosine = _median_cosine(taught) if is_default else None
    report = make_report(
        examples, found.labels, groups, lesson, unreadable=unreadable, notes=found.notes, median_cosine=cosine
    )
    return lesson, report


def _median_cosine(examples: TaughtExamples) -> float:
    """Return the median cosine of features of examples that share no class."""
    means = replace(examples, features=to_length_1(examples.features)).means()[examples.known]
    shown = np.zeros((len(examples.known), examples.num_classes), bool)
    for row, index in enumerate(examples.known.tolist()):
        shown[row, list(examples.labels[index])] = True
    share_none = ~(shown.astype(int) @ shown.T.astype(int)).astype(bool)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return float(np.median((means @ means.T)[share_none])) if share_none.any() else 0.0


def write_run(
    folder: TaughtFolder,
    recognizer: Recognizer,
    model: str | Path,
    lesson: Lesson,
    report: TeachReport,
    found: ExampleSet,
    seen: Seen,
    *,
    views: str,
    fast: bool,
    region: Region | None = None,
) -> None:
    """Write what makes a folder a run: examples, weights, report, model card.

    Raises:
        OutputError: It cannot be written.
    """
    directions = directions_of_head(recognizer)
    folder.write_examples(seen.views)
    card = save_weights(folder, model, lesson, found, seen, directions, fast=fast, region=region)
    folder.write(folder.report, report.to_json())
    folder.write(folder.readme, readme(folder, card, recognizer.card, report, views=views, region=region))


def save_weights(
    folder: TaughtFolder,
    model: str | Path,
    lesson: Lesson,
    found: ExampleSet,
    seen: Seen,
    former_head: Array,
    *,
    fast: bool,
    region: Region | None,
) -> ModelCard:
    """Write the network with its new head, and return its card."""
    start = initialize(model, found.labels, name=folder.path.name or "taught", fast=fast)
    assert start.parent is not None
    notes = () if region is None else (region.model_note,)
    card = replace(start.card, source=f"taught from {start.parent.name}", taught=lesson.classes, notes=notes)
    weight, bias = head_weights(lesson.linear, seen.features, former_head, lesson.scales)
    layer = head_of(start.network, card)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight).view_as(layer.weight))
        assert layer.bias is not None
        layer.bias.copy_(torch.from_numpy(bias))
    try:
        save_checkpoint(folder.weights, start.network, card, dtype=torch.float32)
    except OSError as error:
        raise OutputError(
            f"{str(folder.weights)!r} cannot be written: {error.strerror}. Make room and resume."
        ) from error
    return card


def head_weights(head: LinearHead, features: Array, former_head: Array, scales: Array) -> tuple[Array, Array]:
    """Return weights (K, C) and bias (K,) of a layer that takes features as they are.

    Args:
        head: Fitted to features that were scaled, damped and of length 1.
        features: (V, C) features of the examples. Their usual length after the damping divides the weights, as a layer
            cannot scale each to length 1.
        former_head: The damping.
        scales: (C,) factors of the features.
    """
    scaled = features * scales
    directions = scaled - (scaled @ former_head.T) @ former_head
    length = float(np.linalg.norm(directions, axis=1).mean())
    return (head.weight - (head.weight @ former_head.T) @ former_head) * scales / length, head.bias


def head_of(network: nn.Module, card: ModelCard) -> nn.Linear | nn.Conv3d:
    """Return the linear classifier of a network.

    Raises:
        UsageError: It does not say which of its layers that is.
    """
    name = getattr(network, "head_layer", None)
    layer = network.get_submodule(name) if name and getattr(network, "feature_layer", None) else None
    if not isinstance(layer, (nn.Linear, nn.Conv3d)) or layer.bias is None:
        raise UsageError(
            f"The network of {card.name!r} does not say which of its layers is a linear classifier of pooled features, "
            f"so no other can be put in its place. Teach a model of `nonlocal-video weights list`."
        )
    return layer


def directions_of_head(recognizer: Recognizer) -> Array:
    """Return the directions that the model's own head looks at most, which are damped: (R, C).

    Raises:
        UsageError: It has no linear head.
    """
    return damping_of_head(head_matrix(head_of(recognizer.network, recognizer.card)))


def head_matrix(layer: nn.Linear | nn.Conv3d) -> Array:
    """Return the weights of a linear classifier, (K, C)."""
    return np.asarray(layer.weight.detach().flatten(1).double().cpu().numpy())


def _none_readable(views: Sequence[ExampleViews]) -> str:
    shown = "; ".join(f"{one.example.path}: {one.problem.code}" for one in views[:3] if one.problem is not None)
    return f"None of the {len(views)} examples can be read ({shown})."
