"""`nonlocal-video classify`: files and folders in, the likeliest actions out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from nonlocal_video.cli import options
from nonlocal_video.cli.text import describe
from nonlocal_video.errors import UsageError

if TYPE_CHECKING:
    from nonlocal_video.inference.cluster import Cluster, ClusterJob
    from nonlocal_video.inference.loading import ClipRequest
    from nonlocal_video.inference.recognizer import Recognizer

STATUS_SOME_FAILED = 1
STATUS_INTERRUPTED = 130


class Engine(str, Enum):
    """What runs the stages."""

    local = "local"
    ray = "ray"


def classify(
    paths: Annotated[
        list[str], typer.Argument(help="Video files, folders (searched through), glob patterns, object storage URLs.")
    ],
    model: options.Model = "default",
    device: options.Device = "auto",
    views: Annotated[str, typer.Option(help="CLIPSxCROPS to average; 10x3 is the paper's protocol.")] = "1x1",
    fast: options.Fast = False,
    start_seconds: options.StartSeconds = None,
    end_seconds: options.EndSeconds = None,
    top_k: options.TopK = 5,
    output: Annotated[
        str | None, typer.Option(help="Table to write: .csv, .jsonl or .parquet; of --engine ray a .parquet folder.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an output that was cut off.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Decoding processes beside the network; 1, of ray all CPUs left.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Views in one forward pass.")] = 1,
    decoder: options.Decoder = options.DecoderChoice.auto,
    engine: Annotated[Engine, typer.Option(help="ray: Ray Data, here or on a cluster.")] = Engine.local,
    ray_address: Annotated[
        str | None, typer.Option(help="Of a running Ray cluster, or auto; without it Ray is started here.")
    ] = None,
    ray_actors: Annotated[
        int | None, typer.Option(min=1, help="Ray's processes with a network; one a GPU, or one.")
    ] = None,
    ray_gpus: Annotated[float | None, typer.Option(min=0, help="GPUs of such a process; 0.5 lets two share.")] = None,
    ray_cpus: Annotated[float | None, typer.Option(min=0, help="CPUs of such a process, 1 if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")] = False,
) -> None:
    """Recognise the action in each clip; a row for every file, bad ones included."""
    if resume and output is None:
        raise UsageError("--resume goes on with a table; name it with --output.")
    of_ray = {"--ray-address": ray_address, "--ray-actors": ray_actors, "--ray-gpus": ray_gpus, "--ray-cpus": ray_cpus}
    given = [name for name, value in of_ray.items() if value is not None]
    if given and engine is not Engine.ray:
        raise UsageError(f"{', '.join(given)} only act with --engine ray.")

    from nonlocal_video.inference.loading import ClipRequest
    from nonlocal_video.inference.views import ViewCount
    from nonlocal_video.models.checkpoint import read_card
    from nonlocal_video.zoo.catalogue import find

    request = ClipRequest(ViewCount.parse(views), start_seconds, end_seconds)
    card = read_card(find(model))
    settings: dict[str, Any] = {
        "model": card.name,
        "views": views,
        "fast": fast,
        "start_seconds": start_seconds,
        "end_seconds": end_seconds,
        "top_k": top_k,
        "decoder": decoder.value,
    }
    if engine is Engine.ray:
        from nonlocal_video.inference.cluster import Cluster, ClusterJob

        cluster = Cluster(ray_address, ray_actors, ray_gpus, ray_cpus or 1.0, workers)
        job = ClusterJob(
            model, card.view(fast=fast), request, device, decoder.value, batch_size=batch_size, top_k=top_k
        )
        counts, done_before = _on_ray(paths, job, cluster, settings, output, resume=resume, as_json=as_json)
    else:
        from nonlocal_video.inference.recognizer import load

        with load(model, device=device, decoder=decoder.value) as recognizer:
            counts, done_before = _here(
                recognizer,
                paths,
                request,
                settings,
                output,
                resume=resume,
                as_json=as_json,
                workers=workers or 1,
                batch_size=batch_size,
            )
    if counts.total() + done_before == 0:
        raise UsageError(f"There is no file in {', '.join(paths)}.")
    if counts.total() + done_before > 1:
        words = [f"{number} {code}" for code, number in counts.most_common()]
        words += [f"{done_before} done before"] if done_before else []
        typer.echo(f"{counts.total() + done_before} files: {', '.join(words)}", err=True)
    if counts.total() > counts["ok"]:
        raise typer.Exit(STATUS_SOME_FAILED)


def _here(
    recognizer: Recognizer,
    paths: Sequence[str],
    request: ClipRequest,
    settings: dict[str, Any],
    output: str | None,
    *,
    resume: bool,
    as_json: bool,
    workers: int,
    batch_size: int,
) -> tuple[Counter[str], int]:
    """On this machine: counts of `ok` and of the error codes, and how many files were done before."""
    from nonlocal_video.inference.folder import classify_files, find_files
    from nonlocal_video.inference.results import ResultFile

    counts: Counter[str] = Counter()
    fast, top_k = settings["fast"], settings["top_k"]
    with ExitStack() as stack:
        files = find_files(paths, exclude=ResultFile.files_of(output))
        results = None
        if output is not None:
            results = stack.enter_context(ResultFile(output, settings, top_k=top_k, resume=resume))
            files = results.still_to_do(files)
        outcomes = stack.enter_context(
            closing(classify_files(recognizer, files, request, fast=fast, workers=workers, batch_size=batch_size))
        )
        progress = stack.enter_context(_progress())
        task = progress.add_task("")
        try:
            for outcome in outcomes:
                row = outcome.to_row(top_k)
                if results is not None:
                    results.append(outcome.path, row)
                counts[row["error"]["code"] if row["error"] else "ok"] += 1
                progress.update(task, advance=1, errors=counts.total() - counts["ok"])
                typer.echo(json.dumps(row) if as_json else describe(outcome, top_k))
        except KeyboardInterrupt:
            typer.echo("Stopped." + (" The same command with --resume goes on." if results else ""), err=True)
            raise typer.Exit(STATUS_INTERRUPTED) from None
    return counts, 0 if results is None else results.done_before


def _on_ray(
    paths: Sequence[str],
    job: ClusterJob,
    cluster: Cluster,
    settings: dict[str, Any],
    output: str | None,
    *,
    resume: bool,
    as_json: bool,
) -> tuple[Counter[str], int]:
    """On a cluster: counts of `ok` and of the error codes, and how many files were done before."""
    if (output is None) != as_json:
        raise UsageError("--engine ray writes a table or prints rows: give --output NAME.parquet, or --json.")

    from nonlocal_video.inference.cluster import classify_on_ray
    from nonlocal_video.inference.folder import find_files
    from nonlocal_video.inference.part_files import PartFolder

    files = find_files(paths)
    if output is None:
        rows = classify_on_ray(files, job, cluster)
        counts: Counter[str] = Counter()
        for line in rows.iter_rows() if rows else ():
            error = json.loads(line["row"])["error"]
            counts[error["code"] if error else "ok"] += 1
            typer.echo(line["row"])
        return counts, 0
    parts = PartFolder(output, settings, top_k=job.top_k, resume=resume)
    before = parts.counts()
    rows = classify_on_ray(parts.still_to_do(files), job, cluster)
    try:
        if rows is not None:
            parts.write(rows)
    except KeyboardInterrupt:
        typer.echo("Stopped. The same command with --resume goes on.", err=True)
        raise typer.Exit(STATUS_INTERRUPTED) from None
    return parts.counts() - before, parts.done_before


def _progress() -> Progress:
    """Files so far, errors so far and the time, on standard error when it is a terminal."""
    columns = (TextColumn("{task.completed} files, {task.fields[errors]} errors"), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
