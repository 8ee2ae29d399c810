"""Search by example: from a table of features, or a folder, to the moments most like some examples."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.load import load
from nonlocal_video.inference.object_storage import is_remote
from nonlocal_video.inference.precision import Precision
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.runtimes.choice import RuntimeOption
from nonlocal_video.retrieval.archive import Archive, open_archive
from nonlocal_video.retrieval.chamfer import DECIMALS, Scores, score_moments
from nonlocal_video.retrieval.example import ClipPath, SearchExample
from nonlocal_video.retrieval.folder_index import IndexCallback, update_index
from nonlocal_video.retrieval.hit import Hit
from nonlocal_video.retrieval.labels import windows_of_labels
from nonlocal_video.retrieval.likeness import Floats
from nonlocal_video.retrieval.moments import best_moments, overlapping
from nonlocal_video.retrieval.query import FoundExample, find_example
from nonlocal_video.retrieval.refine import MAX_WINDOWS, refined
from nonlocal_video.retrieval.result import SearchResult
from nonlocal_video.retrieval.windows import Windows
from nonlocal_video.video.region import Region, RegionLike

Examples = ClipPath | SearchExample | Sequence[ClipPath | SearchExample]

Allowed = NDArray[np.bool_]


def search(
    source: ClipPath | Archive,
    *,
    like: Examples,
    at: float | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    unlike: Examples = (),
    top_k: int = 20,
    index: ClipPath | None = None,
    refine: bool = False,
    min_score: float | None = None,
    labels: Sequence[str] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    model: ClipPath | Recognizer = "default",
    device: str = "auto",
    runtime: RuntimeOption = "auto",
    precision: Precision = "float32",
    fast: bool = False,
    stride_seconds: float | None = None,
    region: RegionLike = None,
    callback: IndexCallback | None = None,
) -> SearchResult:
    """Find the moments of an archive that are most like a clip, or a moment of it.

    Args:
        source: Table of `features --output`; or a folder of videos, whose features are kept in a table that this call
            makes or brings up to date: new and changed files are read, and files that are gone leave it. Or a table
            that `open_archive` has opened.
        like: Clips that the moments should be like, one or several; a part of one as `SearchExample`, or by name as
            `match.mp4#t=12.5,15`. One that is in the archive is not read again, and its own place is not found.
        at: Middle of the moment that counts, in seconds of the player, if `like` is one clip.
        start_seconds: Start of the part that counts, likewise.
        end_seconds: End of the part that counts, likewise.
        unlike: Clips that the moments should not be like.
        top_k: Number of moments.
        index: Table for a folder; None is one in the cache folder.
        refine: Whether to rank the best moments once more after a non-local operation over them.
        min_score: Least score of a moment.
        labels: Only windows that the model takes for one of these classes.
        include: Glob patterns, one of which a file of the archive has to match.
        exclude: Glob patterns that it must not match.
        model: Model, as for `load`: of a folder's features, and of examples that are not in the archive. Or a
            recognizer, on its own device.
        device: As for `load`.
        runtime: As for `load`.
        precision: As for `load`.
        fast: Use the model card's cheaper input for a folder's features.
        stride_seconds: Seconds from one window of a folder's features to the next; None is half a window.
        region: Part of the frame, of a folder's features and of the examples: as for `classify`.
        callback: Told about the work on a folder's table.

    Returns:
        Up to `top_k` moments, best first.

    Raises:
        UsageError: An argument is invalid, the table cannot be searched, or the model is not the table's.
        VideoError: An example cannot be read.
        OutputError: The table or its vectors cannot be written.
        DeviceError: The device failed; the same call continues.

    Example:
        >>> hits = nlv.search("table.parquet", like="clip.mp4", at=3.2)
        >>> hits[0].path, hits[0].start_seconds
        ('archive/tuesday.mp4', 128.0)
    """
    likes, unlikes = _examples(like, at, start_seconds, end_seconds), _parsed(unlike)
    if not (isinstance(top_k, int) and top_k >= 1):
        raise UsageError(f"top_k = {top_k} should be a whole number, at least 1.")
    if min_score is not None and not math.isfinite(min_score):
        raise UsageError(f"min_score = {min_score} should be a number.")
    region = Region.parse(region)
    opened = source if isinstance(source, Archive) else None
    source = os.fspath(source.table if isinstance(source, Archive) else source)
    if is_remote(source):
        raise UsageError(f"{source!r} is an address, but search takes local tables and folders. Copy it here.")
    with ExitStack() as stack:

        @cache
        def recognizer() -> Recognizer:
            if isinstance(model, Recognizer):
                return model
            return stack.enter_context(load(model, device=device, runtime=runtime, precision=precision))

        notes: list[str] = []
        if os.path.isdir(source):
            table = update_index(
                recognizer(),
                source,
                index,
                fast=fast,
                stride_seconds=stride_seconds,
                region=region,
                callback=callback,
            )
            archive = open_archive(table).seen_from(os.path.realpath(source), source)
        else:
            _refuse_folder_options(index, fast, stride_seconds, region)
            archive = opened or open_archive(source)
        if archive.num_errors:
            notes.append(
                f"{archive.num_errors} files could not be read, or not to their end; their moments are missing."
            )
        found = [find_example(one, archive, recognizer) for one in likes]
        against = [find_example(one, archive, recognizer) for one in unlikes]
        allowed = archive.windows.matching(include, exclude)
        if labels:
            allowed &= windows_of_labels(archive, recognizer(), labels)
    for one in (*found, *against):
        allowed[one.rows] = False
    hits = _hits(archive, allowed, found, against, top_k, refine=refine, min_score=min_score)
    if len(hits) < top_k:
        notes.append(f"There are {len(hits)} such moments, fewer than the {top_k} asked for.")
    query: dict[str, Any] = {
        "like": [one.to_json() for one in found],
        "unlike": [one.to_json() for one in against],
        "source": source,
        "model": archive.source.model,
        "weights_sha256": archive.source.weights_sha256,
        "layer": archive.source.layer,
        "refined": refine,
        "num_windows": len(archive.windows),
        "num_files": len(archive.windows.paths),
        "num_errors": archive.num_errors,
    }
    examples = tuple((one.path, one.start_seconds, one.end_seconds) for one in found)
    return SearchResult(query, hits, examples, tuple(notes))


def _hits(
    archive: Archive,
    allowed: Allowed,
    likes: Sequence[FoundExample],
    unlikes: Sequence[FoundExample],
    top_k: int,
    *,
    refine: bool,
    min_score: float | None,
) -> tuple[Hit, ...]:
    windows = archive.windows
    vectors: NDArray[np.float16] | Floats = archive.vectors
    positive, negative = [one.vectors for one in likes], [one.vectors for one in unlikes]
    scores = score_moments(vectors, windows, allowed, positive, negative)
    if refine:
        rows = _rows_to_refine(scores, windows, allowed)
        windows, allowed = windows.subset(rows), np.ones(len(rows), dtype=bool)
        vectors, changed = refined(vectors[rows], [*positive, *negative])
        positive, negative = changed[: len(positive)], changed[len(positive) :]
        scores = score_moments(vectors, windows, allowed, positive, negative)
    hits = []
    for rank, moment in enumerate(best_moments(scores, windows, allowed, top_k), start=1):
        score = round(moment.score, DECIMALS)
        if min_score is not None and score < min_score:
            break
        first, stop = moment.best, int(scores.stop[moment.best])
        middle = (windows.starts[first] + windows.ends[first:stop].max()) / 2
        hits.append(
            Hit(
                rank,
                windows.paths[windows.path_of[moment.first]],
                float(windows.starts[moment.first]),
                float(windows.ends[moment.first : moment.last + 1].max()),
                score,
                float(middle),
            )
        )
    return tuple(hits)


def _rows_to_refine(scores: Scores, windows: Windows, allowed: Allowed) -> NDArray[np.int64]:
    """Return the rows of the best moments in order, as many moments as `MAX_WINDOWS` have room for."""
    chosen: set[int] = set()
    for moment in best_moments(scores, windows, allowed, MAX_WINDOWS):
        rows = overlapping(windows, moment.first, moment.last)
        more = chosen.union(rows[allowed[rows]].tolist())
        if chosen and len(more) > MAX_WINDOWS:
            break
        chosen = more
    return np.array(sorted(chosen), dtype=np.int64)


def _examples(
    like: Examples, at: float | None, start_seconds: float | None, end_seconds: float | None
) -> list[SearchExample]:
    examples = _parsed(like)
    if not examples:
        raise UsageError("like names no clip. Give at least one.")
    moment = {"at": at, "start_seconds": start_seconds, "end_seconds": end_seconds}
    given = {name: value for name, value in moment.items() if value is not None}
    if not given:
        return examples
    if len(examples) > 1:
        raise UsageError(
            f"{' and '.join(given)} belongs to one clip, and like names {len(examples)}. Name the parts as "
            f"CLIP#t=START,END."
        )
    if not examples[0].is_whole:
        raise UsageError(f"{os.fspath(examples[0].path)!r} has its own start and end; leave out {' and '.join(given)}.")
    return [SearchExample(examples[0].path, **moment)]


def _parsed(examples: Examples) -> list[SearchExample]:
    if isinstance(examples, (str, os.PathLike, SearchExample)):
        examples = [examples]
    return [SearchExample.parse(one) for one in examples]


def _refuse_folder_options(
    index: ClipPath | None, fast: bool, stride_seconds: float | None, region: Region | None
) -> None:
    given = {
        "index": index is not None,
        "fast": fast,
        "stride_seconds": stride_seconds is not None,
        "region": region is not None,
    }
    if any(given.values()):
        names = ", ".join(name for name, is_given in given.items() if is_given)
        raise UsageError(f"{names}: only for a folder, whose table is made here; this one is made already.")
