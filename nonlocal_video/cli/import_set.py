"""`nonlocal-video import`: a public data set on disk as a list of clips for `check`, `train` and `evaluate`."""

from __future__ import annotations

import json
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nonlocal_video.cli.outputs import check_new_file
from nonlocal_video.cli.terminal import STATUS_FAILED
from nonlocal_video.cli.text import shown

_LISTED = 10


class SetChoice(StrEnum):
    """The data sets whose layouts are known."""

    ucf101 = "ucf101"
    hmdb51 = "hmdb51"
    kinetics = "kinetics"
    ssv2 = "ssv2"
    jester = "jester"


def import_set(
    name: Annotated[SetChoice, typer.Argument(help="The data set.")],
    root: Annotated[Path, typer.Argument(help="Folder in which its clips and lists were unpacked.")],
    output: Annotated[Path, typer.Option(help="CSV to write: path,label[,group][,split].")],
    split: Annotated[int, typer.Option(help="Official division of UCF101 and HMDB51, 1 to 3.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="What was found as JSON on standard output.")] = False,
) -> None:
    """Write a public data set as a list of clips, with its official split and groups that do not leak."""
    from nonlocal_video.datasets.public_sets import read_public_set, write_clip_list
    from nonlocal_video.io import atomic_write

    check_new_file(output, ".csv")
    missing_list = output.with_suffix(".missing.txt")
    check_new_file(missing_list)
    found = read_public_set(name.value, root, split=split)
    notes = [*found.notes, *write_clip_list(output, found.clips)]
    if found.missing:
        with atomic_write(missing_list) as file:
            file.write("".join(f"{clip}\n" for clip in found.missing).encode("utf-8", "backslashreplace"))
        more = " ..." if len(found.missing) > _LISTED else ""
        notes.append(
            f"{len(found.missing)} clips of the lists are missing: {', '.join(found.missing[:_LISTED])}{more}. All of "
            f"them: {missing_list}"
        )
    for note in notes:
        typer.echo(shown(note), err=True)
    splits = Counter(clip.split or "none" for clip in found.clips)
    summary = {
        "output": str(output),
        "num_clips": len(found.clips),
        "num_missing": len(found.missing),
        "num_classes": len({clip.label for clip in found.clips}),
        "num_groups": len({clip.group for clip in found.clips if clip.group}),
        "splits": dict(splits),
        "notes": notes,
    }
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        in_splits = ", ".join(f"{count} {split_name}" for split_name, count in splits.items())
        typer.echo(
            f"{summary['num_clips']} clips of {summary['num_classes']} classes in {summary['num_groups']} groups "
            f"({in_splits}), written to {shown(str(output))}."
        )
    if found.missing:
        raise typer.Exit(STATUS_FAILED)
