"""Hits as files: a table, JSON, a picture, a page; and each of them as a clip of its own."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nonlocal_video.errors import OutputError, UsageError, VideoError
from nonlocal_video.inference.csv_cells import write_rows
from nonlocal_video.inference.segment_files import cut_clip
from nonlocal_video.io import atomic_write, check_new
from nonlocal_video.retrieval.contact_sheet import draw_sheet
from nonlocal_video.retrieval.hit import Hit
from nonlocal_video.retrieval.page import page_of
from nonlocal_video.video.decode import VideoReader

FORMATS = (".csv", ".jsonl", ".json", ".png", ".html")
COLUMNS = ("rank", "path", "start_seconds", "end_seconds", "score")
_NAME_CHARACTERS = 60


def check_output(output: str | os.PathLike[str]) -> Path:
    """Return the path if hits can be written there; checked before the work.

    Raises:
        UsageError: Unknown ending, the folder is not there, or something has this name.
    """
    output = Path(output)
    if output.suffix.lower() not in FORMATS:
        raise UsageError(f"output = {str(output)!r} should end in one of {', '.join(FORMATS)}.")
    if not output.parent.is_dir():
        raise UsageError(f"output = {str(output)!r} is in a folder that does not exist; create it first.")
    check_new(output)
    return output


def write_hits(
    output: str | os.PathLike[str],
    query: dict[str, Any],
    hits: Sequence[Hit],
    *,
    examples: Sequence[tuple[str, float, float]] = (),
    csv_escape: bool = True,
) -> Path:
    """Write hits in the format of the suffix.

    Args:
        output: .csv or .jsonl (a row a hit), .json (as `search --json`), .png (a frame of each) or .html (plays them).
        query: What was asked for, as JSON.
        hits: Best first.
        examples: Path, start and end of each positive example, for .png and .html.
        csv_escape: In a CSV, put an apostrophe before names that a spreadsheet would take for a formula.

    Raises:
        UsageError: See `check_output`.
        OutputError: It cannot be written.
    """
    output = check_output(output)
    rows = [hit.to_row() for hit in hits]
    ending = output.suffix.lower()
    if ending == ".csv":
        text = io.StringIO(newline="")
        write_rows(text, COLUMNS, rows, escape=csv_escape)
        content = text.getvalue().encode()
    elif ending == ".jsonl":
        content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    elif ending == ".json":
        content = json.dumps({"query": query, "hits": rows}, indent=1).encode() + b"\n"
    elif ending == ".png":
        content = draw_sheet(hits, examples)
    else:
        content = page_of(hits, examples, output.parent).encode()
    try:
        with atomic_write(output) as file:
            file.write(content)
    except OSError as error:
        raise OutputError(
            f"output = {str(output)!r} cannot be written: {error.strerror}. Choose another path or make room."
        ) from error
    return output


def cut_hits(
    hits: Sequence[Hit],
    folder: str | os.PathLike[str],
    *,
    on_failure: Callable[[Hit, VideoError], None],
) -> list[Path]:
    """Write each hit as an MP4 without sound, named `RANK_START-END_NAME.mp4`.

    Args:
        hits: Best first.
        folder: Made if it is not there.
        on_failure: Called with each hit whose video cannot be read; the others are written all the same.

    Returns:
        The files that were written.

    Raises:
        UsageError: A file of that name is there already.
        OutputError: The folder or a file cannot be written.
    """
    folder = Path(folder)
    paths = [folder / _clip_name(hit) for hit in hits]
    for path in paths:
        if os.path.lexists(path):
            raise UsageError(f"{str(path)!r} exists, and is not written over. Choose another --clips-dir, or empty it.")
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with VideoReader() as reader:
            for path, hit in zip(paths, hits, strict=True):
                try:
                    cut_clip(reader, hit.path, hit.start_seconds, hit.end_seconds, path)
                except VideoError as error:
                    on_failure(hit, error)
                else:
                    written.append(path)
    except OSError as error:
        raise OutputError(f"{str(folder)!r} cannot be written: {error.strerror}. Choose another folder.") from error
    return written


def _clip_name(hit: Hit) -> str:
    name = re.sub(r"[^\w-]+", "_", Path(hit.path).stem).strip("_")[:_NAME_CHARACTERS]
    return f"{hit.rank:04d}_{hit.start_seconds:.2f}-{hit.end_seconds:.2f}_{name}.mp4"
