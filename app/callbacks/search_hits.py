"""Moments that were found, as the page names and shows them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nonlocal_video.inference.prediction import printable
from nonlocal_video.retrieval.api import SearchResult
from nonlocal_video.retrieval.example import SearchExample
from nonlocal_video.retrieval.hit import Hit

from ..components.headline import DONE, said
from ..messages import refusal
from .search_index import WORDS
from .search_visit import SearchVisit
from .timeline_words import short_clock


def shown_name(visit: SearchVisit, path: str) -> str:
    """Return the name under which the visitor knows a file."""
    known = next((name for name, file in visit.names.items() if str(file) == path), None)
    return known or printable(Path(path).name)


def found_words(visit: SearchVisit, result: SearchResult, example: SearchExample, label: str | None) -> dict[str, Any]:
    """Return the headline that says what a search found."""
    if not result:
        return said(DONE, WORDS["found_none"].format(label=f" of {label}" if label else ""))
    ((_, start, end),) = result.examples
    where = WORDS["all"] if example.is_whole else WORDS["at"].format(seconds=short_clock((start + end) / 2))
    name = shown_name(visit, str(example.path))
    # Scores are cosines less the archive's mean: below 0 is less alike than two of its moments usually are.
    alike = sum(hit.score > 0 for hit in result.hits)
    head = WORDS["found" if alike > 1 else "found_one" if alike else "found_unlike"]
    order = WORDS["order" if alike == len(result) else "unlike_rest" if alike else "unlike_all"]
    return said(DONE, head.format(count=alike, name=name, where=where), order.format(count=alike))


def cards_of(visit: SearchVisit, hits: Iterable[Hit]) -> list[dict[str, Any]]:
    """Return what the page shows of each moment of the last search; `url` is filled in when its preview is there."""
    return [
        {
            "search": visit.number,
            "name": shown_name(visit, hit.path),
            "start": hit.start_seconds,
            "end": hit.end_seconds,
            "when": f"{short_clock(hit.start_seconds)} - {short_clock(hit.end_seconds)}",
            "score": hit.score,
            "url": "",
        }
        for hit in hits
    ]


def hits_of(visit: SearchVisit, chosen: Any) -> list[Hit]:
    """Return the moments that a browser names: the number of a search, and the numbers of moments that it found.

    Raises:
        gr.Error: They are no such numbers, or the search is too long ago.
    """
    try:
        hits = visit.found[int(chosen["search"])]
        return [hits[int(number)] for number in chosen["moments"] if 0 <= int(number) < len(hits)]
    except (TypeError, ValueError, KeyError, OverflowError):
        raise refusal(WORDS["too_old"]) from None


def span_of(hit: Hit) -> tuple[float, float, float, float]:
    """Return the arguments of a copy of a moment that lies elsewhere."""
    return hit.start_seconds, hit.end_seconds, hit.score, hit.best_seconds
