"""Measure a model on labelled clips: from a folder or a list of clips to figures with intervals."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from nonlocal_video.datasets.labelled import alike_names, class_indices, read_source
from nonlocal_video.datasets.labelled_clip import NONE_OF_THESE, LabelledClip, LabelledSource, is_none_of_these
from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.evaluation.answers import NO_CLASS, TOP_K, Answer, Truth, from_row, to_row
from nonlocal_video.evaluation.metrics import compute_metrics
from nonlocal_video.evaluation.report import REPORT_FILES, Evaluation
from nonlocal_video.evaluation.unknown import unknown_figures
from nonlocal_video.inference.batch_run import BatchRun
from nonlocal_video.inference.context import check_has_features
from nonlocal_video.inference.folder_context import context_settings, kept_answer
from nonlocal_video.inference.load import load
from nonlocal_video.inference.precision import Precision
from nonlocal_video.inference.prediction import printable
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.results import ResultFile, final_rows
from nonlocal_video.inference.runtimes.choice import RuntimeOption
from nonlocal_video.inference.runtimes.device import choose_devices
from nonlocal_video.io import check_new
from nonlocal_video.models.card import Accuracy, ModelCard
from nonlocal_video.video.decode import DecoderChoice
from nonlocal_video.video.region import RegionLike
from nonlocal_video.zoo.catalogue import card_of, weights_sha256

_Path = str | os.PathLike[str]


class EvaluationCallback:
    """Progress of `evaluate`; override the methods of interest."""

    def on_source(self, found: LabelledSource) -> None:
        """Take the labelled clips that were found."""

    def on_progress(self, counts: Counter[str], done_before: int, total: int) -> None:
        """Take, after every clip, the counts of this run by `ok` or the error's code, and of earlier runs' clips."""

    def notify(self, sentence: str) -> None:
        """Take a sentence about what was found."""


def evaluate(
    source: _Path,
    *,
    model: _Path = "default",
    device: str = "auto",
    runtime: RuntimeOption = "auto",
    precision: Precision = "float32",
    views: str | None = None,
    fast: bool = False,
    region: RegionLike = None,
    protocol: Literal["published"] | None = None,
    context: Literal["none", "folder"] = "none",
    split: str | None = None,
    output: _Path | None = None,
    resume: bool = False,
    all_files: bool = False,
    ignore_columns: Sequence[str] = (),
    csv_escape: bool = True,
    workers: int | None = None,
    batch_size: int | None = None,
    decoder: DecoderChoice = "auto",
    seed: int = 0,
    callback: EvaluationCallback | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Measure a model on labelled clips, as the command `evaluate` does; unreadable clips are counted as well.

    Args:
        source: A folder with one folder of clips for each class, or a CSV of `path,label[,group][,split]`.
            With a taught model, clips labelled `none of these` measure whether it finds them unknown.
        model: Catalogue name, weights file, a training run's folder, or `package.module:function`; see `load`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `cuda:all`.
        runtime: As for `load`.
        precision: As for `load`.
        views: CLIPSxCROPS to average; None is 1x1.
        fast: The model card's cheaper view.
        region: Part of the picture to look at.
        protocol: `published` takes the views of the accuracy that the model's card quotes, and reports that as well.
        context: With `folder` the clips' answers draw on each other.
        split: Only the clips of this split.
        output: Folder for figures, all answers and the confusion matrix.
        resume: Continue an interrupted evaluation in `output`.
        all_files: Try files of every kind, not only of names that are videos'.
        ignore_columns: Columns of the CSV that mean nothing here.
        csv_escape: In a CSV, put an apostrophe before text that a spreadsheet would take for a formula.
        workers: Decoding processes beside the network; None is as many as suit the device.
        batch_size: Views in one forward pass; None is as many as suit the device.
        decoder: `auto`, `decord` or `pyav`.
        seed: Random seed of the bootstrap.
        callback: Told how far the evaluation is.
        should_stop: Asked before each clip; the answers so far are kept in `output`, and `resume` continues.

    Raises:
        UsageError: An argument has a value that is not allowed, or a class is not the model's.
        ModelError: There is no such model.
        OutputError: The output cannot be written.
        DeviceError: The device has failed; `resume` does the rest.
        KeyboardInterrupt: `should_stop` ended the run.

    Example:
        >>> import nonlocal_video as nlv
        >>> evaluation = nlv.evaluate("clips/", model="runs/mine")
        >>> evaluation.metrics.top1
        Figure(value=0.93, low=0.87, high=0.97)
    """
    callback = callback or EvaluationCallback()
    if resume and output is None:
        raise UsageError("--resume needs the folder of an evaluation; give it with --output.")
    name = model if isinstance(model, str) else Path(model)
    card = card_of(name)
    published = None
    if protocol == "published":
        published = _published(card, views, fast=fast)
        views = published.views
    request = ClipRequest.parse(views=views or "1x1", fast=fast, region=region)
    card.view(fast=fast)  # refuses `fast`, if it has to, before anything is read
    found = read_source(os.fspath(source), split=split, all_files=all_files, ignore_columns=ignore_columns)
    clips = found.clips
    callback.on_source(replace(found, notes=(*found.notes, *alike_names(found.labels))))
    truths = _truths(clips, card)
    splits = sorted({clip.split for clip in clips if clip.split})
    if split is None and len(splits) > 1:
        callback.notify(f"All splits are measured together: {', '.join(splits)}. --split takes one.")
    settings: dict[str, Any] = {
        "model": card.name,
        "weights_sha256": weights_sha256(name),
        "views": str(request.views),
        "fast": fast,
        "region": None if request.region is None else str(request.region),
        "precision": precision,
        "decoder": decoder,
        "labelled_clips_sha256": _digest(truths),
    }
    refines = context_settings(card, context)
    folder = None if output is None else Path(output)
    devices = choose_devices(device, runtime=runtime)
    with load(model, device=devices[0], runtime=runtime, precision=precision, decoder=decoder) as recognizer:
        answers = _answers(
            recognizer,
            truths,
            request,
            settings | refines,
            folder,
            resume=resume,
            workers=workers,
            batch_size=batch_size,
            devices=devices,
            callback=callback,
            should_stop=should_stop,
        )
    about = {
        **settings,
        "context": context,
        "source": os.fspath(source),
        "split": split,
        "protocol": protocol,
        "passed_over": dict(found.passed_over.counts),
    }
    metrics = compute_metrics([one for one in answers if not one.truth.is_none], len(card.labels), seed=seed)
    unknown = unknown_figures(answers, seed=seed)
    evaluation = Evaluation(about, card.labels, answers, metrics, published, seed, unknown)
    if folder is not None:
        evaluation.write(folder, csv_escape=csv_escape)
    return evaluation


