"""`nonlocal-video annotations`: segments from and to annotation tools."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nonlocal_video.cli.outputs import check_new_file
from nonlocal_video.cli.terminal import STATUS_FAILED
from nonlocal_video.cli.text import shown
from nonlocal_video.errors import UsageError

app = typer.Typer(
    help="Segments from and to ELAN, BORIS, Label Studio, ActivityNet, subtitles, CSV.", no_args_is_help=True
)


class LabelsChoice(StrEnum):
    """Source of an annotation's label."""

    value = "value"
    tier = "tier"
    both = "both"


@app.callback()
def _verbs() -> None:
    """Keep `convert` a verb of its own though it is the only one."""


@app.command()
def convert(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN... OUT",
            help="Files to read, and last the file to write: .eaf, .boris, .labelstudio.json, .activitynet.json, .vtt, "
            ".srt, .segments.csv. Read, too: .json of the tools, tables of BORIS (.csv, .tsv).",
        ),
    ],
    media: Annotated[
        str | None, typer.Option(metavar="VIDEO", help="The video, where IN does not name it or names it wrongly.")
    ] = None,
    media_folder: Annotated[Path | None, typer.Option(help="Folder in which videos are looked for by name.")] = None,
    video: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only segments of this video, where OUT is of a single one.")
    ] = None,
    tier: Annotated[
        list[str] | None,
        typer.Option(help="Only this tier (ELAN), control (Label Studio) or subject (BORIS); may be repeated."),
    ] = None,
    labels: Annotated[
        LabelsChoice, typer.Option(help="Label from an annotation's value, its tier's name, or both.")
    ] = LabelsChoice.value,
    frames_per_second: Annotated[
        float | None, typer.Option(help="Rate at which frames are counted in Label Studio, if the file does not say.")
    ] = None,
    by_timestamps: Annotated[
        bool,
        typer.Option("--by-timestamps", help="Frame numbers are the video's own frames: take the times it shows them."),
    ] = False,
    point_seconds: Annotated[float | None, typer.Option(help="Duration to give to events that have none.")] = None,
    url_prefix: Annotated[
        str | None, typer.Option(help="Address put before each video's name for Label Studio.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="What was converted as JSON on standard output.")] = False,
) -> None:
    """Convert annotations; what OUT has no place for is said on standard error."""
    from nonlocal_video.annotations.convert import convert_annotations
    from nonlocal_video.annotations.segment import counted

    if len(files) < 2:
        raise UsageError("Give a file to read and one to write: nonlocal-video annotations convert IN OUT.")
    *sources, output = files
    check_new_file(output)
    done = convert_annotations(
        sources,
        output,
        media=media,
        media_folder=media_folder,
        tiers=tier or (),
        labels_from=labels.value,
        frames_per_second=frames_per_second,
        by_timestamps=by_timestamps,
        video=video,
        point_seconds=point_seconds,
        url_prefix=url_prefix,
    )
    for line in (*done.notes, *done.problems):
        typer.echo(shown(line), err=True)
    num_videos = len({segment.path for segment in done.segments})
    if as_json:
        about = {"output": str(output), "num_segments": len(done.segments), "num_videos": num_videos}
        typer.echo(json.dumps({**about, "notes": done.notes, "problems": done.problems}))
    else:
        what = f"{counted(len(done.segments), 'segment')} of {counted(num_videos, 'video')}"
        typer.echo(f"{what}, written to {shown(str(output))}.")
    if done.problems:
        raise typer.Exit(STATUS_FAILED)
