"""Teach a model by a few examples: from a folder or a list of clips to a run's folder, in one pass."""

from __future__ import annotations

import os
import sys
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
from nonlocal_video.inference.load import load
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.runtimes.choice import RuntimeOption
from nonlocal_video.inference.views import ViewCount
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.checkpoint import save_checkpoint
from nonlocal_video.models.taught import damped
from nonlocal_video.teaching.examples import ExampleSet, read_examples
from nonlocal_video.teaching.fitting import Lesson, TaughtExamples, damping_of_head, teach_features
from nonlocal_video.teaching.folder import TaughtFolder
from nonlocal_video.teaching.heads import LinearHead
from nonlocal_video.teaching.model_card import readme
from nonlocal_video.teaching.prior import background_features
from nonlocal_video.teaching.report import TeachReport, make_report
from nonlocal_video.teaching.views import ExampleViews, find_views
from nonlocal_video.training.initialization import initialize
from nonlocal_video.video.decode import DecoderChoice
from nonlocal_video.zoo.catalogue import DEFAULT

_Path = str | os.PathLike[str]
Array = NDArray[np.float64]


class TeachCallback:
    """What `teach` tells while it works; override the methods of interest."""

    def on_source(self, found: ExampleSet) -> None:
        """Take the examples that were found, before any is read."""

    def on_progress(self, done: int, total: int, error: VideoError | None) -> None:
        """Take how many views of all are done, and the error of the last one."""

    def notify(self, sentence: str) -> None:
        """Take a sentence about what was found or decided."""


@dataclass(frozen=True)
class TaughtRun:
    """A taught run's folder, which `load` and `evaluate` take, and what teaching found."""

    path: Path
    report: TeachReport

    @property
    def accuracy(self) -> float | None:
        """Share of examples that are right when their group is left out; None where none could be."""
        return self.report.accuracy

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __repr__(self) -> str:
        known = "unknown" if self.accuracy is None else f"{self.accuracy:.3f}"
        return f"TaughtRun({str(self.path)!r}, {len(self.report.counts)} classes, accuracy={known})"


def teach(
    source: _Path,
    *,
    output: _Path,
    model: _Path = "default",
    views: str = "1x1",
    fast: bool = False,
    device: str = "auto",
    runtime: RuntimeOption = "auto",
    decoder: DecoderChoice = "auto",
    workers: int | None = None,
    batch_size: int | None = None,
    all_files: bool = False,
    ignore_columns: Sequence[str] = (),
    resume: bool = False,
    callback: TeachCallback | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TaughtRun:
    """Teach a model new classes by a few examples of each, as the command `teach` does.

    The network sees every example once and is not trained; a new linear head is fitted to its features. With `resume`
    examples may have been added, changed or removed, and only new ones are seen.

    Args:
        source: A folder with one folder of clips a class, a CSV `path,label[,group]`, or a CSV of segments
            `path,start_seconds,end_seconds,label[,group]`. A clip may have several labels in a CSV. Clips under the
            label `none of these` show no class.
        output: Folder of the run: weights, features, report, model card.
        model: What to start from: a catalogue name, a weights file, or a run's folder.
        views: Views of an example, CLIPSx1, as those that `classify` will be asked with; 1x1 is the middle.
        fast: Teach for the model's cheaper view.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        runtime: As for `load`.
        decoder: As for `load`.
        workers: Decoding processes beside the network; None is as many as suit the device.
        batch_size: Views in one forward pass; None is as many as suit the device.
        all_files: Try files of every kind, not only of names that are videos'.
        ignore_columns: Columns of the CSV that mean nothing here.
        resume: Teach the run in `output` again.
        callback: Told how far it is.
        should_stop: Asked before each view; what is done is kept, and `resume` continues.

    Raises:
        UsageError: The examples or the settings do not fit, or a class has no example that can be read.
        ModelError: The model cannot be had.
        OutputError: The folder cannot be written.
        DeviceError: The device has failed; `resume` does the rest.
        KeyboardInterrupt: `should_stop` ended it.

    Example:
        >>> import nonlocal_video as nlv
        >>> run = nlv.teach("examples/", output="runs/mine")
        >>> run.report.accuracy, run.report.interval
        (0.93, (0.85, 0.99))
        >>> nlv.load(run).classify("clip.mp4").unknown
        False
    """
    callback = callback or TeachCallback()
    count = ViewCount.parse(views)
    if count.num_crops != 1:
        raise UsageError(f"views = {views!r}: an example is taught by views of one crop, such as 1x1 or 3x1.")
    found = read_examples(source, all_files=all_files, ignore_columns=ignore_columns)
    callback.on_source(found)
    name = model if isinstance(model, str) else Path(model)
    with load(name, device=device, runtime=runtime, decoder=decoder) as recognizer:
        recognizer.card.view(fast=fast)  # refuses `fast`, if it has to, before anything is written
        former = _head_of(recognizer.network, recognizer.card)
        settings = {
            "model": str(model),
            "weights_sha256": recognizer.weights_sha256(),
            "views": str(count),
            "fast": fast,
        }
        with TaughtFolder(output).open(settings, command=sys.argv, resume=resume) as folder:
            seen = _seen(
                recognizer,
                found,
                folder,
                num_views=count.num_clips,
                fast=fast,
                workers=workers,
                batch_size=batch_size,
                callback=callback,
                should_stop=should_stop,
            )
            directions = damping_of_head(_matrix(former))
            lesson, report = _learn(seen, found, directions, is_default=recognizer.card.name == DEFAULT)
            folder.write_examples(seen.views)
            card = _save(folder, name, lesson, found, seen, directions, fast=fast)
            folder.write(folder.report, report.to_json())
            folder.write(folder.readme, readme(folder, card, recognizer.card, report, views=str(count)))
    return TaughtRun(folder.path, report)


@dataclass(frozen=True)
class _Seen:
    """The views of all examples, and the features of those that could be read."""

    views: Sequence[ExampleViews]
    """One an example, with its problem if it has one."""
    features: Array
    """(V, C)."""
    example_of: NDArray[np.int64]
    """(V,) number of the usable example."""

    @property
    def usable(self) -> list[ExampleViews]:
        return [one for one in self.views if one.problem is None]


def _seen(
    recognizer: Recognizer,
    found: ExampleSet,
    folder: TaughtFolder,
    *,
    num_views: int,
    fast: bool,
    workers: int | None,
    batch_size: int | None,
    callback: TeachCallback,
    should_stop: Callable[[], bool],
) -> _Seen:
    """Compute the features that the folder does not have yet, and read all."""
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
    return _Seen(checked, table.features[rows].astype(np.float64), np.array(example_of, np.int64))


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


def _learn(seen: _Seen, found: ExampleSet, former_head: Array, *, is_default: bool) -> tuple[Lesson, TeachReport]:
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
        damped(seen.features, former_head),
        seen.example_of,
        [tuple(index_of[label] for label in example.labels) for example in examples],
        groups,
        len(found.labels),
    )
    background = background_features() if is_default else None
    lesson = teach_features(taught, former_head=former_head, background=background)
    cosine = _median_cosine(seen.features, taught) if is_default else None
    report = make_report(
        examples, found.labels, groups, lesson, unreadable=unreadable, notes=found.notes, median_cosine=cosine
    )
    return lesson, report


