"""`nonlocal-video classify`: files and folders in, the likeliest actions out."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from nonlocal_video.cli import options
from nonlocal_video.cli.text import describe
from nonlocal_video.errors import UsageError

STATUS_SOME_FAILED = 1
STATUS_INTERRUPTED = 130


def classify(
    paths: Annotated[list[str], typer.Argument(help="Video files, folders (searched through) and glob patterns.")],
    model: options.Model = "default",
    device: options.Device = "auto",
    views: Annotated[str, typer.Option(help="CLIPSxCROPS to average; 10x3 is the paper's protocol.")] = "1x1",
    fast: options.Fast = False,
    start_seconds: options.StartSeconds = None,
    end_seconds: options.EndSeconds = None,
    top_k: options.TopK = 5,
    output: Annotated[Path | None, typer.Option(help="Table to write: .csv, .jsonl or .parquet.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an output that was cut off.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Decoding processes beside the network.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Views in one forward pass.")] = 1,
    decoder: options.Decoder = options.DecoderChoice.auto,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")] = False,
) -> None:
    """Recognise the action in each clip; a row for every file, bad ones included."""
    if resume and output is None:
        raise UsageError("--resume goes on with a table; name it with --output.")

    from nonlocal_video.inference.folder import classify_files, find_files
    from nonlocal_video.inference.loading import ClipRequest
    from nonlocal_video.inference.recognizer import load
    from nonlocal_video.inference.results import ResultFile
    from nonlocal_video.inference.views import ViewCount

    request = ClipRequest(ViewCount.parse(views), start_seconds, end_seconds)
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        recognizer = stack.enter_context(load(model, device=device, decoder=decoder.value))
        files = find_files(paths, exclude=ResultFile.files_of(output))
        results = None
        if output is not None:
            settings = {
                "model": recognizer.card.name,
                "views": views,
                "fast": fast,
                "start_seconds": start_seconds,
                "end_seconds": end_seconds,
                "top_k": top_k,
                "decoder": decoder.value,
            }
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
        done_before = 0 if results is None else results.done_before
    if counts.total() + done_before == 0:
        raise UsageError(f"There is no file in {', '.join(paths)}.")
    if counts.total() + done_before > 1:
        words = [f"{number} {code}" for code, number in counts.most_common()]
        words += [f"{done_before} done before"] if done_before else []
        typer.echo(f"{counts.total() + done_before} files: {', '.join(words)}", err=True)
    if counts.total() > counts["ok"]:
        raise typer.Exit(STATUS_SOME_FAILED)


def _progress() -> Progress:
    """Files so far, errors so far and the time, on standard error when it is a terminal."""
    columns = (TextColumn("{task.completed} files, {task.fields[errors]} errors"), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
