"""`nonlocal-video classify`: recognise the actions in files and folders."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nonlocal_video.cli import options
from nonlocal_video.cli.interrupt import GracefulInterrupt
from nonlocal_video.cli.run_progress import RunProgressBar
from nonlocal_video.cli.terminal import STATUS_FAILED, STATUS_INTERRUPTED, naming_resume
from nonlocal_video.cli.text import describe, describe_row
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.file_kinds import PICTURES, PassedOver

if TYPE_CHECKING:
    from nonlocal_video.inference.batch_run import FolderOptions, FolderResult
    from nonlocal_video.inference.files import Selection
    from nonlocal_video.inference.ray.engine import Cluster, ClusterJob
    from nonlocal_video.inference.recognizer import Recognizer
    from nonlocal_video.inference.request import ClipRequest


class ContextChoice(StrEnum):
    """Context that a clip's answer draws on."""

    none = "none"
    folder = "folder"


def classify(
    paths: Annotated[
        list[str],
        typer.Argument(help="Video files, folders (searched recursively), glob patterns, object storage URLs."),
    ],
    model: options.Model = "default",
    device: options.Devices = "auto",
    runtime: options.Runtime = options.RuntimeChoice.auto,
    precision: options.Precision = options.PrecisionChoice.float32,
    views: Annotated[
        str, typer.Option(help="Views whose scores are averaged, CLIPSxCROPS; 10x3 is the paper's protocol.")
    ] = "1x1",
    fast: options.Fast = False,
    start_seconds: options.StartSeconds = None,
    end_seconds: options.EndSeconds = None,
    region: options.Region = None,
    top_k: options.TopK = 5,
    context: Annotated[
        ContextChoice,
        typer.Option(help="folder: a clip's answer draws on the clips of the run that are like it, once all are read."),
    ] = ContextChoice.none,
    output: Annotated[
        str | None, typer.Option(help="Table to write: .csv, .jsonl or .parquet; with --engine ray a .parquet folder.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")] = False,
    no_csv_escape: options.NoCsvEscape = False,
    workers: options.Workers = None,
    batch_size: options.BatchSize = None,
    decoder: options.Decoder = options.DecoderChoice.auto,
    limit: options.Limit = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    all_files: options.AllFiles = False,
    shard: options.Shard = None,
    engine: options.EngineOption = options.Engine.local,
    ray_address: options.RayAddress = None,
    ray_actors: options.RayActors = None,
    ray_gpus: options.RayGpus = None,
    ray_cpus: options.RayCpus = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    frames_per_second: options.FramesPerSecond = None,
) -> None:
    """Recognise the action in each clip, with a row for every file, including unreadable ones."""
    if resume and output is None:
        raise UsageError("--resume needs the table to continue; give it with --output.")
    options.refuse_ray_options(engine, ray_address, ray_actors, ray_gpus, ray_cpus)
    if context is ContextChoice.folder and engine is options.Engine.ray:
        raise UsageError("--context folder needs all clips in one place; leave out --engine ray.")

    from nonlocal_video.inference.files import Selection
    from nonlocal_video.inference.options import RunOptions
    from nonlocal_video.inference.request import ClipRequest
    from nonlocal_video.video.limits import DecodeLimits
    from nonlocal_video.zoo.catalogue import card_of, weights_sha256

    request = ClipRequest.parse(
        views=views, fast=fast, start_seconds=start_seconds, end_seconds=end_seconds, region=region
    )
    selection = Selection.parse(include or (), exclude or (), shard, all_files=all_files)
    passed_over = PassedOver()
    limits = DecodeLimits.parse(limit or ())
    card = card_of(model)
    spec = card.view(fast=fast)  # rejects an unavailable --fast before the weights are read
    run_options = RunOptions(device, runtime.value, precision.value, decoder.value, limits)
    if engine is options.Engine.ray:
        from nonlocal_video.inference.batch_run import run_settings
        from nonlocal_video.inference.ray.engine import Cluster, ClusterJob

        settings = run_settings(card, weights_sha256(model) if output else None, request, run_options, top_k=top_k)
        cluster = Cluster(ray_address, ray_actors, ray_gpus, ray_cpus or 1.0, workers)
        job = ClusterJob(model, spec, request, run_options, batch_size or 1, top_k)
        counts, done_before = _on_ray(
            paths, selection, passed_over, job, cluster, settings, output, resume=resume, as_json=as_json
        )
    else:
        from nonlocal_video.inference.batch_run import FolderOptions
        from nonlocal_video.inference.load import load
        from nonlocal_video.inference.runtimes.device import choose_devices

        devices = choose_devices(device, runtime=runtime.value)
        how = FolderOptions(
            output, resume, top_k, workers, batch_size, devices, selection, context.value, csv_escape=not no_csv_escape
        )
        with load(model, **replace(run_options, device=devices[0]).keywords()) as recognizer:
            result = _here(recognizer, paths, request, how, as_json=as_json)
        counts, done_before, passed_over = result.counts, result.done_before, result.passed_over
    together = counts + done_before
    if not together:
        chosen = " that --include, --exclude and --shard let pass" if include or exclude or shard else ""
        raise UsageError(f"There is no file in {', '.join(map(repr, paths))}{chosen}.{_only(passed_over)}")
    if passed_over:
        typer.echo(passed_over.sentence(), err=True)
    if together.total() > 1:
        words = ", ".join(f"{number} {code}" for code, number in together.most_common())
        earlier = f" ({done_before.total()} of them done before)" if done_before else ""
        not_tried = f"; {passed_over.total} passed over" if passed_over else ""
        typer.echo(f"{together.total()} files: {words}{earlier}{not_tried}", err=True)
    if together.total() > together["ok"]:
        raise typer.Exit(STATUS_FAILED)