def _median_cosine(features: Array, examples: TaughtExamples) -> float:
    """Return the median cosine of features of examples that share no class."""
    means = replace(examples, features=damped(features, np.empty((0, features.shape[1])))).means()[examples.known]
    shown = np.zeros((len(examples.known), examples.num_classes), bool)
    for row, index in enumerate(examples.known.tolist()):
        shown[row, list(examples.labels[index])] = True
    share_none = ~(shown.astype(int) @ shown.T.astype(int)).astype(bool)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return float(np.median((means @ means.T)[share_none])) if share_none.any() else 0.0


def _save(
    folder: TaughtFolder,
    model: str | Path,
    lesson: Lesson,
    found: ExampleSet,
    seen: _Seen,
    former_head: Array,
    *,
    fast: bool,
) -> ModelCard:
    """Write the network with its new head, and return its card."""
    start = initialize(model, found.labels, name=folder.path.name or "taught", fast=fast)
    assert start.parent is not None
    card = replace(start.card, source=f"taught from {start.parent.name}", taught=lesson.classes)
    directions = seen.features - (seen.features @ former_head.T) @ former_head
    _set_head(
        _head_of(start.network, card), lesson.linear, former_head, float(np.linalg.norm(directions, axis=1).mean())
    )
    try:
        save_checkpoint(folder.weights, start.network, card, dtype=torch.float32)
    except OSError as error:
        raise OutputError(
            f"{str(folder.weights)!r} cannot be written: {error.strerror}. Make room and resume."
        ) from error
    return card


def _set_head(layer: nn.Linear | nn.Conv3d, head: LinearHead, former_head: Array, length: float) -> None:
    """Fill a layer with a head for damped features of length 1, so that it takes features as they are.

    Args:
        layer: The network's last layer.
        head: Fitted to damped features of length 1.
        former_head: The damping.
        length: Usual length of damped features, as a layer cannot scale each to length 1.
    """
    weight = (head.weight - (head.weight @ former_head.T) @ former_head) / length
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight).view_as(layer.weight))
        assert layer.bias is not None
        layer.bias.copy_(torch.from_numpy(head.bias))


def _head_of(network: nn.Module, card: ModelCard) -> nn.Linear | nn.Conv3d:
    name = getattr(network, "head_layer", None)
    layer = network.get_submodule(name) if name and getattr(network, "feature_layer", None) else None
    if not isinstance(layer, (nn.Linear, nn.Conv3d)) or layer.bias is None:
        raise UsageError(
            f"The network of {card.name!r} does not say which of its layers is a linear classifier of pooled features, "
            f"so no other can be put in its place. Teach a model of `nonlocal-video weights list`."
        )
    return layer


def _matrix(layer: nn.Linear | nn.Conv3d) -> Array:
    """Return the weights of a linear classifier, (K, C)."""
    return np.asarray(layer.weight.detach().flatten(1).double().cpu().numpy())


def _none_readable(views: Sequence[ExampleViews]) -> str:
    shown = "; ".join(f"{one.example.path}: {one.problem.code}" for one in views[:3] if one.problem is not None)
    return f"None of the {len(views)} examples can be read ({shown})."