def _truths(clips: Sequence[LabelledClip], card: ModelCard) -> dict[str, Truth]:
    """Return what each clip shows; a taught model may be asked about clips of `none of these`."""
    of_class = [clip for clip in clips if card.taught is None or not is_none_of_these(clip.label)]
    index_of = {clip.path: index for clip, index in zip(of_class, class_indices(of_class, card.labels), strict=True)}
    truths = {}
    for clip in clips:
        index = index_of.get(clip.path, NO_CLASS)
        truths[clip.path] = Truth(NONE_OF_THESE if index == NO_CLASS else card.labels[index], index, clip.group)
    return truths


def _published(card: ModelCard, views: str | None, *, fast: bool) -> Accuracy:
    if card.published is None:
        raise UsageError(
            f"The card of model {card.name!r} has no published accuracy, so there is no protocol to repeat; omit "
            f"--protocol and choose --views. `nonlocal-video weights list` shows the models that have one."
        )
    if views is not None or fast:
        raise UsageError(
            f"--protocol published sets the views itself ({card.published.views} of the full input); omit "
            f"{'--views' if views is not None else '--fast'}."
        )
    return card.published


def _answers(
    recognizer: Recognizer,
    truths: Mapping[str, Truth],
    request: ClipRequest,
    settings: dict[str, Any],
    output: Path | None,
    *,
    resume: bool,
    workers: int | None,
    batch_size: int | None,
    devices: Sequence[str],
    callback: EvaluationCallback,
    should_stop: Callable[[], bool],
) -> list[Answer]:
    """Return the model's answers for all clips, in the order of `truths`; earlier runs' answers included."""
    refines = settings.get("context") == "folder"
    check_has_features(recognizer.network, recognizer.card.name, settings.get("context", "none"))
    entries: list[dict[str, Any]] = []
    tables: list[ResultFile] = []
    with ExitStack() as stack:
        if output is not None:
            _make_folder(output)
            predictions = output / "predictions.jsonl"
            if not resume and not any(path.exists() for path in ResultFile.files_of(predictions)):
                for name in REPORT_FILES:  # for an earlier evaluation, `ResultFile` says how to continue it
                    check_new(output / name)
            about = {**settings, "top_k": TOP_K} if refines else settings
            tables.append(stack.enter_context(ResultFile(predictions, about, top_k=TOP_K, resume=resume)))
        run = BatchRun(
            recognizer,
            truths,
            request,
            workers=workers,
            batch_size=batch_size,
            devices=devices,
            tables=tables,
            to_row=lambda outcome: to_row(outcome, truths[outcome.path]),
            keep_answers=refines,
            should_stop=should_stop,
        )
        steps = stack.enter_context(closing(iter(run)))
        for outcome, row in steps:
            if not tables:
                entries.append({"row": row, "answer": kept_answer(outcome) if refines else None})
            callback.on_progress(run.counts, run.done_before.total(), len(truths))
        if should_stop():
            raise KeyboardInterrupt
    if output is not None:
        with open(output / "predictions.jsonl", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
    else:
        rows = list(final_rows(lambda: iter(entries), settings | {"top_k": TOP_K}))
    by_path = {row["path"]: row for row in rows}
    return [from_row(by_path[printable(path)], truth) for path, truth in truths.items()]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"output = {str(folder)!r} cannot be made: {error.strerror}. Choose another folder."
        ) from error


def _digest(truths: Mapping[str, Truth]) -> str:
    """Return the digest of paths and classes: answers to one list of clips are not taken for another's."""
    lines = sorted(f"{path}\0{truth.label}\n" for path, truth in truths.items())
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