def _here(
    recognizer: Recognizer, paths: Sequence[str], request: ClipRequest, options: FolderOptions, *, as_json: bool
) -> FolderResult:
    """Run on this machine with a progress bar; an interrupt ends the command with status 130."""
    from nonlocal_video.inference.batch_run import BatchProgress, run_folder
    from nonlocal_video.inference.files import find_files
    from nonlocal_video.inference.results import ResultFile

    added = 0
    selection, leave_out = options.selection, ResultFile.files_of(options.output)
    with (
        naming_resume(keeps=options.output is not None),
        GracefulInterrupt() as stop,
        RunProgressBar(lambda: sum(1 for _ in find_files(paths, selection=selection, leave_out=leave_out))) as bar,
    ):

        def show(progress: BatchProgress) -> None:
            nonlocal added
            added = progress.counts.total()
            bar.update(progress.counts, progress.done_before.total())
            if options.context == "none":
                bar.row(json.dumps(progress.row) if as_json else describe(progress.outcome, options.top_k))

        try:
            result = run_folder(
                recognizer, paths, request, options, should_stop=lambda: stop.requested, on_progress=show
            )
            for row in result if options.context == "folder" else ():  # all answers are final only now
                bar.row(json.dumps(row) if as_json else describe_row(row))
            return result
        except KeyboardInterrupt:
            kept = f" {added} rows were added to {options.output!r}; the same command with --resume continues."
            typer.echo("Stopped." + (kept if options.output else ""), err=True)
            raise typer.Exit(STATUS_INTERRUPTED) from None


def _on_ray(
    paths: Sequence[str],
    selection: Selection,
    passed_over: PassedOver,
    job: ClusterJob,
    cluster: Cluster,
    settings: dict[str, Any],
    output: str | None,
    *,
    resume: bool,
    as_json: bool,
) -> tuple[Counter[str], Counter[str]]:
    """Run on a Ray cluster; return counts of `ok` and error codes, of this run and of earlier ones."""
    if (output is None) != as_json:
        raise UsageError("--engine ray either writes a table or prints rows: give --output NAME.parquet or --json.")

    from nonlocal_video.inference.files import find_files
    from nonlocal_video.inference.ray.engine import classify_on_ray, errors_of_devices
    from nonlocal_video.inference.ray.parts import PartFolder

    files = find_files(paths, selection=selection, passed_over=passed_over)
    if output is None:
        rows = classify_on_ray(files, job, cluster)
        counts: Counter[str] = Counter()
        with errors_of_devices():
            for line in rows.iter_rows() if rows else ():
                error = json.loads(line["row"])["error"]
                counts[error["code"] if error else "ok"] += 1
                typer.echo(line["row"])
        return counts, Counter()
    parts = PartFolder(output, settings, top_k=job.top_k, resume=resume)
    before = parts.counts()
    rows = classify_on_ray(parts.still_to_do(files), job, cluster)
    try:
        if rows is not None:
            with naming_resume(keeps=True), errors_of_devices():
                parts.write(rows)
    except KeyboardInterrupt:
        typer.echo("Stopped. The same command with --resume continues.", err=True)
        raise typer.Exit(STATUS_INTERRUPTED) from None
    return parts.counts() - before, parts.done_before


def _only(passed_over: PassedOver) -> str:
    """Describe the skipped files, for an error about missing clips."""
    if not passed_over:
        return ""
    frames = " If the images are frames, make clips of them: ffmpeg -framerate 25 -i FOLDER/%05d.jpg clip.mp4."
    return f" {passed_over.sentence()}{frames if PICTURES in passed_over.counts else ''}"
