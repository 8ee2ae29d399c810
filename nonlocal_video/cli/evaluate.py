"""`nonlocal-video evaluate`: accuracy of a model on labelled clips, with its uncertainty."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nonlocal_video.cli import options
from nonlocal_video.cli.interrupt import STATUS_INTERRUPTED, GracefulInterrupt
from nonlocal_video.cli.outputs import check_new
from nonlocal_video.cli.run_progress import RunProgressBar
from nonlocal_video.errors import OutputError, UsageError

if TYPE_CHECKING:
    from nonlocal_video.evaluation.answers import Answer, Truth
    from nonlocal_video.inference.preprocessing import ClipRequest
    from nonlocal_video.inference.recognizer import Recognizer
    from nonlocal_video.models.card import Accuracy, ModelCard

STATUS_SOME_UNREADABLE = 1


class Protocol(StrEnum):
    """Evaluation protocols."""

    published = "published"


def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR|CSV", help="Folder with one subfolder of clips per class, or a CSV path,label[,group][,split]."
        ),
    ],
    model: options.Model = "default",
    device: options.Devices = "auto",
    runtime: options.Runtime = options.RuntimeChoice.torch,
    precision: options.Precision = options.PrecisionChoice.float32,
    views: Annotated[
        str | None, typer.Option(help="Views whose scores are averaged, CLIPSxCROPS (default: 1x1).")
    ] = None,
    fast: options.Fast = False,
    region: options.Region = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option(
            help="published: use the views of the published accuracy in the model card, and show it for comparison."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split to evaluate, as named in the CSV or by the folders above the classes (default: all)."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for summary, predictions and confusion matrix (default: only print the results)."),
    ] = None,
    all_files: options.AllFiles = False,
    ignore_column: options.IgnoreColumn = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")] = False,
    no_csv_escape: options.NoCsvEscape = False,
    workers: options.Workers = None,
    batch_size: options.BatchSize = None,
    decoder: options.Decoder = options.DecoderChoice.auto,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON on standard output.")] = False,
) -> None:
    """Measure a model on labelled clips; those that cannot be read are counted, too."""
    if resume and output is None:
        raise UsageError("--resume needs the folder of an evaluation; give it with --output.")

    from nonlocal_video.cli.check import print_source
    from nonlocal_video.datasets.labelled import alike_names, class_indices, read_source
    from nonlocal_video.evaluation.answers import Truth
    from nonlocal_video.inference.load import load
    from nonlocal_video.inference.preprocessing import ClipRequest
    from nonlocal_video.inference.runtimes.device import choose_devices
    from nonlocal_video.inference.views import ViewCount
    from nonlocal_video.io import sha256_of
    from nonlocal_video.models.checkpoint import read_card
    from nonlocal_video.video.region import Region
    from nonlocal_video.zoo.catalogue import find

    weights = find(model)
    card = read_card(weights)
    published = None
    if protocol is Protocol.published:
        published = _published(card, views, fast=fast)
        views = published.views
    request = ClipRequest(ViewCount.parse(views or "1x1"), region=Region.of(region))
    card.view(fast=fast)  # rejects an unavailable --fast before anything is read
    found = read_source(source, split=split, all_files=all_files, ignore_columns=ignore_column or ())
    clips = found.clips
    print_source(replace(found, notes=(*found.notes, *alike_names(found.labels))))
    indices = class_indices(clips, card.labels)
    truths = {
        clip.path: Truth(card.labels[index], index, clip.group) for clip, index in zip(clips, indices, strict=True)
    }
    splits = sorted({clip.split for clip in clips if clip.split})
    if split is None and len(splits) > 1:
        typer.echo(f"All splits are evaluated together: {', '.join(splits)}. Use --split for one of them.", err=True)
    settings: dict[str, Any] = {
        "model": card.name,
        "weights_sha256": sha256_of(weights),
        "views": str(request.views),
        "fast": fast,
        "region": None if request.region is None else str(request.region),
        "precision": precision.value,
        "decoder": decoder.value,
        "labelled_clips_sha256": _digest(truths),
    }
    devices = choose_devices(device, runtime=runtime.value)
    with load(
        model, device=devices[0], runtime=runtime.value, precision=precision.value, decoder=decoder.value
    ) as recognizer:
        answers = _answers(
            recognizer,
            truths,
            request,
            settings,
            output,
            resume=resume,
            workers=workers,
            batch_size=batch_size,
            devices=devices,
        )

    from rich.console import Console

    from nonlocal_video.cli.evaluate_text import print_evaluation
    from nonlocal_video.evaluation.metrics import compute_metrics
    from nonlocal_video.evaluation.report import Evaluation

    metrics = compute_metrics(answers, len(card.labels), seed=seed)
    about = {
        **settings,
        "source": source,
        "split": split,
        "protocol": protocol.value if protocol else None,
        "passed_over": dict(found.passed_over.counts),
    }
    evaluation = Evaluation(about, card.labels, answers, metrics, published, seed)
    written = [] if output is None else evaluation.write(output, csv_escape=not no_csv_escape)
    if as_json:
        typer.echo(json.dumps(evaluation.summary()))
    else:
        print_evaluation(evaluation, Console(width=None if sys.stdout.isatty() else 140))
        if written:
            typer.echo(f"Written to {output}: {', '.join(path.name for path in written)}.")
    if evaluation.unreadable:
        raise typer.Exit(STATUS_SOME_UNREADABLE)


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
) -> list[Answer]:
    """Return the answer for every clip, in the order of `truths`, including those of earlier runs."""
    from nonlocal_video.evaluation.answers import TOP_K, from_row, to_row
    from nonlocal_video.evaluation.report import REPORT_FILES
    from nonlocal_video.inference.batch_run import BatchRun
    from nonlocal_video.inference.prediction import printable
    from nonlocal_video.inference.results import ResultFile

    rows: list[dict[str, Any]] = []
    tables: list[ResultFile] = []
    with ExitStack() as stack:
        if output is not None:
            _make_folder(output)
            predictions = output / "predictions.jsonl"
            if not resume and not any(path.exists() for path in ResultFile.files_of(predictions)):
                for name in REPORT_FILES:  # an earlier evaluation gets its own error message
                    check_new(output / name)
            tables.append(stack.enter_context(ResultFile(predictions, settings, top_k=TOP_K, resume=resume)))
        stop = stack.enter_context(GracefulInterrupt())
        run = BatchRun(
            recognizer,
            truths,
            request,
            fast=settings["fast"],
            workers=workers,
            batch_size=batch_size,
            devices=devices,
            tables=tables,
            to_row=lambda outcome: to_row(outcome, truths[outcome.path]),
            should_stop=lambda: stop.requested,
        )
        steps = stack.enter_context(closing(iter(run)))
        progress = stack.enter_context(RunProgressBar(lambda: len(truths)))
        try:
            for _, row in steps:
                if not tables:
                    rows.append(row)
                progress.update(run.counts, run.done_before.total())
            if stop.requested:
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            added = run.counts.total()
            kept = f" {added} answers were added to {str(output)!r}; the same command with --resume continues."
            typer.echo("Stopped." + (kept if tables else ""), err=True)
            raise typer.Exit(STATUS_INTERRUPTED) from None
    if output is not None:
        with open(output / "predictions.jsonl", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
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
    """Return the digest of paths and classes, which identifies the list of clips."""
    lines = sorted(f"{path}\0{truth.label}\n" for path, truth in truths.items())
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
